"""The ranking: every loader in a process of its own, measured in turn, round after round.

Turns make ratios fair on a machine whose speed drifts; the clock starts before ``iter(loader)``.
Where several numbers of workers are allowed, each loader is measured with its own best.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.config import Preset
from benchmarks.data.boxes import Task
from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure.progress import track
from benchmarks.participant import Participant
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
    rounds
        Samples per second of each round; index i was measured just after index i of the others.
    disk_mib
        What one volume takes on disk, as this loader reads it.
    bytes_per_sample
        Bytes read from files, steady state; None where mapped memory makes them uncountable.
    ratio
        Median over rounds of this loader's samples/s over the best rival's of the same round.
    """

    name: str
    label: str
    framework: str
    scenario: str
    storage: str
    warm: str
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
    bytes_per_sample: float | None = None
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
    for row in track([row for row in rows if row.status == "ok"], "choosing workers"):
        row.workers = _best_workers(row, task, preset, workers)
    running = {row.name: Participant(row.name, _with(task, row)) for row in rows if _ok(row)}
    by_name = {row.name: row for row in rows}
    try:
        for name, one in track(list(running.items()), "proving equal voxels", total=len(running)):
            _ask(one, by_name[name], "prove")
            _ask(one, by_name[name], "open")
        for _ in track(range(preset.rounds), "measuring", total=preset.rounds):
            for name, one in running.items():
                _ask(one, by_name[name], "round", preset.batches, preset.budget_s)
    finally:
        for one in running.values():
            one.close()
    return _ranked(rows)


def rank_epochs(task: Task, names: Sequence[str], preset: Preset) -> tuple[list[Row], list[Row]]:
    """Return the rows of first epochs, each by a process that begins with it, and of later ones.

    What a network costs is in whole epochs: `Row.requests` and `Row.bytes_sent` are of one.
    """
    first = _prepared(task, names)
    later = [replace(row, rounds=[]) for row in first]
    for row in (row for row in first if _ok(row)):
        with closing(Participant(row.name, task)) as proving:
            _ask(proving, row, "prove")
    for _ in track(range(preset.rounds), "measuring epochs", total=preset.rounds):
        for row, again in zip(first, later, strict=True):
            if _ok(row):
                with closing(Participant(row.name, task)) as one:
                    _ask(one, row, "epoch")
                    again.status, again.reason = row.status, row.reason
                    _ask(one, again, "epoch")
    return _ranked(first), _ranked(later)


def _ok(row: Row) -> bool:
    return row.status == "ok"


def _with(task: Task, row: Row) -> Task:
    return replace(task, num_workers=row.workers)


def _prepared(task: Task, names: Sequence[str]) -> list[Row]:
    """Return a row for each loader, its files written, or with the reason why it cannot run."""
    task.check()
    rows = [_row(name, task) for name in names]
    for row in track([row for row in rows if _ok(row)], "preparing"):
        try:
            LOADERS[row.name](task).prepare()
        except (BenchmarkError, ImportError, ValueError, RuntimeError, OSError) as error:
            _fail(row, error)
    return rows


def _row(name: str, task: Task) -> Row:
    kind = LOADERS[name]
    row = Row(name, kind.label, kind.framework, kind.scenario, kind.storage, kind.warm, kind.cites)
    reason = kind.missing()
    if reason is None and not kind.fits(task.cache_share):
        reason = f"cannot be held to {task.cache_share:.0%} of the decoded volumes"
    if reason is not None:
        row.status, row.reason = "skipped", reason
    return row


def _best_workers(row: Row, task: Task, preset: Preset, allowed: Sequence[int]) -> int:
    """Return the number of workers with which one round of this loader was the fastest."""
    if len(allowed) == 1:
        return allowed[0]
    speed: dict[int, float] = {}
    failure = BenchmarkError("no number of workers was tried")
    for count in allowed:
        with closing(Participant(row.name, replace(task, num_workers=count))) as one:
            try:
                one.ask("open")
                answer = one.ask("round", preset.batches, preset.budget_s)
            except BenchmarkError as error:
                failure = error  # it may still run with another number
                continue
            speed[count] = answer["samples_per_s"]
    if not speed:
        _fail(row, failure)
        return allowed[0]
    return max(speed, key=lambda count: speed[count])


def _fail(row: Row, error: object) -> None:
    lines = str(error).strip().splitlines()
    row.status, row.reason = "failed", lines[0] if lines else type(error).__name__


def _ask(participant: Participant, row: Row, what: str, *arguments: Any) -> None:
    if not _ok(row):
        return
    try:
        answer = participant.ask(what, *arguments)
    except BenchmarkError as error:
        _fail(row, error)
        return
    if "samples_per_s" in answer:
        row.rounds.append(answer.pop("samples_per_s"))
        row.samples_per_s = float(np.median(row.rounds))
    if "resident_mib" in answer:
        row.resident_mib = max(row.resident_mib, answer.pop("resident_mib"))
    for figure, value in answer.items():
        setattr(row, figure, value)


def _ranked(rows: list[Row]) -> list[Row]:
    measured = [row for row in rows if _ok(row)]
    if not measured:
        reasons = "; ".join(f"{row.label}: {row.reason}" for row in rows)
        raise BenchmarkError(f"nothing was measured ({reasons})")
    require_equal(measured)
    compare_with_best_rival(measured)
    order = {"ok": 0, "failed": 1, "skipped": 2}
    return sorted(rows, key=lambda row: (order[row.status], -row.samples_per_s))


def require_equal(rows: list[Row]) -> None:
    """Refuse loaders that were given the same boxes and delivered different voxels.

    Raises
    ------
    BenchmarkError
        Naming each with its digest.
    """
    given = [row for row in rows if row.given_boxes]
    if len({row.sha256 for row in given}) > 1:
        named = ", ".join(f"{row.label} {row.sha256[:8]}" for row in given)
        raise BenchmarkError(f"the same boxes gave different voxels: {named}")


def compare_with_best_rival(rows: list[Row]) -> None:
    """Set each row's `ratio`: over the fastest rival of the same round, median over rounds."""
    rivals = [row for row in rows if row.is_rival]
    if not rivals:
        return
    best = np.max([row.rounds for row in rivals], axis=0)
    for row in rows:
        row.ratio = float(np.median(np.array(row.rounds) / best))


def as_table(rows: list[Row]) -> list[dict[str, Any]]:
    """Return the rows as plain dictionaries, ready for JSON or a data frame."""
    return [asdict(row) for row in rows]
