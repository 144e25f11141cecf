"""Batches on a device: what it can read by itself is gathered there, the rest is read and copied.

For each array of a batch a plan is made of all samples at once, and carried out by one launch: out
of volumes that lie on the device, or out of the decoded cache, which every process of the machine
shares and the device reads where it lies. Samples of volumes that neither holds are read as they
are for a processor, into page-locked memory, and copied beside the training; they do not hold back
the others. Voxels are the same in each case, bit by bit.
"""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from radiobject.exceptions import RadiObjectError
from radiobject.geometry.gather import GatherPlan
from radiobject.ml.datasets.base import Field, StoredDataset
from radiobject.ml.datasets.batch import batch_of
from radiobject.ml.datasets.narrow import narrowed
from radiobject.ml.datasets.plan import SamplePlan
from radiobject.ml.device.decoded import FIRST_MEMORY, BatchTiles, TileDecoding
from radiobject.ml.device.decoding import Decompressor
from radiobject.ml.device.driver import HostMemory
from radiobject.ml.device.gatherers import Gatherer, gatherer_of
from radiobject.ml.device.homes import RESIDENT, Homes, Residence
from radiobject.ml.device.nvcomp import decompressor
from radiobject.ml.device.places import Places
from radiobject.ml.device.queue import CudaQueue, NoQueue, Queue, StreamWaits
from radiobject.ml.device.report import DeviceReport
from radiobject.storage.cache.registration import Registrations, registrations
from radiobject.storage.cache.tile_cache import budget_bytes, shared_arena
from radiobject.storage.io import stats
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.reader import read_batch
from radiobject.storage.read.thread_pool import one_thread

_log = logging.getLogger(__name__)

_MOST_REGISTERED = 2
"""Bytes registered at most, per byte of the cache's budget: what the cache may take in memory."""

_NO_ROWS: NDArray[np.int64] = np.empty(0, np.int64)

_MOVED = ("label",)
"""Arrays beside the voxels that a model takes."""


class DeviceMemoryError(RadiObjectError, torch.OutOfMemoryError):
    """The device has no room for one batch."""


class Staging(Protocol):
    """Host memory for copies: `radiobject.ml.loaders.buffers.PrivateBuffers`."""

    def batch(self, layout: dict[str, tuple[tuple[int, ...], np.dtype]]) -> dict[str, torch.Tensor]:
        """Return tensors of the given shapes and types."""
        ...

    def take(self, nbytes: int) -> torch.Tensor:
        """Return bytes, not reused while anything of them lives or is being copied."""
        ...


class OnDevice:
    """A batch that a queue is making, and the mark after which it is there.

    Parameters
    ----------
    batch : dict, optional
        None where the device had no room for it beside others; it is made when its turn comes.
    mark : object
        What the consumer waits for, on its stream, before it uses the batch.
    plan : SamplePlan, optional
        What it is made from, where it can be made again.
    """

    def __init__(
        self, batch: dict[str, Any] | None, mark: Any, plan: SamplePlan | None = None
    ) -> None:
        self.batch, self.mark, self.plan = batch, mark, plan


class DeviceSource:
    """Reads the batches of a dataset onto a device.

    Parameters
    ----------
    dataset : StoredDataset
        What is read; without a transform.
    device : torch.device
        Where batches are made.
    staging : Staging
        Host memory that what the device cannot reach goes through.
    cache_bytes : int
        Memory of the device for volumes that are kept there whole.
    host : HostMemory, optional
        The driver; without one the device is a processor.
    queue : Queue, optional
        By default the device's own.
    decompress : Decompressor, optional
        By default nvCOMP's, where it is installed.
    compressed : Staging, optional
        Host memory for tiles as they are stored, which many batches are decoded from together; by
        default `staging`.
    """

    def __init__(
        self,
        dataset: StoredDataset,
        device: torch.device,
        staging: Staging,
        *,
        cache_bytes: int = 0,
        host: HostMemory | None = None,
        queue: Queue | None = None,
        decompress: Decompressor | None = None,
        compressed: Staging | None = None,
    ) -> None:
        self._dataset = dataset
        self.device = device
        self._staging = staging
        self._queue = queue or (CudaQueue(device) if device.type == "cuda" else NoQueue())
        self._gather: Gatherer = gatherer_of(device)
        held = None if host is None else registrations(host, _most_registered)
        self._registrations = held
        residence = Residence(device, cache_bytes)
        self._homes = Homes(residence, held, staging.take, self._queue.running)
        self._places = {
            field.name: [
                Places(
                    table,
                    field.delivered,
                    field.pad,
                    dataset.views,
                    gathers=field.can_be_gathered,
                )
                for table in field.channels
            ]
            for field in dataset.fields
        }
        self._lock, self._giving = threading.Lock(), threading.Lock()
        self._cramped = False
        self._ahead: weakref.WeakSet[OnDevice] = weakref.WeakSet()
        self.counted: Counter[str] = Counter()
        self._waits = StreamWaits()
        self._decoding = TileDecoding(
            dataset, device, decompress or decompressor(device), (compressed or staging).take
        )

    def read(self, plan: SamplePlan, tiles: BatchTiles | None = None) -> OnDevice:
        """Start everything that a batch needs, and read what the device cannot.

        May be called by several threads. A batch that the device has no room for, beside others
        that are ahead of their use, is made when it is handed over.

        Parameters
        ----------
        plan : SamplePlan
            The batch.
        tiles : BatchTiles, optional
            What the device has decoded for it.
        """
        if not self._cramped:
            try:
                made = OnDevice(*self._made(plan, tiles), plan)
            except torch.OutOfMemoryError:
                pass  # what was made so far is freed with the error
            else:
                with self._giving:
                    self._ahead.add(made)
                return made
            self._make_room()
        return OnDevice(None, None, plan)

    def decodes(self) -> bool:
        """Return whether batches are best made many at once: their tiles are decoded together."""
        return self._gather.slower is None and self._decoding.is_wanted()

    def together(self, plan: SamplePlan) -> int:
        """Return how many batches like this one are to be made at once."""
        return self._decoding.together(plan)

    def read_together(self, plans: Sequence[SamplePlan]) -> list[OnDevice]:
        """Start what many batches need, as `read` does for one; their tiles are decoded there."""
        if self._cramped:
            return [self.read(plan) for plan in plans]
        try:
            tiles = self._decoding.decode(
                plans, self._places, self._homes.find, self._lock, self._queue
            )
        except torch.OutOfMemoryError:
            self._make_room()
            return [self.read(plan) for plan in plans]
        made = []
        for number, plan in enumerate(plans):
            try:
                made.append(self.read(plan, None if tiles is None else tiles[number]))
            except RadiObjectError:  # it is raised when this batch is asked for, after the others
                made.append(OnDevice(None, None, plan))
        return made

    def _made(
        self, plan: SamplePlan, tiles: BatchTiles | None = None
    ) -> tuple[dict[str, Any], Any]:
        """Return the batch of a plan, and its mark."""
        layout = self._dataset.layout(plan)
        with self._lock, self._queue.running():
            self._look_again_if_stale()
            voxels = {
                field.name: torch.empty(
                    layout[field.name][0], dtype=getattr(torch, field.delivered), device=self.device
                )
                for field in self._dataset.fields
            }
            missing = {
                field.name: self._gather_field(field, plan, voxels[field.name], tiles)
                for field in self._dataset.fields
            }
        if any(rows.size for rows in missing.values()):
            self._stage(plan, layout, missing, voxels)
        with self._lock, self._queue.running():
            if self._dataset.scales is not None:
                for name in self._dataset.voxel_names.images:
                    self._dataset.scales.apply_on_device(voxels[name], plan.volume)
            batch = self._moved(batch_of(voxels, self._dataset.describe(plan)), _MOVED)
            return batch, self._queue.mark()

    def move(self, batch: Any) -> OnDevice:
        """Copy a batch that lies in host memory, in the queue."""
        if not isinstance(batch, dict):
            raise TypeError(f"a batch on a device is a dict, got {type(batch).__name__}")
        names = (*(field.name for field in self._dataset.fields), *_MOVED)
        nbytes = sum(batch[n].nbytes for n in names if isinstance(batch.get(n), torch.Tensor))
        with self._room_for(nbytes), self._lock, self._queue.running():
            moved = self._moved(batch, names)
            self.counted["staged"] += sum(
                len(batch[f.name]) for f in self._dataset.fields if f.name in batch
            )
            self.counted["bus_bytes"] += nbytes
            return OnDevice(moved, self._queue.mark())

    def hand_over(self, made: OnDevice) -> dict[str, Any]:
        """Return a batch, on the stream that is current for the caller.

        Raises
        ------
        DeviceMemoryError
            If the device has no room for it.
        """
        with self._giving:  # not the lock of who makes the others
            batch, mark, made.batch = made.batch, made.mark, None
            self._ahead.discard(made)
        if batch is None:
            assert made.plan is not None
            batch, mark = self._made_at_last(made.plan)
        tensors = [
            value
            for value in _values(batch)
            if isinstance(value, torch.Tensor) and value.device == self.device
        ]
        self._waits.add(self._queue.hand_over(mark, tensors))
        return batch

    def _made_at_last(self, plan: SamplePlan) -> tuple[dict[str, Any], Any]:
        try:
            return self._made(plan)
        except torch.OutOfMemoryError:
            pass
        self._make_room()  # others, ahead of their use, take it
        layout = self._dataset.layout(plan)
        with self._room_for(sum(math.prod(shape) * t.itemsize for shape, t in layout.values())):
            return self._made(plan)

    def begin_pass(self, *, by_workers: bool, anew: bool = True) -> None:
        """Count anew; volumes are completed by workers, or by a thread."""
        if anew:
            self.counted.clear()
            self._waits.clear()
            self._decoding.sent_bytes = 0
        self._homes.completer.begin_pass(by_workers=by_workers)

    def has(self, plan: SamplePlan) -> bool:
        """Return whether the device reads all of a batch by itself."""
        if self._gather.slower is not None:
            return False
        with self._lock:
            self._look_again_if_stale()
            return all(
                (channel.find(plan.volume, self._homes.find) >= 0).all()
                for places in self._places.values()
                for channel in places
            )

    def wanted_whole(self) -> VolumeLocator | None:
        """Return a volume that the device could read if it were complete in the cache."""
        return self._homes.completer.take()

    def settle(self) -> bool:
        """Wait until the cache has completed what was asked of it; for tests and measurements."""
        return self._homes.completer.wait()

    def report(self) -> DeviceReport:
        """Return where voxels came from since counting began."""
        return DeviceReport(
            str(self.device),
            self.counted["resident"],
            self.counted["registered"],
            self.counted["staged"],
            self.counted["bus_bytes"] + self._decoding.sent_bytes,
            self.resident_bytes,
            self.registered_bytes,
            self._slower(),
            self.counted["filled"],
            self._waits.seconds,
            self.counted["decoded"],
        )

    def _make_room(self) -> None:
        """Give up the volumes on the device, and the batches ahead of their use."""
        with self._lock:
            if not self._cramped:
                kept = self.resident_bytes
                _log.warning(
                    "%s has no room for batches ahead of their use%s: they are made when they are "
                    "asked for; lower look_ahead or batch_size",
                    self.device,
                    f" beside {kept >> 20} MiB of volumes, which are given up" if kept else "",
                )
            self._cramped = True
            with self._giving:
                while self._ahead:
                    self._ahead.pop().batch = None
            if self._homes.residence.memory is not None:
                self._homes.residence.give_up()
                self._homes.look_again()
                self._forget_places()

    @contextmanager
    def _room_for(self, nbytes: int) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            why = str(error).splitlines()[0] if str(error) else "out of memory"
            raise DeviceMemoryError(
                f"{why} -- a batch of {nbytes / (1 << 20):.0f} MiB has no room on {self.device}: "
                "choose a smaller batch_size or patch_size, or leave device out"
            ) from None

    def _look_again_if_stale(self) -> None:
        if self._homes.are_stale():
            self._forget_places()

    def _forget_places(self) -> None:
        for places in self._places.values():
            for channel in places:
                channel.forget()

    def _slower(self) -> str | None:
        if self._gather.slower is not None:
            return self._gather.slower
        if self._registrations is not None and self._registrations.refused:
            return (
                f"the driver registers no memory, so batches are copied: "
                f"{self._registrations.refused}"
            )
        return None

    @property
    def resident_bytes(self) -> int:
        """Memory of the device that volumes take."""
        return self._homes.residence.used_bytes

    @property
    def registered_bytes(self) -> int:
        """Memory of the decoded cache that this process has registered."""
        return 0 if self._registrations is None else self._registrations.nbytes

    def close(self) -> None:
        """Give back what is registered."""
        self._homes.close()

    def _gather_field(
        self, field: Field, plan: SamplePlan, out: torch.Tensor, tiles: BatchTiles | None
    ) -> NDArray[np.int64]:
        """Gather what can be; return the rows, of samples times channels, that are left."""
        side = self._dataset.field_side(field, plan)
        rows = out.view(-1, *side)
        starts = np.ascontiguousarray(plan.start[:, : field.ndim])
        samples = np.arange(len(plan)) * len(field.channels)
        left = []
        for number, places in enumerate(self._places[field.name]):
            where = samples + number
            if self._gather.slower is not None:
                left.append(where)
                continue
            found = places.find(plan.volume, self._homes.find) >= 0
            held = None if tiles is None else tiles.held.get((field.name, number))
            there = ~found & (False if held is None else held.memory >= FIRST_MEMORY)
            left.append(where[~(found | there)])
            parts = []
            if found.any():
                parts += places.plans(plan.volume[found], starts[found], where[found], side)
            if held is not None and there.any():
                boxes = plan.volume[there], starts[there], where[there], side
                parts += places.plans_within(held.at(there), *boxes)
            memories = self._homes.memories() + ([] if tiles is None else tiles.memories)
            for part in parts:
                part.check()
                if self._gather(part, memories, rows):
                    self._count(part)
                else:
                    left.append(part.row)
        return np.concatenate(left) if left else _NO_ROWS

    def _count(self, part: GatherPlan) -> None:
        voxels = math.prod(part.side) * part.stored.itemsize
        resident = int(np.count_nonzero(part.memory == RESIDENT))
        decoded = int(np.count_nonzero(part.memory >= FIRST_MEMORY))
        cached = len(part) - resident - decoded
        self.counted["resident"] += resident
        self.counted["decoded"] += decoded
        self.counted["registered"] += cached
        self.counted["bus_bytes"] += cached * voxels
        whole = len(part) - decoded
        stats.count(patches=len(part), bytes_delivered=len(part) * voxels, tiles_cached=whole)

    def _stage(
        self,
        plan: SamplePlan,
        layout: dict[str, tuple[tuple[int, ...], np.dtype]],
        missing: dict[str, NDArray[np.int64]],
        voxels: dict[str, torch.Tensor],
    ) -> None:
        """Read rows as for a processor, and copy them."""
        host = self._staging.batch(layout)
        requests = self._dataset.requests(plan, {name: t.numpy() for name, t in host.items()})
        wanted, first = [], 0
        for field in self._dataset.fields:
            count = len(plan) * len(field.channels)
            wanted += [requests[first + row] for row in missing[field.name].tolist()]
            first += count
        with one_thread():
            read_batch(wanted)
        with self._lock, self._queue.running():
            for field in self._dataset.fields:
                rows = missing[field.name]
                if rows.size:
                    side = self._dataset.field_side(field, plan)
                    _copy_rows(
                        host[field.name].view(-1, *side), voxels[field.name].view(-1, *side), rows
                    )
                    row_bytes = host[field.name].view(-1, *side)[0].nbytes
                    self.counted["staged"] += rows.size
                    self.counted["bus_bytes"] += rows.size * row_bytes

    def _moved(self, batch: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
        moved = dict(batch)
        for name in names:
            value = batch.get(name)
            if isinstance(value, torch.Tensor):
                moved[name] = value.to(self.device, non_blocking=True)
            elif isinstance(value, dict):
                moved[name] = self._moved(value, value)
        return moved


def _values(batch: dict[str, Any]) -> Iterator[Any]:
    """Yield what a batch holds, and what is held by name in it."""
    for value in batch.values():
        if isinstance(value, dict):
            yield from _values(value)
        else:
            yield value


def _copy_rows(host: torch.Tensor, out: torch.Tensor, rows: NDArray[np.int64]) -> None:
    """Copy rows, those that follow each other at once."""
    rows = np.sort(rows)
    for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
        first, last = int(run[0]), int(run[-1]) + 1
        part = host[first:last]
        if out.dtype != host.dtype:
            part = narrowed(part.to(out.device, non_blocking=True))
        out[first:last].copy_(part, non_blocking=True)


def _most_registered() -> int:
    arena = shared_arena()
    return 0 if arena is None else _MOST_REGISTERED * budget_bytes(arena)
