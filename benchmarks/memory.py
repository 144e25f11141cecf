"""Memory gained with each patch, as a slope: what a leak is, whatever was held before."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from benchmarks.data.boxes import Task
from benchmarks.infrastructure.measure import endless, touch
from benchmarks.infrastructure.resources import held_mib
from benchmarks.operations import open_collection, training_loader

PATCHES = 10_000


def settled_mib() -> float:
    """Return what this process and its children hold, without what a heap keeps for later."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return held_mib()


def prepare_growth(task: Task) -> Callable[[], float]:
    """Return a call that drains `PATCHES` warm patches and returns the bytes gained with each."""
    batches = endless(training_loader(task, open_collection(task)))

    def drain(patches: int) -> None:
        for batch in islice(batches, patches // task.batch_size):
            touch(batch)

    drain(max(1_000, 3 * len(task.boxes())))

    def call() -> float:
        before = settled_mib()
        drain(PATCHES)
        return (settled_mib() - before) * 2**20 / PATCHES

    return call
