"""The ranking: every loader in a process of its own, measured in turn, round after round.

Turns make ratios fair on a machine whose speed drifts; the clock starts before ``iter(loader)``.
Where several numbers of workers are allowed, each loader is measured with its own best.
"""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.config import Preset
from benchmarks.data.boxes import Task
from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure.progress import track
from benchmarks.process import Process
from benchmarks.rivals import LOADERS


@dataclass
class Row:
    """One loader's figures, or why it has none.

    Attributes
    ----------
    status
        "ok", "skipped" (it cannot run here) or "failed" (it should have run); `reason` tells.
    workers
        Loader processes: the best of those that were allowed.
    samples_per_s
        Median over the rounds.
    disk_mib
        What one volume takes on disk, as this loader reads it.
    requests, bytes_sent
        What an object store answered to one epoch.
    ratio
        Median over rounds of this loader's samples/s over the best rival's of the same round.
    rounds
        Samples per second of each round; index i was measured just after index i of the others.
    """

    name: str
    label: str
    framework: str
    scenario: str
    storage: str
    cites: str = ""
    status: str = "ok"
    reason: str = ""
    workers: int = 0
    samples_per_s: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    min_ms: float = 0.0
    first_batch_ms: float = 0.0
    cpu_ms_per_sample: float = 0.0
    resident_mib: float = 0.0
    disk_mib: float = 0.0
    requests: int | None = None
    bytes_sent: int | None = None
    ratio: float | None = None
    sha256: str = ""
    patches_compared: int = 0
    given_boxes: bool = False
    rounds: list[float] = field(default_factory=list)

    @property
    def is_rival(self) -> bool:
        """Return whether this is another project's loader (and not the physical limit)."""
        return self.framework != "RadiObject" and self.storage != "memory"

    def fail(self, error: object) -> None:
        """Keep why there are no figures."""
        lines = str(error).strip().splitlines()
        self.status, self.reason = "failed", lines[0] if lines else type(error).__name__

    def ask(self, process: Process, what: str, *arguments: Any) -> None:
        """Take the figures that the loader's process answers with; none after a failure."""
        if self.status != "ok":
            return
        try:
            answer = process.ask(what, *arguments)
        except BenchmarkError as error:
            self.fail(error)
            return
        if "samples_per_s" in answer:
            self.rounds.append(answer["samples_per_s"])
            answer["samples_per_s"] = float(np.median(self.rounds))
        if "resident_mib" in answer:
            answer["resident_mib"] = max(self.resident_mib, answer["resident_mib"])
        vars(self).update(answer)


def rank(
    task: Task, names: Sequence[str], preset: Preset, workers: Sequence[int] = (0,)
) -> list[Row]:
    """Measure the loaders called `names`; return a row for each, fastest first.

    Raises
    ------
    BenchmarkError
        If nothing could be measured, or loaders that were given the same boxes delivered
        different voxels.
    """
    rows = _prepared(task, names)
    for row in track(_measurable(rows), "choosing workers"):
        row.workers = _best_workers(row, task, preset, workers)
    with ExitStack() as stack:
        running = [(row, stack.enter_context(_process(row, task))) for row in _measurable(rows)]
        for row, process in track(running, "proving equal voxels", total=len(running)):
            row.ask(process, "prove")
            row.ask(process, "open")
        for _ in track(range(preset.rounds), "measuring", total=preset.rounds):
            for row, process in running:
                row.ask(process, "round", preset.round_s)
    return _ranked(rows)


def rank_epochs(task: Task, names: Sequence[str], preset: Preset) -> tuple[list[Row], list[Row]]:
    """Return the rows of first epochs, each by a process that begins with it, and of later ones.

    What a network costs is in whole epochs: `Row.requests` and `Row.bytes_sent` are of one.
    """
    first = _prepared(task, names)
    for row in _measurable(first):
        with _process(row, task) as proving:
            row.ask(proving, "prove")
    later = [replace(row, rounds=[]) for row in first]
    for _ in track(range(preset.rounds), "measuring epochs", total=preset.rounds):
        for row, again in zip(first, later, strict=True):
            if row.status == "ok":
                with _process(row, task) as process:
                    row.ask(process, "epoch")
                    again.ask(process, "epoch")
            if row.status != "ok":
                again.status, again.reason = row.status, row.reason
    return _ranked(first), _ranked(later)


def _measurable(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.status == "ok"]


def _process(row: Row, task: Task, workers: int | None = None) -> closing[Process]:
    asked = replace(task, num_workers=row.workers if workers is None else workers)
    return closing(Process(row.label, "benchmarks.participant:Session", row.name, asked))


def _prepared(task: Task, names: Sequence[str]) -> list[Row]:
    """Return a row for each loader, its files written, or with the reason why it cannot run."""
    task.check()
    rows = []
    for name in track(names, "preparing", total=len(names)):
        kind = LOADERS[name]
        row = Row(name, kind.label, kind.framework, kind.scenario, kind.storage, kind.cites)
        rows.append(row)
        reason = kind.missing()
        if reason is None and not kind.fits(task.cache_share):
            reason = f"cannot be held to {task.cache_share:.0%} of the decoded volumes"
        if reason is not None:
            row.status, row.reason = "skipped", reason
            continue
        try:
            kind(task).prepare()
        except (BenchmarkError, ImportError, ValueError, RuntimeError, OSError) as error:
            row.fail(error)
    return rows


def _best_workers(row: Row, task: Task, preset: Preset, allowed: Sequence[int]) -> int:
    """Return the number of workers with which one round of this loader was the fastest."""
    if len(allowed) == 1:
        return allowed[0]
    speed: dict[int, float] = {}
    failure = BenchmarkError("no number of workers was tried")
    for count in allowed:
        with _process(row, task, count) as process:
            try:
                process.ask("open")
                answer = process.ask("round", preset.round_s)
                speed[count] = answer["samples_per_s"]
            except BenchmarkError as error:
                failure = error  # it may still run with another number
    if not speed:
        row.fail(failure)
        return allowed[0]
    return max(speed, key=lambda count: speed[count])


def _ranked(rows: list[Row]) -> list[Row]:
    measured = _measurable(rows)
    if not measured:
        reasons = "; ".join(f"{row.label}: {row.reason}" for row in rows)
        raise BenchmarkError(f"nothing was measured ({reasons})")
    require_equal(measured)
    compare_with_best_rival(measured)
    order = {"ok": 0, "failed": 1, "skipped": 2}
    return sorted(rows, key=lambda row: (order[row.status], -row.samples_per_s))


def require_equal(rows: list[Row]) -> None:
    """Refuse loaders that were given the same boxes and delivered different voxels."""
    given = [row for row in rows if row.given_boxes]
    if len({row.sha256 for row in given}) > 1:
        named = ", ".join(f"{row.label} {row.sha256[:8]}" for row in given)
        raise BenchmarkError(f"the same boxes gave different voxels: {named}")


def compare_with_best_rival(rows: list[Row]) -> None:
    """Set each row's `ratio`: over the fastest rival of the same round, median over rounds."""
    rivals = [row.rounds for row in rows if row.is_rival]
    if not rivals:
        return
    best = np.max(rivals, axis=0)
    for row in rows:
        row.ratio = float(np.median(np.array(row.rounds) / best))
