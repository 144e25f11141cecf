"""The gate before a merge: is this commit slower, larger or hungrier than another?

Both commits run at the same time, each in a process of its own with its own library on its path,
on the same Python and the same files. Samples are taken in turn, and each pair gives one ratio, of
processor seconds of all threads and of wall seconds: the first are steady on a shared machine, the
second see what waits. Work that threads no longer share shows in the calling thread's part of the
processor seconds, whoever else uses the machine. What waits for a network is counted, not timed:
requests are exact. What HEAD can no longer do closes the gate, and so does what could not be
measured.

A process keeps its luck with memory (where its heap and its pages came to lie) for all its samples,
so that equal commits differ by more than the pairs scatter. What would close the gate by seconds is
therefore measured again by two fresh processes, whose word counts.
"""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.config import BENCHMARK_DIR, RESULTS_DIR
from benchmarks.data.boxes import Task
from benchmarks.environment import current_commit, describe_machine, git, require_history
from benchmarks.errors import BenchmarkError
from benchmarks.folders import scratch_folder
from benchmarks.gate.side import CPU, SHARE, WALL, export_library
from benchmarks.gate.verdicts import Verdict, compare, compare_counts, exact
from benchmarks.infrastructure.measure import interleaved
from benchmarks.infrastructure.progress import track
from benchmarks.operations import GATE, PATCHES, SHARED, is_counted_only
from benchmarks.process import Process, ProcessError
from benchmarks.s3 import running_server
from benchmarks.sections import write_file
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
# Two threads of a loader may decode the same tile, or both find it decoded: that is chance.
_NOT_COUNTED = ("epoch", "epoch:pairs", "first-batch")
# What others do on this machine is in wall seconds and in who gets which share of the work, too:
# only what is clearly slower is called so.
CLEARLY = WALL_TOLERANCE, WALL_SLOWDOWN = 0.25, 1.6
# Chosen, not measured: one reading a side, and equal commits differed by up to 27 % in the runs
# seen. A leak shows in the slope, whose tolerance is a quarter of a leak of 2 KiB a patch.
MEMORY_TOLERANCE, LEAK_BYTES = 0.30, 768.0
CLOSING = ("worse", "unknown", "broken", "unmeasured")

Sides = dict[str, Process]


@dataclass(frozen=True)
class Finding:
    """One line of the gate's table.

    Attributes
    ----------
    message
        What a side said where it broke.
    doubted
        The verdict of a first pair of processes, where it would have closed the gate and a second
        pair was asked.
    """

    benchmark: str
    measure: str
    verdict: Verdict
    base: float = float("nan")
    head: float = float("nan")
    message: str = ""
    doubted: Verdict | None = None


def gate(base: str, *, quick: bool = False) -> int:
    """Compare the commit checked out with `base`; print and save the verdicts; 1 if it is closed.

    A gate that saw nothing does not open: it is an error.
    """
    # An aborted run must not leave the verdict of an earlier one.
    (RESULTS_DIR / "gate.md").unlink(missing_ok=True)
    require_history(clean=True)
    found = git("rev-parse", "--verify", "--quiet", f"{base}^{{commit}}")
    if not found:
        raise BenchmarkError(f"{base!r} is no commit of this repository; see `git log --oneline`")
    commits = {"base": found, "head": current_commit() or ""}
    with scratch_folder(BENCHMARK_DIR / "gate") as folder:
        libraries = {
            side: export_library(commit, folder / side) for side, commit in commits.items()
        }
        findings, lacking = measure(libraries, QUICK_PAIRS if quick else PAIRS)
    report(findings, lacking, commits)
    return int(is_closed(findings))


def is_closed(findings: Sequence[Finding]) -> bool:
    """Return whether anything closes the gate."""
    return any(finding.verdict.word in CLOSING for finding in findings)


def measure(
    libraries: dict[str, Path], pairs: int, names: Sequence[str] = GATE
) -> tuple[list[Finding], dict[str, str]]:
    """Return the findings, and why an operation has none.

    `libraries` are folders that hold a `radiobject`, by side: "base" and "head".
    """
    task = Task(make_task().cohort).with_patches_that_fit()
    with ExitStack() as stack:
        if any(map(is_counted_only, names)):
            stack.enter_context(running_server())
        with _running(libraries, task) as sides:
            findings, lacking = _compare_all(libraries, sides, pairs, names)
    if not findings:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in lacking.items())
        raise BenchmarkError(f"the gate measured nothing ({reasons})")
    if any(map(_is_doubtful, findings)):
        with _running(libraries, task) as sides:
            findings = _ask_again(findings, sides, pairs)
    return findings, lacking


@contextmanager
def _running(libraries: dict[str, Path], task: Task) -> Iterator[Sides]:
    """Run a fresh process for each side."""
    with ExitStack() as stack:
        yield {
            side: stack.enter_context(closing(_begun(side, library, task)))
            for side, library in libraries.items()
        }


def _compare_all(
    libraries: dict[str, Path], sides: Sides, pairs: int, names: Sequence[str]
) -> tuple[list[Finding], dict[str, str]]:
    findings: list[Finding] = []
    lacking: dict[str, str] = {}
    try:
        for side, library in libraries.items():
            measured = sides[side].ask("where")
            if measured != library.resolve():
                raise BenchmarkError(f"the gate would measure {measured}, not the exported commit")
    except ProcessError as error:
        return [_broken("import", error)], {}
    for name in track(names, "comparing", total=len(names)):
        try:
            reason = _lacks(name, sides)
            if reason:
                lacking[name] = reason
            else:
                findings += _compare_operation(name, sides, pairs)
        except ProcessError as error:
            findings.append(_broken(name, error))
    if findings:
        findings += _memory(sides)
    return findings, lacking


def _is_doubtful(finding: Finding) -> bool:
    """Return whether a finding may be one pair of processes' luck: counts and errors are not."""
    return finding.measure in (CPU, WALL, SHARE) and finding.verdict.word in CLOSING


def _ask_again(findings: Sequence[Finding], sides: Sides, pairs: int) -> list[Finding]:
    """Return the findings, those that are doubtful as these other processes see them."""
    doubtful = list(filter(_is_doubtful, findings))
    again: dict[tuple[str, str], Finding] = {}
    broken: list[Finding] = []
    names = dict.fromkeys(finding.benchmark for finding in doubtful)
    for name in track(names, "measuring again", total=len(names)):
        try:
            _lacks(name, sides)
            again |= {(name, found.measure): found for found in _times(name, sides, pairs)}
        except ProcessError as error:
            broken.append(_broken(name, error))
    seen = []
    for finding in findings:
        other = again.get((finding.benchmark, finding.measure)) if finding in doubtful else None
        seen.append(replace(other, doubted=finding.verdict) if other else finding)
    return seen + broken


def _begun(side: str, library: Path, task: Task) -> Process:
    home = library / "stores"
    home.mkdir(exist_ok=True)
    return Process(side, "benchmarks.gate.side:Side", replace(task, home=home), library=library)


def _broken(name: str, error: ProcessError) -> Finding:
    """Return a finding that closes: HEAD fails where BASE works, or BASE fails on what it has."""
    word = "broken" if error.process == "head" else "unmeasured"
    nothing = exact(float("nan"), word)
    return Finding(name, "runs", nothing, message=f"{error.process}: {error.trace}")


def _lacks(name: str, sides: Sides) -> str:
    """Prepare an operation; return why it cannot be compared, if both sides or BASE lack it.

    If HEAD lacks what BASE has it is broken, whatever it says: nothing may be lost unseen.
    """
    ready = {side: process.ask("prepare", name) for side, process in sides.items()}
    lacks = {side: answer["lacks"] for side, answer in ready.items() if answer}
    if list(lacks) == ["head"]:
        raise ProcessError("head", f"lacks what base has\n{ready['head']['trace']}")
    return "; ".join(f"{side}: {reason}" for side, reason in lacks.items())


def _compare_operation(name: str, sides: Sides, pairs: int) -> list[Finding]:
    if is_counted_only(name):
        return _counts(name, sides, " first touch") + _counts(name, sides, " later")
    return [*_times(name, sides, pairs), *_counts(name, sides)]


def _times(name: str, sides: Sides, pairs: int) -> list[Finding]:
    """Return the verdicts on seconds, and on sharing them; what is unknown gets more pairs."""
    seconds = max(process.ask("sample", name, 1)[WALL] for process in sides.values())
    calls = max(1, min(_MAX_CALLS, round(_SAMPLE_S / max(seconds, 1e-6))))
    repeats = _REPEATS if seconds < _LONG_S else 1
    measures = (CPU, WALL, SHARE) if name in SHARED else (CPU, WALL)
    taken = {measure: {side: [] for side in sides} for measure in measures}
    samplers = {side: partial(one.ask, "sample", name, calls) for side, one in sides.items()}
    for _ in range(_MOST):
        for sampled in interleaved(samplers, pairs, repeats):
            for side, samples in sampled.items():
                for measure, by_side in taken.items():
                    by_side[side].append(statistics.median(one[measure] for one in samples))
        verdicts = {
            measure: compare(by["base"], by["head"], *(() if measure == CPU else CLEARLY))
            for measure, by in taken.items()
        }
        if all(verdict.word != "unknown" for verdict in verdicts.values()):
            break
    return [
        Finding(name, measure, verdict, *map(statistics.median, taken[measure].values()))
        for measure, verdict in verdicts.items()
    ]


def _counts(name: str, sides: Sides, state: str = "") -> list[Finding]:
    """Return the counters that differ, and, of what is only counted, those that do not."""
    if name in _NOT_COUNTED:
        return []
    base, head = (sides[side].ask("count", name) for side in ("base", "head"))
    found = []
    for counter, before in base.items():
        after = head.get(counter)
        if after is None:
            lost = ProcessError("head", f"no longer counts {counter}")
            found.append(replace(_broken(name + state, lost), measure=counter))
        elif after != before or (after and is_counted_only(name)):
            slack = _LISTINGS if counter == "bytes answered" else 0.0
            verdict = compare_counts(before, after, slack)
            found.append(Finding(name + state, counter, verdict, before, after))
    return found


def _memory(sides: Sides) -> list[Finding]:
    """Return what both hold after everything, and what they gain with each patch."""
    try:
        base, head = (sides[side].ask("resident") for side in ("base", "head"))
        slopes = {side: process.ask("growth") for side, process in sides.items()}
    except ProcessError as error:
        return [_broken("memory", error)]
    ratio, most = head / base, 1 + MEMORY_TOLERANCE
    word = "worse" if ratio > most else "better" if ratio < 1 / most else "same"
    held = Finding("after all", "resident MiB", exact(ratio, word), base, head)
    if "lacks" in slopes["base"]:
        return [held]
    if "lacks" in slopes["head"]:
        return [held, _broken("memory", ProcessError("head", slopes["head"]["lacks"]))]
    before, after = (slopes[side]["bytes"] for side in ("base", "head"))
    leak = exact(after - before, "worse" if after - before > LEAK_BYTES else "same")
    return [held, Finding(f"{PATCHES:,} patches", "bytes a patch", leak, before, after)]


def report(findings: list[Finding], lacking: dict[str, str], commits: dict[str, str]) -> None:
    """Print the verdict and write it to ``gate.md`` in the results' folder."""
    page = as_markdown(findings, lacking, commits)
    write_file(RESULTS_DIR / "gate.md", page)
    print(page)


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
    lines += [_doubt(finding) for finding in findings if finding.doubted]
    lines += [f"\nNot compared: {name} ({reason})." for name, reason in lacking.items()]
    for finding in findings:
        if finding.message:
            lines += ["", f"{finding.benchmark}:", "", "```", finding.message.strip(), "```"]
    return "\n".join(lines) + "\n"


def _doubt(finding: Finding) -> str:
    first, verdict = finding.doubted, finding.verdict
    assert first is not None
    return (
        f"\nMeasured again by fresh processes: {finding.benchmark} {finding.measure}, "
        f"{first.word} ({first.ratio:.2f}) by the first two, {verdict.word} "
        f"({verdict.ratio:.2f}) by the second."
    )


def _line(finding: Finding) -> str:
    verdict: Any = finding.verdict
    closing_word = f"**{verdict.word}**" if verdict.word in CLOSING else verdict.word
    if verdict.word in ("broken", "unmeasured"):
        return f"| {finding.benchmark} | {finding.measure} | | | | | {closing_word} |"
    interval = f"{verdict.low:.2f} to {verdict.high:.2f}" if verdict.pairs > 1 else "exact"
    return (
        f"| {finding.benchmark} | {finding.measure} | {finding.base:.4g} | {finding.head:.4g} "
        f"| {verdict.ratio:.2f} | {interval} | {closing_word} |"
    )
