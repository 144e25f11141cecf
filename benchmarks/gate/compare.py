"""The gate before a merge: is this commit slower, larger or hungrier than another?

Both commits run at the same time, each in a process of its own with its own library on its path,
on the same Python and the same files. Samples are taken in turn, and each pair gives one ratio, of
processor seconds of all threads and of wall seconds: the first are steady on a shared machine, the
second see work that is no longer shared among threads. What waits for a network is counted, not
timed: requests are exact. What HEAD can no longer do closes the gate, and so does what could not
be measured.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.config import BENCHMARK_DIR, RESULTS_DIR
from benchmarks.environment import current_commit, describe_machine, git
from benchmarks.errors import BenchmarkError
from benchmarks.folders import scratch_folder
from benchmarks.gate.side import SideError, Worker, export_library
from benchmarks.gate.verdicts import Verdict, compare, compare_counts
from benchmarks.history import require_history
from benchmarks.infrastructure.progress import track
from benchmarks.memory import PATCHES
from benchmarks.operations import GATE, is_counted_only
from benchmarks.s3 import running_server
from benchmarks.sections import replace, save_json
from benchmarks.suites.base import make_task

PAIRS = 20
QUICK_PAIRS = 10
_REPEATS = 3  # a sample is the middle of so many, which takes out the single long one
_LONG_S = 0.2  # a call this long is a sample by itself: it holds its own average
_SAMPLE_S = 0.05  # each as many calls as fill this, so that the clock's grain is nothing
_MAX_CALLS = 50
_MOST = 4  # what is unknown gets up to so many times the pairs
# Listings hold times and names of their own: bytes of equal commits differ by a few.
_LISTINGS = 0.01
# A loader's thread reads ahead of its caller: when a call ends, how far it got is chance.
_AHEAD = ("batches", "pairs", "first-batch")
# What others do on this machine is in wall seconds too: only what is clearly slower is called so.
WALL_TOLERANCE, WALL_SLOWDOWN = 0.25, 1.6
# Chosen, not measured: one reading a side, and equal commits differed by up to 27 % in the runs
# seen. A leak shows in the slope, whose tolerance is a quarter of a leak of 2 KiB a patch.
MEMORY_TOLERANCE, LEAK_BYTES = 0.30, 768.0
CLOSING = ("worse", "unknown", "broken", "unmeasured")
_EXACT = ("broken", "unmeasured")


@dataclass(frozen=True)
class Finding:
    """One line of the gate's table; `message` is what a side said where it broke."""

    benchmark: str
    measure: str
    verdict: Verdict
    base: float = float("nan")
    head: float = float("nan")
    message: str = ""


def gate(base: str, *, quick: bool = False) -> int:
    """Compare the commit checked out with `base`; print and save the verdicts.

    Returns
    -------
    int
        0 if the gate is open, 1 if it is closed.

    Raises
    ------
    BenchmarkError
        Without a history, with uncommitted changes, for an unknown commit, or if no operation
        could be measured on either side: a gate that saw nothing does not open.
    """
    for name in ("gate.json", "gate.md"):
        # An aborted run must not leave the verdict of an earlier one.
        (RESULTS_DIR / name).unlink(missing_ok=True)
    require_history(clean=True)
    commits = {"base": _commit(base), "head": current_commit() or ""}
    with scratch_folder(BENCHMARK_DIR / "gate") as folder:
        libraries = {
            side: export_library(commit, folder / side) for side, commit in commits.items()
        }
        findings, lacking = measure(libraries, QUICK_PAIRS if quick else PAIRS)
    report(findings, lacking, commits)
    return 1 if is_closed(findings) else 0


def is_closed(findings: Sequence[Finding]) -> bool:
    """Return whether anything closes the gate."""
    return any(finding.verdict.word in CLOSING for finding in findings)


def _commit(name: str) -> str:
    found = git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if not found:
        raise BenchmarkError(f"{name!r} is no commit of this repository; see `git log --oneline`")
    return found


def measure(
    libraries: dict[str, Path], pairs: int, names: Sequence[str] = GATE
) -> tuple[list[Finding], dict[str, str]]:
    """Return the findings, and why an operation has none.

    Parameters
    ----------
    libraries
        Folders that hold a `radiobject`, by side: "base" and "head".
    """
    cohort_root = make_task().cohort.root
    findings: list[Finding] = []
    lacking: dict[str, str] = {}
    with ExitStack() as stack:
        if any(is_counted_only(name) for name in names):
            _start_server(stack)
        sides = {side: Worker(side, library) for side, library in libraries.items()}
        for worker in sides.values():
            stack.callback(worker.close)
        try:
            for worker in sides.values():
                worker.begin(cohort_root)
        except SideError as error:
            return [_broken("import", error)], {}
        for name in track(names, "comparing", total=len(names)):
            try:
                reason = _lacks(name, sides)
                if reason:
                    lacking[name] = reason
                else:
                    findings += _compare_operation(name, sides, pairs)
            except SideError as error:
                findings.append(_broken(name, error))
        if findings:
            findings += _memory(sides)
    if not findings:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in lacking.items())
        raise BenchmarkError(f"the gate measured nothing ({reasons})")
    return findings, lacking


def _start_server(stack: ExitStack) -> None:
    # Without moto there is no server, and the operations that need one say so.
    with suppress(BenchmarkError):
        stack.enter_context(running_server())


def _broken(name: str, error: SideError) -> Finding:
    """Return a finding that closes: HEAD fails where BASE works, or BASE fails on what it has."""
    word = "broken" if error.side == "head" else "unmeasured"
    nothing = Verdict(float("nan"), float("nan"), float("nan"), 1, word)
    return Finding(name, "runs", nothing, message=f"{error.side}: {error.message}")


def _lacks(name: str, sides: dict[str, Worker]) -> str:
    """Prepare an operation; return why it cannot be compared, if both sides or BASE lack it.

    Raises
    ------
    SideError
        If HEAD lacks what BASE has, whatever it says: nothing may be lost unseen.
    """
    ready = {side: worker.ask("prepare", name) for side, worker in sides.items()}
    lacks = {side: answer["lacks"] for side, answer in ready.items() if "lacks" in answer}
    if "head" in lacks and "base" not in lacks:
        raise SideError("head", f"lacks what base has\n{ready['head']['trace']}")
    return "; ".join(f"{side}: {reason}" for side, reason in lacks.items())


def _compare_operation(name: str, sides: dict[str, Worker], pairs: int) -> list[Finding]:
    if is_counted_only(name):
        return _counts(name, sides, " first touch") + _counts(name, sides, " later")
    return [*_times(name, sides, pairs), *_counts(name, sides)]


def _times(name: str, sides: dict[str, Worker], pairs: int) -> list[Finding]:
    """Return the verdicts on processor and wall seconds; what is unknown gets more pairs."""
    seconds = max(worker.ask("sample", name, 1)["wall"] for worker in sides.values())
    calls = max(1, min(_MAX_CALLS, round(_SAMPLE_S / max(seconds, 1e-6))))
    repeats = _REPEATS if seconds < _LONG_S else 1
    taken: dict[str, dict[str, list[float]]] = {
        clock: {side: [] for side in sides} for clock in ("cpu", "wall")
    }
    verdicts: dict[str, Verdict] = {}
    for _ in range(_MOST):
        for number in range(pairs):
            # Who goes first alternates: what the first leaves in the processor's caches, the
            # second finds.
            order = list(sides.items()) if number % 2 else list(sides.items())[::-1]
            for side, clock, middle in _take_pair(name, order, calls, repeats):
                taken[clock][side].append(middle)
        cpu, wall = taken["cpu"], taken["wall"]
        verdicts = {
            "CPU s": compare(cpu["base"], cpu["head"]),
            "wall s": compare(wall["base"], wall["head"], WALL_TOLERANCE, WALL_SLOWDOWN),
        }
        if all(verdict.word != "unknown" for verdict in verdicts.values()):
            break
    return [
        Finding(name, what, verdict, *(statistics.median(clock[side]) for side in ("base", "head")))
        for (what, verdict), clock in zip(verdicts.items(), taken.values(), strict=True)
    ]


def _take_pair(
    name: str, order: list[tuple[str, Worker]], calls: int, repeats: int
) -> Iterator[tuple[str, str, float]]:
    """Yield each side's seconds of one call by each clock: the middle of `repeats` samples."""
    seen: dict[str, list[dict[str, float]]] = {side: [] for side, _ in order}
    for _ in range(repeats):
        for side, worker in order:
            seen[side].append(worker.ask("sample", name, calls))
    for side, samples in seen.items():
        for clock in ("cpu", "wall"):
            yield side, clock, statistics.median(sample[clock] / calls for sample in samples)


def _counts(name: str, sides: dict[str, Worker], state: str = "") -> list[Finding]:
    """Return the counters that differ, and, of what is only counted, those that do not."""
    if name in _AHEAD:
        return []
    base, head = (sides[side].ask("count", name) for side in ("base", "head"))
    found = []
    for counter, value in head.items():
        if counter in base and (base[counter] != value or (value and is_counted_only(name))):
            slack = _LISTINGS if counter == "bytes answered" else 0.0
            verdict = compare_counts(base[counter], value, slack)
            found.append(Finding(name + state, counter, verdict, base[counter], value))
    return found


def _memory(sides: dict[str, Worker]) -> list[Finding]:
    """Return what both hold after everything, and what they gain with each patch."""
    try:
        base, head = (sides[side].ask("resident")["mib"] for side in ("base", "head"))
        low, high = 1 / (1 + MEMORY_TOLERANCE), 1 + MEMORY_TOLERANCE
        ratio = head / base
        word = "worse" if ratio > high else "better" if ratio < low else "same"
        held = Finding(
            "after all", "resident MiB", Verdict(ratio, ratio, ratio, 1, word), base, head
        )
        slopes = {side: worker.ask("growth") for side, worker in sides.items()}
    except SideError as error:
        return [_broken("memory", error)]
    if "lacks" in slopes["base"]:
        return [held]
    if "lacks" in slopes["head"]:
        return [held, _broken("memory", SideError("head", slopes["head"]["lacks"]))]
    before, after = (slopes[side]["bytes"] for side in ("base", "head"))
    word = "worse" if after - before > LEAK_BYTES else "same"
    leak = Verdict(after - before, after - before, after - before, 1, word)
    return [held, Finding(f"{PATCHES:,} patches", "bytes a patch", leak, before, after)]


def report(findings: list[Finding], lacking: dict[str, str], commits: dict[str, str]) -> None:
    """Print the verdict and write ``gate.json`` and ``gate.md`` to the results' folder."""
    page = as_markdown(findings, lacking, commits)
    save_json(
        RESULTS_DIR / "gate.json",
        {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commits": commits,
            "machine": describe_machine(),
            "closed": is_closed(findings),
            "findings": [asdict(finding) for finding in findings],
            "lacking": lacking,
        },
    )
    replace(RESULTS_DIR / "gate.md", page)
    print(page, file=sys.stdout)


def as_markdown(
    findings: Sequence[Finding], lacking: dict[str, str], commits: dict[str, str]
) -> str:
    """Return the verdict as a pull request shows it."""
    words = [finding.verdict.word for finding in findings]
    counted = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    machine = describe_machine()
    lines = [
        f"## Gate {'closed' if is_closed(findings) else 'open'}: {commits['head'][:10]} against "
        f"{commits['base'][:10]}",
        "",
        f"{counted}. {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine['cpu']}, "
        f"{machine['cores']} cores.",
        "",
        "| benchmark | measure | base | head | ratio | 99 % interval | verdict |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    lines += [_line(finding) for finding in findings]
    lines += [f"\nNot compared: {name} ({reason})." for name, reason in lacking.items()]
    for finding in findings:
        if finding.message:
            lines += ["", f"{finding.benchmark}:", "", "```", finding.message.strip(), "```"]
    return "\n".join(lines) + "\n"


def _line(finding: Finding) -> str:
    verdict: Any = finding.verdict
    closing = f"**{verdict.word}**" if verdict.word in CLOSING else verdict.word
    if verdict.word in _EXACT:
        return f"| {finding.benchmark} | {finding.measure} | | | | | {closing} |"
    interval = f"{verdict.low:.2f} to {verdict.high:.2f}" if verdict.pairs > 1 else "exact"
    return (
        f"| {finding.benchmark} | {finding.measure} | {finding.base:.4g} | {finding.head:.4g} "
        f"| {verdict.ratio:.2f} | {interval} | {closing} |"
    )
