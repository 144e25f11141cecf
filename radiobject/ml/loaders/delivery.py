"""What goes to a worker and comes back: requests with the numbers of slots, and deliveries."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from radiobject.exceptions import StorageError
from radiobject.ml.datasets.base import StoredDataset
from radiobject.ml.datasets.batch import batch_of, collate
from radiobject.ml.datasets.plan import SamplePlan
from radiobject.ml.loaders.buffers import aligned, layout_bytes, split_views
from radiobject.ml.loaders.ring import SharedRing
from radiobject.storage.cache.tile_cache import inherit, inheritance
from radiobject.storage.io import stats
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.open_volumes import complete
from radiobject.system.common_memory import CommonMemory
from radiobject.system.processes import end_with_parent

Collate = Callable[[list[Any]], Any]

_SMALL_BYTES = 4096
"""Tensors below this travel with the message."""

_ring: SharedRing | None = None
_collate: Collate = collate
_counted: stats.Counters | None = None


@dataclass(frozen=True)
class AttachRing:
    """A worker's first act: map the ring; then run what the user asked for.

    Parameters
    ----------
    ring : SharedRing
        Where batches go.
    collate : callable
        Makes a batch of samples.
    then : callable, optional
        The user's `worker_init_fn`.
    cache : CommonMemory, optional
        The decoded tiles of the training process, where a worker would not find them by itself.
    """

    ring: SharedRing
    collate: Collate
    then: Callable[[int], None] | None
    cache: CommonMemory | None = field(default_factory=inheritance)

    def __call__(self, worker_id: int) -> None:
        """Map the ring in worker `worker_id`."""
        global _ring, _collate, _counted
        end_with_parent()
        inherit(self.cache)
        _ring, _collate, _counted = self.ring, self.collate, stats.totals()
        if self.then is not None:
            self.then(worker_id)


@dataclass(frozen=True)
class Ticket:
    """What a request and its delivery have in common.

    Parameters
    ----------
    run : int
        Number of the pass of this process's loaders that asks.
    batch : int
        Number of the batch in that pass.
    slot : int, optional
        The slot that receives it; None if it is to be sent.
    """

    run: int
    batch: int
    slot: int | None


@dataclass(frozen=True)
class Placed:
    """A tensor that lies in the slot: where, and what it is."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: type
    state: dict[str, Any]


@dataclass(frozen=True)
class Delivery:
    """What a worker sends back.

    `batch` is None where the slot holds the voxels as the dataset lays them out; else it is the
    collated batch, with `Placed` for each tensor that lies in the slot. The ticket says which
    request it answers. `is_cached` tells that all that the batch needs lies in the decoded cache,
    and nothing in the slot.
    """

    ticket: Ticket
    batch: Any
    counted: dict[str, int]
    is_cached: bool = False


@dataclass(frozen=True)
class BatchRequest:
    """Which samples a worker is to read, and the ticket of that request."""

    plan: SamplePlan
    ticket: Ticket

    def execute(self, dataset: StoredDataset) -> Delivery:
        """Read the batch; called in the worker."""
        slot = self.ticket.slot
        memory = _ring.view(slot) if _ring is not None and slot is not None else None
        if dataset.transform is not None or _collate is not collate:
            packed = _packed(_collate(dataset.samples(self.plan)), memory)
            return Delivery(self.ticket, packed, _counts_since_last())
        layout = dataset.layout(self.plan)
        needed = layout_bytes(layout)
        if memory is not None and memory.numel() >= needed:
            self._read(dataset, split_views(memory, layout))
            return Delivery(self.ticket, None, _counts_since_last())
        voxels = split_views(torch.empty(needed, dtype=torch.uint8, device="cpu"), layout)
        self._read(dataset, voxels)
        return Delivery(self.ticket, voxels, _counts_since_last())

    def _read(self, dataset: StoredDataset, voxels: dict[str, torch.Tensor]) -> None:
        dataset.fill(self.plan, {name: tensor.numpy() for name, tensor in voxels.items()})


@dataclass(frozen=True)
class FillRequest(BatchRequest):
    """Which tiles a worker is to decode into the cache, for another process to read there.

    Where the cache has no room for them the worker reads the batch, as ever.
    """

    def execute(self, dataset: StoredDataset) -> Delivery:
        """Fill the cache; called in the worker."""
        if dataset.bring(self.plan):
            return Delivery(self.ticket, None, _counts_since_last(), is_cached=True)
        return super().execute(dataset)


@dataclass(frozen=True)
class DeliveryGroup:
    """What a worker sends back for a group of requests, in their order."""

    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True)
class RequestGroup:
    """Batches asked for in one message: sending one can cost more than reading a small batch.

    After them the worker completes a volume in the cache, where one is given.
    """

    requests: tuple[BatchRequest, ...]
    whole: VolumeLocator | None = None

    def execute(self, dataset: StoredDataset) -> DeliveryGroup:
        """Read the batches; called in the worker."""
        deliveries = tuple(request.execute(dataset) for request in self.requests)
        if self.whole is not None:
            complete(self.whole)
        return DeliveryGroup(deliveries)


def collate_or_send(fetched: Any) -> Any:
    """Collate samples; deliveries are sent as they are."""
    return fetched if isinstance(fetched, DeliveryGroup) else collate(fetched)


def check_answer(delivery: Delivery, request: BatchRequest) -> None:
    """Refuse what answers another request.

    Raises
    ------
    StorageError
    """
    if delivery.ticket != request.ticket:
        raise StorageError(
            f"a worker delivered {delivery.ticket} where {request.ticket} was due; the batch is "
            "not given out, because its voxels and ids would not belong together"
        )


def received(
    delivery: Delivery,
    request: BatchRequest,
    dataset: StoredDataset,
    ring: SharedRing,
    *,
    as_read: bool,
) -> Any:
    """Return the batch of a delivery; called in the training process.

    Parameters
    ----------
    delivery : Delivery
        What came back.
    request : BatchRequest
        The oldest that was not answered yet.
    dataset : StoredDataset
        What was read.
    ring : SharedRing
        Where it lies.
    as_read : bool
        Whether voxels come as they were read: no transform, and no collate function but ours.

    Raises
    ------
    StorageError
        If the delivery answers another request: its voxels would get the ids of other samples.
    """
    check_answer(delivery, request)
    slot = request.ticket.slot
    memory = ring.lease(slot) if slot is not None else torch.empty(0, device="cpu")
    if as_read:
        voxels = delivery.batch
        if voxels is None:
            voxels = split_views(memory, dataset.layout(request.plan))
        return batch_of(voxels, dataset.describe(request.plan))
    if not isinstance(delivery.batch, dict):
        return delivery.batch
    return {
        key: _unpacked(value, memory) if isinstance(value, Placed) else value
        for key, value in delivery.batch.items()
    }


def bytes_of(batch: Any) -> int:
    """Return the bytes that a slot needs for the large tensors of a batch."""
    if not isinstance(batch, dict):
        return 0
    sizes = [value.nbytes for value in batch.values() if isinstance(value, torch.Tensor)]
    return sum(aligned(nbytes) for nbytes in sizes if nbytes >= _SMALL_BYTES)


def _packed(batch: Any, memory: torch.Tensor | None) -> Any:
    """Move the large tensors of a batch into the slot, where it has room for them."""
    if not isinstance(batch, dict) or memory is None:
        return batch
    packed, offset = {}, 0
    for key, value in batch.items():
        nbytes = value.nbytes if isinstance(value, torch.Tensor) else 0
        if nbytes < _SMALL_BYTES or offset + nbytes > memory.numel():
            packed[key] = value
            continue
        plain = value.as_subclass(torch.Tensor)
        room = memory[offset : offset + nbytes].view(plain.dtype).view(plain.shape)
        room.copy_(plain)
        packed[key] = Placed(
            offset, tuple(plain.shape), plain.dtype, type(value), dict(value.__dict__)
        )
        offset += aligned(nbytes)
    return packed


def _unpacked(placed: Placed, memory: torch.Tensor) -> torch.Tensor:
    nbytes = math.prod(placed.shape) * placed.dtype.itemsize
    part = memory[placed.offset : placed.offset + nbytes].view(placed.dtype).view(placed.shape)
    if placed.kind is torch.Tensor:
        return part
    whole: torch.Tensor = part.as_subclass(placed.kind)
    whole.__dict__.update(placed.state)
    return whole


def _counts_since_last() -> dict[str, int]:
    """Return what this worker counted since its last delivery."""
    global _counted
    now, before = stats.totals(), _counted or stats.Counters()
    _counted = now
    grown = {f.name: getattr(now, f.name) - getattr(before, f.name) for f in fields(now)}
    return {name: amount for name, amount in grown.items() if amount}
