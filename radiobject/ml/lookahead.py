"""Reading ahead in a thread: the plan is known, so the next batches are read during the step."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from radiobject.ml.base import StoredDataset
from radiobject.ml.batch import batch_of, collate
from radiobject.ml.buffers import PrivateBuffers, carve, layout_bytes
from radiobject.ml.plan import SamplePlan

_Voxels = dict[str, torch.Tensor]


class LookAhead:
    """Batches with their number of samples, read by one thread, up to `depth` ahead.

    A transform runs in the consumer's thread: it is the consumer's processor time either way, and
    its random state must not change under the training loop.

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
        self._plans = plans
        self._buffers = buffers
        self._pending: deque[tuple[SamplePlan, Future[_Voxels]]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="radiobject-look-ahead")
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        for _ in range(depth):
            self._submit()

    def __iter__(self) -> LookAhead:
        return self

    def __next__(self) -> tuple[Any, int]:
        if not self._pending:
            self._pool.shutdown(wait=False)
            raise StopIteration
        plan, reading = self._pending.popleft()
        about = self._dataset.describe(plan)
        batch = batch_of(reading.result(), about)
        self._submit()
        if self._dataset.transform is not None:
            batch = collate(self._dataset.transformed(batch, plan))
        return batch, len(plan)

    def _submit(self) -> None:
        plan = next(self._plans, None)
        if plan is not None:
            self._pending.append(
                (plan, self._pool.submit(_read, self._dataset, plan, self._buffers))
            )


def _read(dataset: StoredDataset, plan: SamplePlan, buffers: PrivateBuffers) -> _Voxels:
    layout = dataset.layout(plan)
    voxels = carve(buffers.take(layout_bytes(layout)), layout)
    dataset.fill(plan, {name: tensor.numpy() for name, tensor in voxels.items()})
    return voxels
