"""Reading ahead in a thread: the plan is known, so the next batches are read during the step."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator
from itertools import takewhile
from queue import SimpleQueue
from typing import Any

import torch

from radiobject.ml.base import StoredDataset
from radiobject.ml.batch import batch_of, collate
from radiobject.ml.buffers import PrivateBuffers, carve, layout_bytes
from radiobject.ml.plan import SamplePlan
from radiobject.storage import prefetch as storage_prefetch
from radiobject.storage.reader import ReadRequest, read_batch

REMOTE_DEPTH = 8
"""Batches in flight towards an object store, beside those that are ready."""

_Voxels = dict[str, torch.Tensor]
_Read = tuple[SamplePlan | None, Any]
"""A plan and its batch; without a plan, the error that ended the reading, or None at the end."""


class LookAhead:
    """Batches with their number of samples, read by one thread, up to `depth` ahead.

    The thread does all that needs the interpreter, so that the two do not fight over its lock. A
    transform alone runs in the consumer's thread: it is the consumer's processor time either way,
    and its random state must not change under the training loop.

    Parameters
    ----------
    dataset : StoredDataset
    plans : iterator of SamplePlan
    buffers : PrivateBuffers
    depth : int
        Batches in flight.
    """

    def __init__(
        self,
        dataset: StoredDataset,
        plans: Iterator[SamplePlan],
        buffers: PrivateBuffers,
        depth: int,
    ) -> None:
        self._dataset = dataset
        self._ready: SimpleQueue[_Read] = SimpleQueue()
        self._permits: SimpleQueue[bool] = SimpleQueue()
        self._ended = False
        for _ in range(depth + (REMOTE_DEPTH if dataset.is_remote else 0)):
            self._permits.put(True)
        reader = threading.Thread(
            target=_read_on,
            args=(dataset, plans, buffers, self._permits, self._ready),
            name="radiobject-look-ahead",
            daemon=True,
        )
        # At exit too: a daemon thread must not be copying while the interpreter comes apart.
        weakref.finalize(self, _stop, reader, self._permits)
        reader.start()

    def __iter__(self) -> LookAhead:
        return self

    def __next__(self) -> tuple[Any, int]:
        if self._ended:
            raise StopIteration
        plan, batch = self._ready.get()
        if plan is None:
            self._ended = True
            raise StopIteration if batch is None else batch
        self._permits.put(True)
        if self._dataset.transform is not None:
            batch = collate(self._dataset.transformed(batch, plan))
        return batch, len(plan)


def _read_on(
    dataset: StoredDataset,
    plans: Iterator[SamplePlan],
    buffers: PrivateBuffers,
    permits: SimpleQueue[bool],
    ready: SimpleQueue[_Read],
) -> None:
    """Read one batch per permit; the thread's work."""
    try:
        permitted = takewhile(lambda _: permits.get(), plans)
        batches = _in_parallel if dataset.is_remote else _one_by_one
        for plan, voxels in batches(dataset, permitted, buffers):
            ready.put((plan, batch_of(voxels, dataset.describe(plan))))
        ready.put((None, None))
    except Exception as error:  # noqa: BLE001 - raised again where the batch is asked for
        ready.put((None, error))


def _one_by_one(
    dataset: StoredDataset, plans: Iterator[SamplePlan], buffers: PrivateBuffers
) -> Iterator[tuple[SamplePlan, _Voxels]]:
    for plan in plans:
        voxels, requests = _prepared(dataset, plan, buffers)
        read_batch(requests)
        yield plan, voxels


def _in_parallel(
    dataset: StoredDataset, plans: Iterator[SamplePlan], buffers: PrivateBuffers
) -> Iterator[tuple[SamplePlan, _Voxels]]:
    """Keep as many reads in flight as an object store's latency needs."""
    started: deque[tuple[SamplePlan, _Voxels]] = deque()

    def starting() -> Iterator[list[ReadRequest]]:
        for plan in plans:
            voxels, requests = _prepared(dataset, plan, buffers)
            started.append((plan, voxels))
            yield requests

    with storage_prefetch.LookAhead(starting(), depth=REMOTE_DEPTH) as ahead:
        for _ in ahead:
            yield started.popleft()


def _prepared(
    dataset: StoredDataset, plan: SamplePlan, buffers: PrivateBuffers
) -> tuple[_Voxels, list[ReadRequest]]:
    layout = dataset.layout(plan)
    voxels = carve(buffers.take(layout_bytes(layout)), layout)
    return voxels, dataset.requests(plan, {name: t.numpy() for name, t in voxels.items()})


def _stop(reader: threading.Thread, permits: SimpleQueue[bool]) -> None:
    """End the thread; it finishes the batch that it is reading."""
    while not permits.empty():
        permits.get()
    permits.put(False)
    if reader is not threading.current_thread():
        reader.join()
