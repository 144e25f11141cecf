"""The ranking: every loader in a process of its own, measured in turn, round after round.

A process of its own keeps one loader's memory and threads out of another's figures; turns make
ratios fair on a machine whose speed drifts; the clock starts before ``iter(loader)``.
"""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks.boxes import Task
from benchmarks.config import Preset
from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure.progress import track

_ANSWER_TIMEOUT_S = 300.0
_WARM_UP_EPOCHS = 10
_WARM_UP_S = 3.0


@dataclass
class Row:
    """One loader's figures, or why it has none.

    Attributes
    ----------
    status
        "ok", "skipped" (it cannot run here) or "failed" (it should have run); `reason` tells.
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
    status: str = "ok"
    reason: str = ""
    samples_per_s: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    min_ms: float = 0.0
    first_batch_ms: float = 0.0
    cpu_ms_per_sample: float = 0.0
    resident_mib: float = 0.0
    disk_mib: float = 0.0
    bytes_per_sample: float | None = None
    ratio: float | None = None
    sha256: str = ""
    patches_compared: int = 0
    given_boxes: bool = False
    rounds: list[float] = field(default_factory=list)

    @property
    def is_rival(self) -> bool:
        """Return whether this is another project's loader (and not the physical limit)."""
        return self.framework != "RadiObject" and self.storage != "memory"


def rank(task: Task, names: Sequence[str], preset: Preset) -> list[Row]:
    """Measure the loaders called `names`; return a row for each, fastest first.

    Raises
    ------
    BenchmarkError
        If nothing could be measured, or loaders that were given the same boxes delivered
        different voxels.
    """
    from benchmarks.loaders import LOADERS

    task.check()
    rows = [_row(name, LOADERS[name]) for name in names]
    for row in track([row for row in rows if row.status == "ok"], "preparing", total=None):
        try:
            LOADERS[row.name](task).prepare()
        except (BenchmarkError, ImportError, ValueError, RuntimeError, OSError) as error:
            _fail(row, error)
    participants = {row.name: _Participant(row.name, task) for row in rows if row.status == "ok"}
    by_name = {row.name: row for row in rows}
    try:
        for name, participant in track(
            list(participants.items()), "proving equal voxels", total=len(participants)
        ):
            _ask(participant, by_name[name], "open", ())
        for _ in track(range(preset.rounds), "measuring", total=preset.rounds):
            for name, participant in participants.items():
                _ask(participant, by_name[name], "round", (preset.batches, preset.budget_s))
    finally:
        for participant in participants.values():
            participant.close()
    measured = [row for row in rows if row.status == "ok"]
    if not measured:
        reasons = "; ".join(f"{row.label}: {row.reason}" for row in rows)
        raise BenchmarkError(f"nothing was measured ({reasons})")
    _require_equal(measured)
    _compare(measured)
    order = {"ok": 0, "failed": 1, "skipped": 2}
    return sorted(rows, key=lambda row: (order[row.status], -row.samples_per_s))


def _row(name: str, kind: Any) -> Row:
    row = Row(name, kind.label, kind.framework, kind.scenario, kind.storage, kind.warm)
    reason = kind.missing()
    if reason is not None:
        row.status, row.reason = "skipped", reason
    return row


def _fail(row: Row, error: object) -> None:
    lines = str(error).strip().splitlines()
    row.status, row.reason = "failed", lines[0] if lines else type(error).__name__


def _ask(participant: _Participant, row: Row, what: str, arguments: tuple[Any, ...]) -> None:
    if row.status != "ok":
        return
    try:
        answer = participant.ask(what, arguments)
    except BenchmarkError as error:
        _fail(row, error)
        return
    if what == "round":
        row.rounds.append(answer.pop("samples_per_s"))
        row.samples_per_s = float(np.median(row.rounds))
        row.resident_mib = max(row.resident_mib, answer.pop("resident_mib"))
    for figure, value in answer.items():
        setattr(row, figure, value)


def _require_equal(rows: list[Row]) -> None:
    digests = {row.sha256 for row in rows if row.given_boxes}
    if len(digests) > 1:
        told = ", ".join(f"{row.label} {row.sha256[:8]}" for row in rows if row.given_boxes)
        raise BenchmarkError(f"the same boxes gave different voxels: {told}")


def _compare(rows: list[Row]) -> None:
    rivals = [row for row in rows if row.is_rival]
    if not rivals:
        return
    best = np.max([row.rounds for row in rivals], axis=0)
    for row in rows:
        row.ratio = float(np.median(np.array(row.rounds) / best))


class _Participant:
    """A loader's process and the pipe to it."""

    def __init__(self, name: str, task: Task) -> None:
        # spawn: a forked child would inherit this process's TileDB threads, dead.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_participate, args=(theirs, name, task))
        self._process.start()
        theirs.close()

    def ask(self, what: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
        """Return the answer to one question.

        Raises
        ------
        BenchmarkError
            With the last line of the loader's error, or its exit code if it died.
        """
        try:
            self._pipe.send((what, arguments))
            if not self._pipe.poll(_ANSWER_TIMEOUT_S):
                raise BenchmarkError(f"no answer within {_ANSWER_TIMEOUT_S:.0f} s")
            ok, answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise BenchmarkError(f"its process ended (code {self._process.exitcode})") from None
        if not ok:
            raise BenchmarkError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def _participate(pipe: Connection, name: str, task: Task) -> None:
    """Answer questions until the pipe closes. Runs in the loader's own process."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    from benchmarks.loaders import LOADERS

    session: _Session | None = None
    while True:
        try:
            what, arguments = pipe.recv()
        except (EOFError, ConnectionError):
            return
        try:
            if session is None:
                session = _Session(LOADERS[name](task))
            pipe.send((True, getattr(session, what)(*arguments)))
        except Exception as error:  # noqa: BLE001 - a rival's failure is a row, not our end
            told = traceback.format_exception_only(error)[-1].strip()
            pipe.send((False, told))


class _Session:
    """One loader, proved, opened and warmed."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._samples = 0
        self._times: list[float] = []
        self._cpu = 0.0
        self._read: int | None = 0

    def open(self) -> dict[str, Any]:
        """Prove equality, take the first batch and warm up, until a cache holds what it will."""
        import time

        from benchmarks.equality import prove_equal
        from benchmarks.infrastructure.measure import endless, measure_batches, touch

        equality = prove_equal(self._loader)
        begin = time.perf_counter()
        self._batches = endless(self._loader.open())
        touch(next(self._batches))
        first_batch_ms = (time.perf_counter() - begin) * 1e3
        per_epoch = len(self._loader.task.boxes()) // self._loader.task.batch_size
        measure_batches(self._batches, _WARM_UP_EPOCHS * per_epoch, 1, budget_s=_WARM_UP_S)
        return {
            "disk_mib": self._loader.disk_bytes() / len(self._loader.task.cohort.subjects) / 2**20,
            "sha256": equality.sha256,
            "patches_compared": equality.patches,
            "given_boxes": equality.given_boxes,
            "first_batch_ms": first_batch_ms,
        }

    def _bytes_read(self) -> int | None:
        from benchmarks.infrastructure.resources import bytes_read

        return bytes_read() if self._loader.read_calls else self._loader.read_bytes()

    def round(self, batches: int, budget_s: float) -> dict[str, Any]:
        """Time whole cycles until `batches` are delivered or `budget_s` is over."""
        import time

        from benchmarks.infrastructure.measure import measure_batches
        from benchmarks.infrastructure.resources import cpu_seconds, resident_mib

        times: list[float] = []
        samples = 0
        read_before = self._bytes_read()
        cpu_before, begin = cpu_seconds(), time.perf_counter()
        while len(times) < batches and time.perf_counter() - begin < budget_s:
            more, delivered = measure_batches(self._batches, self._loader.cycle, 1)
            times += more
            samples += delivered
        wall, cpu = time.perf_counter() - begin, cpu_seconds() - cpu_before
        self._samples += samples
        self._times += times
        self._cpu += cpu
        read = self._bytes_read()
        if read is None or read_before is None or self._read is None:
            self._read = None
        else:
            self._read += read - read_before
        return {
            "samples_per_s": samples / wall,
            "p50_ms": float(np.quantile(self._times, 0.5)),
            "p95_ms": float(np.quantile(self._times, 0.95)),
            "min_ms": min(self._times),
            "cpu_ms_per_sample": self._cpu * 1e3 / self._samples,
            "resident_mib": resident_mib(),
            "bytes_per_sample": None if self._read is None else self._read / self._samples,
        }


def as_table(rows: list[Row]) -> list[dict[str, Any]]:
    """Return the rows as plain dictionaries, ready for JSON or a data frame."""
    return [asdict(row) for row in rows]
