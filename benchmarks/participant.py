"""One loader as its own process measures it: proved, opened, warmed, timed."""

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.data.augmentations import augmentation
from benchmarks.data.boxes import Task
from benchmarks.equality import prove_equal
from benchmarks.infrastructure.measure import endless, first_batch_ms, measure_batches
from benchmarks.infrastructure.resources import cpu_seconds, resident_mib
from benchmarks.rivals import LOADERS
from benchmarks.s3 import environment_endpoint, traffic

_WARM_UP_EPOCHS = 10
_WARM_UP_S = 3.0


class Session:
    """Each method answers with figures of a `benchmarks.ranking.Row`."""

    def __init__(self, name: str, task: Task) -> None:
        self._loader = LOADERS[name](task)
        self._task = task
        self._batches = self._stream()
        self._times: list[float] = []
        self._samples = 0
        self._cpu = 0.0

    def _stream(self) -> Iterator[Any]:
        """Yield what training would see; nothing is opened until the first is asked for."""
        batches = endless(self._loader.open())
        if not self._task.augment:
            yield from batches
        import torch

        augment = augmentation(self._task.augment)
        for number, batch in enumerate(batches):
            images = torch.as_tensor(np.asarray(self._loader.voxels(batch))).float()
            yield {"image": augment(images, number)}

    def prove(self) -> dict[str, Any]:
        """Prove that the voxels are those of the files."""
        equality = prove_equal(self._loader)
        return {
            "disk_mib": self._loader.disk_bytes() / len(self._task.cohort.subjects) / 2**20,
            "sha256": equality.sha256,
            "patches_compared": equality.patches,
            "given_boxes": equality.given_boxes,
        }

    def open(self) -> dict[str, Any]:
        """Take the first batch and warm up, until a cache holds what it will."""
        first = first_batch_ms(self._batches)
        per_epoch = math.ceil(self._task.patches_per_epoch / self._task.batch_size)
        measure_batches(self._batches, _WARM_UP_EPOCHS * per_epoch, 1, budget_s=_WARM_UP_S)
        return {"first_batch_ms": first}

    def epoch(self) -> dict[str, Any]:
        """Time one epoch from its first batch, with what an object store answered."""
        before = traffic() if environment_endpoint() else None
        count = self._task.patches_per_epoch // self._task.batch_size
        cpu, begin = cpu_seconds(), time.perf_counter()
        first = first_batch_ms(self._batches)
        measure_batches(self._batches, count - 1, 1)
        seconds, cpu = time.perf_counter() - begin, cpu_seconds() - cpu
        answered = {} if before is None else vars(traffic().since(before))
        samples = count * self._task.batch_size
        return {
            "first_batch_ms": first,
            "samples_per_s": samples / seconds,
            "cpu_ms_per_sample": cpu * 1e3 / samples,
            "resident_mib": resident_mib(),
            **answered,
        }

    def round(self, seconds: float) -> dict[str, Any]:
        """Time whole cycles until `seconds` are over."""
        times: list[float] = []
        samples = 0
        cpu, begin = cpu_seconds(), time.perf_counter()
        while not times or time.perf_counter() - begin < seconds:
            more, delivered = measure_batches(self._batches, self._loader.cycle, 1)
            times += more
            samples += delivered
        wall = time.perf_counter() - begin
        self._times += times
        self._samples += samples
        self._cpu += cpu_seconds() - cpu
        return {
            "samples_per_s": samples / wall,
            "p50_ms": float(np.quantile(self._times, 0.5)),
            "p95_ms": float(np.quantile(self._times, 0.95)),
            "min_ms": min(self._times),
            "cpu_ms_per_sample": self._cpu * 1e3 / self._samples,
            "resident_mib": resident_mib(),
        }
