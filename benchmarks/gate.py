"""The gate before a merge: is this commit slower, larger or hungrier than another?

Both commits run at the same time, each in a process of its own with its own library on its path,
on the same Python and the same files. Samples are taken in turn, and each pair gives one ratio.
Times are processor seconds of all threads: on a machine that others use too, wall seconds say
more about them. What waits for a network is counted, not timed: requests are exact.
"""

from __future__ import annotations

import statistics
import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.config import BENCHMARK_DIR, RESULTS_DIR
from benchmarks.environment import current_commit, describe_machine, git
from benchmarks.errors import BenchmarkError
from benchmarks.folders import scratch_folder
from benchmarks.gate_side import Worker, export_library
from benchmarks.history import require_history
from benchmarks.infrastructure.progress import track
from benchmarks.operations import is_counted_only
from benchmarks.s3 import running_server
from benchmarks.sections import save_json
from benchmarks.verdicts import Verdict, compare, compare_counts

PAIRS = 20
QUICK_PAIRS = 10
_REPEATS = 3  # a sample is the middle of so many, which takes out the single long one
_LONG_S = 0.2  # a call this long is a sample by itself: it holds its own average
_SAMPLE_S = 0.05  # each as many calls as fill this, so that the clock's grain is nothing
_MAX_CALLS = 50
# A loader's thread reads ahead of its caller: when a call ends, how far it got is chance.
_AHEAD = ("batches", "pairs", "first-batch")
# Chosen, not measured: one reading a side, and equal commits differed by up to 11 % in the few runs
# seen. `gate_check` reports the largest difference over its equal tries, to be compared with this.
MEMORY_TOLERANCE = 0.30


@dataclass(frozen=True)
class Finding:
    """One line of the gate's table."""

    benchmark: str
    measure: str
    verdict: Verdict
    base: float
    head: float


def gate(base: str, *, quick: bool = False) -> int:
    """Compare the commit checked out with `base`; print and save the verdicts.

    Returns
    -------
    int
        0 if nothing got worse, 1 if something did.

    Raises
    ------
    BenchmarkError
        Without a history, with uncommitted changes, for an unknown commit, or if no operation
        could be measured on both sides: a gate that saw nothing does not open.
    """
    require_history(clean=True)
    commits = {"base": _commit(base), "head": current_commit() or ""}
    with scratch_folder(BENCHMARK_DIR / "gate") as folder:
        libraries = {
            side: export_library(commit, folder / side) for side, commit in commits.items()
        }
        findings, lacking = measure(libraries, QUICK_PAIRS if quick else PAIRS)
    report(findings, lacking, commits)
    return 1 if any(f.verdict.word == "worse" for f in findings) else 0


def _commit(name: str) -> str:
    found = git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if not found:
        raise BenchmarkError(f"{name!r} is no commit of this repository; see `git log --oneline`")
    return found


def measure(
    libraries: dict[str, Path],
    pairs: int,
    names: tuple[str, ...] | None = None,
    head_environment: dict[str, str] | None = None,
) -> tuple[list[Finding], dict[str, str]]:
    """Return the findings, and why an operation has none.

    Parameters
    ----------
    libraries
        Folders that hold a `radiobject`, by side: "base" and "head".
    head_environment
        Variables for the head's process alone; the gate's own test slows it down this way.
    """
    from benchmarks.operations import GATE
    from benchmarks.suites import make_task

    cohort_root = make_task().cohort.root
    wanted = names or GATE
    findings: list[Finding] = []
    lacking: dict[str, str] = {}
    with ExitStack() as stack:
        if any(is_counted_only(name) for name in wanted):
            _start_server(stack)
        sides = {}
        for side, library in libraries.items():
            extra = (head_environment or {}) if side == "head" else {}
            sides[side] = Worker(library, extra)
            stack.callback(sides[side].close)
            sides[side].begin(cohort_root)
        for name in track(wanted, "comparing", total=len(wanted)):
            told, missing = _compare_operation(name, sides, pairs)
            findings += told
            if missing:
                lacking[name] = missing
        if findings:
            findings.append(_memory(sides))
    if not findings:
        told = "; ".join(f"{name}: {reason}" for name, reason in lacking.items())
        raise BenchmarkError(f"the gate measured nothing ({told})")
    return findings, lacking


def _start_server(stack: ExitStack) -> None:
    # Without moto there is no server, and the operations that need one say so.
    with suppress(BenchmarkError):
        stack.enter_context(running_server())


def _compare_operation(
    name: str, sides: dict[str, Worker], pairs: int
) -> tuple[list[Finding], str]:
    """Return the findings of one operation, or why there are none."""
    ready = {side: worker.ask("prepare", name) for side, worker in sides.items()}
    missing = [f"{side}: {a['lacks']}" for side, a in ready.items() if "lacks" in a]
    if missing:
        return [], "; ".join(missing)
    if is_counted_only(name):
        return _counts(name, sides, " first touch") + _counts(name, sides, " later"), ""
    seconds = max(answer["seconds"] for answer in ready.values())
    return [_times(name, sides, pairs, seconds), *_counts(name, sides)], ""


def _times(name: str, sides: dict[str, Worker], pairs: int, seconds: float) -> Finding:
    calls = max(1, min(_MAX_CALLS, round(_SAMPLE_S / max(seconds, 1e-6))))
    repeats = _REPEATS if seconds < _LONG_S else 1
    taken: dict[str, list[float]] = {side: [] for side in sides}
    verdict = None
    # What is unknown after the first pairs gets as many again, once.
    while verdict is None or (verdict.word == "unknown" and len(taken["head"]) < 2 * pairs):
        for number in range(pairs):
            # Who goes first alternates: what the first leaves in the processor's caches, the
            # second finds.
            order = list(sides.items()) if number % 2 else list(sides.items())[::-1]
            for side, middle in _take_pair(name, order, calls, repeats).items():
                taken[side].append(middle)
        verdict = compare(taken["base"], taken["head"])
    base, head = (statistics.median(taken[side]) for side in ("base", "head"))
    return Finding(name, "CPU s", verdict, base, head)


def _take_pair(
    name: str, order: list[tuple[str, Worker]], calls: int, repeats: int
) -> dict[str, float]:
    """Return each side's processor seconds for one call: the middle of `repeats` samples."""
    seen: dict[str, list[float]] = {side: [] for side, _ in order}
    for _ in range(repeats):
        for side, worker in order:
            seen[side].append(worker.ask("sample", name, calls)["cpu"] / calls)
    return {side: statistics.median(samples) for side, samples in seen.items()}


def _counts(name: str, sides: dict[str, Worker], state: str = "") -> list[Finding]:
    """Return the counters that differ, and, of what is only counted, those that do not."""
    if name in _AHEAD:
        return []
    base, head = (sides[side].ask("count", name) for side in ("base", "head"))
    return [
        Finding(name + state, counter, compare_counts(base[counter], value), base[counter], value)
        for counter, value in head.items()
        if counter in base and (base[counter] != value or (value and is_counted_only(name)))
    ]


def _memory(sides: dict[str, Worker]) -> Finding:
    base, head = (sides[side].ask("resident")["mib"] for side in ("base", "head"))
    ratio = head / base
    low, high = 1 / (1 + MEMORY_TOLERANCE), 1 + MEMORY_TOLERANCE
    word = "worse" if ratio > high else "better" if ratio < low else "same"
    return Finding("after all", "resident MiB", Verdict(ratio, ratio, ratio, 1, word), base, head)


def report(findings: list[Finding], lacking: dict[str, str], commits: dict[str, str]) -> None:
    """Print the table and write ``gate.json`` to the results' folder."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{commits['head'][:10]} against {commits['base'][:10]}")
    for column in ("benchmark", "measure", "base", "head", "ratio", "99 % interval", "verdict"):
        table.add_column(column, justify="left" if column in ("benchmark", "verdict") else "right")
    for finding in findings:
        v = finding.verdict
        interval = f"{v.low:.2f} to {v.high:.2f}" if v.pairs > 1 else "exact"
        table.add_row(
            finding.benchmark, finding.measure, f"{finding.base:.4g}", f"{finding.head:.4g}",
            f"{v.ratio:.2f}", interval, v.word,
        )  # fmt: skip
    console = Console(width=110 if not sys.stdout.isatty() else None)
    console.print(table)
    for name, reason in lacking.items():
        console.print(f"not compared: {name} ({reason})", highlight=False)
    words = [finding.verdict.word for finding in findings]
    told = ", ".join(f"{words.count(w)} {w}" for w in ("worse", "better", "same", "unknown"))
    console.print(f"{told}: {'closed' if 'worse' in words else 'open'}", highlight=False)
    summary = {
        "commits": commits,
        "machine": describe_machine(),
        "findings": [asdict(finding) for finding in findings],
        "lacking": lacking,
    }
    save_json(RESULTS_DIR / "gate.json", summary)
