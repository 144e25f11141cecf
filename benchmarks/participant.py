"""A loader in a process of its own, which answers questions about it.

A process of its own keeps one loader's memory and threads out of another's figures, and a cache
name of its own keeps out what other processes of this user have decoded.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks.config import ROOT, use_private_cache
from benchmarks.data.augmentations import augmentation
from benchmarks.data.boxes import Task
from benchmarks.equality import prove_equal
from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure.measure import endless, measure_batches, touch
from benchmarks.infrastructure.resources import bytes_read, cpu_seconds, resident_mib
from benchmarks.rivals import LOADERS
from benchmarks.s3 import environment_endpoint, traffic

_ANSWER_TIMEOUT_S = 300.0
_WARM_UP_EPOCHS = 10
_WARM_UP_S = 3.0


class Participant:
    """A loader's process and the pipe to it."""

    def __init__(self, name: str, task: Task) -> None:
        # spawn: a forked child would inherit this process's TileDB threads, dead.
        context = multiprocessing.get_context("spawn")
        if str(ROOT) not in sys.path:
            # asv imports this package by a finder of its own, which children do not inherit. At the
            # end: what is measured is the library that is installed.
            sys.path.append(str(ROOT))
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_participate, args=(theirs, name, task))
        self._process.start()
        theirs.close()

    def ask(self, what: str, *arguments: Any) -> dict[str, Any]:
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
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    use_private_cache()
    session: Session | None = None
    while True:
        try:
            what, arguments = pipe.recv()
        except (EOFError, ConnectionError):
            return
        try:
            if session is None:
                session = Session(name, task)
            pipe.send((True, getattr(session, what)(*arguments)))
        except Exception as error:  # noqa: BLE001 - a rival's failure is a row, not our end
            pipe.send((False, traceback.format_exception_only(error)[-1].strip()))


class Session:
    """One loader, proved, opened and warmed."""

    def __init__(self, name: str, task: Task) -> None:
        self._loader = LOADERS[name](task)
        self._task = task
        self._samples = 0
        self._times: list[float] = []
        self._cpu = 0.0
        self._read: int | None = 0

    def prove(self) -> dict[str, Any]:
        """Prove that the voxels are those of the files."""
        equality = prove_equal(self._loader)
        return {
            "disk_mib": self._loader.disk_bytes() / len(self._task.cohort.subjects) / 2**20,
            "sha256": equality.sha256,
            "patches_compared": equality.patches,
            "given_boxes": equality.given_boxes,
        }

    def _stream(self) -> Iterator[Any]:
        batches = endless(self._loader.open())
        return self._augmented(batches) if self._task.augment else batches

    def _augmented(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield what training would see, as 32-bit floats."""
        import torch

        augment = augmentation(self._task.augment)
        for number, batch in enumerate(batches):
            images = torch.as_tensor(np.asarray(self._loader.voxels(batch))).float()
            yield {"image": augment(images, number)}

    def open(self) -> dict[str, Any]:
        """Take the first batch and warm up, until a cache holds what it will."""
        begin = time.perf_counter()
        self._batches = self._stream()
        touch(next(self._batches))
        first_batch_ms = (time.perf_counter() - begin) * 1e3
        per_epoch = math.ceil(len(self._task.boxes()) / self._task.batch_size)
        measure_batches(self._batches, _WARM_UP_EPOCHS * per_epoch, 1, budget_s=_WARM_UP_S)
        return {"first_batch_ms": first_batch_ms}

    def epoch(self) -> dict[str, Any]:
        """Time one epoch from its first batch, with what an object store answered."""
        before = traffic() if environment_endpoint() else None
        count = len(self._task.boxes()) // self._task.batch_size
        begin = time.perf_counter()
        if not hasattr(self, "_batches"):
            self._batches = self._stream()
        touch(next(self._batches))
        first_batch_ms = (time.perf_counter() - begin) * 1e3
        for batch in islice(self._batches, count - 1):
            touch(batch)
        seconds = time.perf_counter() - begin
        answer: dict[str, Any] = {
            "first_batch_ms": first_batch_ms,
            "samples_per_s": count * self._task.batch_size / seconds,
        }
        if before is not None:
            after = traffic()
            answer["requests"] = after.requests - before.requests
            answer["bytes_sent"] = after.bytes_sent - before.bytes_sent
        return answer

    def round(self, batches: int, budget_s: float) -> dict[str, Any]:
        """Time whole cycles until `batches` are delivered or `budget_s` is over."""
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

    def _bytes_read(self) -> int | None:
        return bytes_read() if self._loader.read_calls else self._loader.read_bytes()
