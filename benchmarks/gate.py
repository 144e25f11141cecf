"""The gate before a merge: is this commit slower, larger or hungrier than another?

Both commits run at the same time, each in a process of its own with its own library on its path,
on the same Python and the same files. Samples are taken in turn, and each pair gives one ratio.
Times are processor seconds of all threads: on a machine that others use too, wall seconds say
more about them. What waits for a network is left to the counters, and to asv's `bench_s3`.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.config import _BENCHMARKS_DIR, RESULTS_DIR
from benchmarks.environment import current_commit, describe_machine, git
from benchmarks.errors import BenchmarkError
from benchmarks.history import require_history
from benchmarks.infrastructure.progress import track
from benchmarks.verdicts import Verdict, compare, compare_counts

ROOT = _BENCHMARKS_DIR.parent
PAIRS = 20
QUICK_PAIRS = 10
_REPEATS = 3  # a sample is the middle of so many, which takes out the single long one
_SAMPLE_S = 0.05  # each as many calls as fill this, so that the clock's grain is nothing
_MAX_CALLS = 50
# A loader's thread reads ahead of its caller: when a call ends, how far it got is chance.
_AHEAD = ("batches", "pairs", "first-batch")
# One reading a side: equal commits differed by up to 11 %, so only what is well beyond counts.
_MEMORY_TOLERANCE = 0.30


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
    with tempfile.TemporaryDirectory(prefix="radiobject-gate-") as folder:
        libraries = {
            side: export_library(commit, Path(folder) / side) for side, commit in commits.items()
        }
        findings, lacking = measure(libraries, QUICK_PAIRS if quick else PAIRS)
    report(findings, lacking, commits)
    return 1 if any(f.verdict.word == "worse" for f in findings) else 0


def _commit(name: str) -> str:
    found = git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if not found:
        raise BenchmarkError(f"{name!r} is no commit of this repository; see `git log --oneline`")
    return found


def export_library(commit: str, folder: Path) -> Path:
    """Write the library as it was at `commit`, and today's benchmarks, below `folder`."""
    packed = subprocess.run(
        ["git", "archive", commit, "radiobject"], cwd=ROOT, capture_output=True, check=False
    )
    if packed.returncode:
        raise BenchmarkError(f"commit {commit[:10]} holds no radiobject: {packed.stderr.decode()}")
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    (folder / "benchmarks").symlink_to(_BENCHMARKS_DIR, target_is_directory=True)
    return folder


class Worker:
    """The process of one side."""

    def __init__(self, library: Path, environment: dict[str, str]) -> None:
        self._library = library
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gate_worker"],
            cwd=library,
            env={**os.environ, **environment, "PYTHONPATH": str(library)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, cohort_root: Path) -> None:
        """Name the data, and make sure that the exported library is the one that answers."""
        home = self._library / "stores"
        home.mkdir(exist_ok=True)
        self.ask("begin", str(cohort_root), str(home))
        measured = Path(self.ask("where")["library"])
        if measured.resolve() != (self._library / "radiobject").resolve():
            raise BenchmarkError(f"the gate would measure {measured}, not the exported commit")

    def ask(self, what: str, *arguments: Any) -> dict[str, Any]:
        """Return the answer to one command."""
        pipes = (self._process.stdin, self._process.stdout)
        if pipes[0] is None or pipes[1] is None:
            raise BenchmarkError("the gate's process has no pipes")
        try:
            pipes[0].write(json.dumps([what, arguments]) + "\n")
            pipes[0].flush()
            line = pipes[1].readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BenchmarkError(f"the gate's process ended (code {self._process.wait()})")
        answer = json.loads(line)
        if "error" in answer:
            raise BenchmarkError(f"{what} {' '.join(map(str, arguments))}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


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
    findings: list[Finding] = []
    lacking: dict[str, str] = {}
    with ExitStack() as stack:
        sides = {}
        for side, library in libraries.items():
            extra = (head_environment or {}) if side == "head" else {}
            sides[side] = Worker(library, extra)
            stack.callback(sides[side].close)
            sides[side].begin(cohort_root)
        wanted = names or GATE
        for name in track(wanted, "comparing", total=len(wanted)):
            ready = {side: worker.ask("prepare", name) for side, worker in sides.items()}
            missing = [f"{side}: {a['lacks']}" for side, a in ready.items() if "lacks" in a]
            if missing:
                lacking[name] = "; ".join(missing)
                continue
            seconds = max(answer["seconds"] for answer in ready.values())
            calls = max(1, min(_MAX_CALLS, round(_SAMPLE_S / max(seconds, 1e-6))))
            findings += _times(name, sides, pairs, calls)
            findings += _counts(name, sides)
        if findings:
            findings.append(_memory(sides))
    if not findings:
        told = "; ".join(f"{name}: {reason}" for name, reason in lacking.items())
        raise BenchmarkError(f"the gate measured nothing ({told})")
    return findings, lacking


def _times(name: str, sides: dict[str, Worker], pairs: int, calls: int) -> list[Finding]:
    taken: dict[str, list[float]] = {side: [] for side in sides}
    verdict, used = None, {}
    # What is unknown after the first pairs gets as many again, once.
    while verdict is None or (verdict.word == "unknown" and len(taken["head"]) < 2 * pairs):
        _take_pairs(name, sides, pairs, calls, taken)
        used = {side: [seconds / calls for seconds in taken[side]] for side in taken}
        verdict = compare(used["base"], used["head"])
    middle = {side: statistics.median(values) for side, values in used.items()}
    return [Finding(name, "CPU s", verdict, middle["base"], middle["head"])]


def _take_pairs(
    name: str,
    sides: dict[str, Worker],
    pairs: int,
    calls: int,
    taken: dict[str, list[float]],
) -> None:
    for number in range(pairs):
        # Who goes first alternates: what the first leaves in the processor's caches, the second
        # finds.
        order = list(sides.items()) if number % 2 else list(sides.items())[::-1]
        repeats: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(_REPEATS):
            for side, worker in order:
                repeats[side].append(worker.ask("sample", name, calls)["cpu"])
        for side, samples in repeats.items():
            taken[side].append(statistics.median(samples))


def _counts(name: str, sides: dict[str, Worker]) -> list[Finding]:
    if name in _AHEAD:
        return []
    base, head = (sides[side].ask("count", name) for side in ("base", "head"))
    return [
        Finding(name, counter, compare_counts(base[counter], head[counter]), base[counter], value)
        for counter, value in head.items()
        if counter in base and base[counter] != value
    ]


def _memory(sides: dict[str, Worker]) -> Finding:
    base, head = (sides[side].ask("resident")["mib"] for side in ("base", "head"))
    ratio = head / base
    low, high = 1 / (1 + _MEMORY_TOLERANCE), 1 + _MEMORY_TOLERANCE
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
    RESULTS_DIR.mkdir(parents=True, exist_ok=True)
    summary = {
        "commits": commits,
        "machine": describe_machine(),
        "findings": [asdict(finding) for finding in findings],
        "lacking": lacking,
    }
    (RESULTS_DIR / "gate.json").write_text(json.dumps(summary, indent=1) + "\n")
