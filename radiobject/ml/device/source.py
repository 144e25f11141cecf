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
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from radiobject.exceptions import RadiObjectError
from radiobject.geometry.gather import GatherPlan
from radiobject.ml.datasets.base import Field, StoredDataset
from radiobject.ml.datasets.batch import batch_of
from radiobject.ml.datasets.plan import SamplePlan
from radiobject.ml.device.decoded import FIRST_MEMORY, BatchTiles, TileDecoding, joined, whole_runs
from radiobject.ml.device.driver import HostMemory
from radiobject.ml.device.gatherers import Gatherer, gatherer_of
from radiobject.ml.device.homes import RESIDENT, Homes, Residence, most_registered
from radiobject.ml.device.kinds import Decompressor
from radiobject.ml.device.made import (
    OnDevice,
    Staging,
    bytes_together,
    copy_rows,
    moved,
    room_for,
    rows_of,
    tensors_on,
)
from radiobject.ml.device.nvcomp import decompressor
from radiobject.ml.device.places import Places
from radiobject.ml.device.queue import CudaQueue, NoQueue, Queue, StreamWaits
from radiobject.ml.device.report import DeviceReport
from radiobject.storage.cache.registration import registrations
from radiobject.storage.io import stats
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.reader import read_batch
from radiobject.storage.read.thread_pool import one_thread

_log = logging.getLogger(__name__)

_TOGETHER = 4
"""Batches that one launch gathers, at most: what it costs a processor is that of one batch."""

_NO_ROWS: NDArray[np.int64] = np.empty(0, np.int64)

_MOVED = ("label",)
"""Arrays beside the voxels that a model takes."""


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
        Host memory for the tiles of many batches as they are stored; by default `staging`.
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
        held = None if host is None else registrations(host, most_registered)
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
        self._gathers_whole = False
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
                return self._started([plan], tiles)[0]
            except torch.OutOfMemoryError:
                pass  # what was made so far is freed with the error
            self._make_room()
        return OnDevice(None, None, plan)

    def _started(
        self, plans: Sequence[SamplePlan], tiles: BatchTiles | None = None
    ) -> list[OnDevice]:
        """Start batches of one shape together, and remember them as ahead of their use."""
        batches, mark = self._made(plans, tiles)
        check = None if tiles is None else tiles.verdict
        made = [OnDevice(b, mark, plan, check) for b, plan in zip(batches, plans, strict=True)]
        with self._giving:
            self._ahead.update(made)
        return made

    def decodes(self) -> bool:
        """Return whether batches are best made many at once: their tiles are decoded together."""
        return self._gather.slower is None and self._decoding.is_wanted()

    def together(self, plan: SamplePlan, most: int, *, decode: bool) -> int:
        """Return how many batches like this one are to be made at once.

        One launch gathers `most` of them at most; or, if `decode`, the device is to decode their
        tiles, and so many are wanted ahead of their use.
        """
        if decode:
            return self._decoding.together(plan, most)
        if not self._gathers_whole or self._cramped:
            return 1  # what is waited for would hold back the others
        return max(1, min(most, self._room_for([plan])))

    def read_together(self, plans: Sequence[SamplePlan], *, decode: bool = True) -> list[OnDevice]:
        """Start what many batches need, as `read` does for one.

        One launch gathers an array of them all; or, if `decode`, their tiles are decoded on the
        device in one call.
        """
        tiles = None
        try:
            if decode and not self._cramped:
                tiles = self._decoding.decode(
                    plans, self._places, self._homes.find, self._lock, self._queue
                )
            elif not self._cramped and self._room_for(plans) >= len(plans):
                return self._started(plans)
        except torch.OutOfMemoryError:
            self._make_room()
        except RadiObjectError:
            pass  # of one of them: it is raised when that is asked for, after the others
        made: list[OnDevice] = []
        for part in whole_runs(tiles, plans, self._room_for(plans)):
            if tiles is not None and len(plans[part]) > 1:
                with suppress(RadiObjectError, torch.OutOfMemoryError):
                    made += self._started(plans[part], joined(tiles[part]))
                    continue
            for plan, own in zip(plans[part], tiles[part] if tiles else [None], strict=True):
                try:
                    made.append(self.read(plan, own))
                except RadiObjectError:
                    made.append(OnDevice(None, None, plan))
        return made

    def _room_for(self, plans: Sequence[SamplePlan]) -> int:
        """Return how many batches of one shape a launch may make; 1 where they are of several."""
        if self._cramped or len({(len(p), *self._dataset.side_of(p)) for p in plans}) != 1:
            return 1
        room = bytes_together(self.device) // max(self._bytes_of(plans[0]), 1)
        return max(1, min(_TOGETHER, room))

    def _bytes_of(self, plan: SamplePlan) -> int:
        layout = self._dataset.layout(plan).values()
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in layout)

    def _made(
        self, plans: Sequence[SamplePlan], tiles: BatchTiles | None = None
    ) -> tuple[list[dict[str, Any]], Any]:
        """Return the batches of plans of one shape, and the mark of them all."""
        fields, layout = self._dataset.fields, self._dataset.layout(plans[0])
        shapes = {f.name: (layout[f.name][0], getattr(torch, f.delivered)) for f in fields}
        abouts = [self._dataset.describe(plan) for plan in plans]
        with self._lock, self._queue.running():
            self._look_again_if_stale()
            voxels = [
                {
                    name: torch.empty(shape, dtype=dtype, device=self.device)
                    for name, (shape, dtype) in shapes.items()
                }
                for _ in plans
            ]
            missing = {f.name: self._gather_field(f, plans, voxels, tiles) for f in fields}
            self._gathers_whole = not any(rows.size for rows in missing.values())
            if self._gathers_whole:
                return self._finished(plans, voxels, abouts)
        for number, plan in enumerate(plans):
            mine = {
                f.name: rows_of(number, len(plan) * len(f.channels), missing[f.name])
                for f in fields
            }
            if any(rows.size for rows in mine.values()):
                self._stage(plan, layout, mine, voxels[number])
        with self._lock, self._queue.running():
            return self._finished(plans, voxels, abouts)

    def _finished(
        self,
        plans: Sequence[SamplePlan],
        voxels: list[dict[str, torch.Tensor]],
        abouts: list[dict[str, Any]],
    ) -> tuple[list[dict[str, Any]], Any]:
        """Return batches whose voxels have been started, and their mark; in the queue."""
        if self._dataset.scales is not None:
            for plan, arrays in zip(plans, voxels, strict=True):
                for name in self._dataset.voxel_names.images:
                    self._dataset.scales.apply_on_device(arrays[name], plan.volume)
        batches = [
            moved(batch_of(arrays, about), _MOVED, self.device)
            for arrays, about in zip(voxels, abouts, strict=True)
        ]
        return batches, self._queue.mark()

    def move(self, batch: Any) -> OnDevice:
        """Copy a batch that lies in host memory, in the queue."""
        if not isinstance(batch, dict):
            raise TypeError(f"a batch on a device is a dict, got {type(batch).__name__}")
        names = (*(field.name for field in self._dataset.fields), *_MOVED)
        nbytes = sum(batch[n].nbytes for n in names if isinstance(batch.get(n), torch.Tensor))
        with room_for(nbytes, self.device), self._lock, self._queue.running():
            there = moved(batch, names, self.device)
            self.counted["staged"] += sum(
                len(batch[f.name]) for f in self._dataset.fields if f.name in batch
            )
            self.counted["bus_bytes"] += nbytes
            return OnDevice(there, self._queue.mark())

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
        if batch is None or made.is_wrong():
            assert made.plan is not None
            batch, mark = self._made_at_last(made.plan)
        self._waits.add(self._queue.hand_over(mark, tensors_on(self.device, batch)))
        return batch

    def _made_at_last(self, plan: SamplePlan) -> tuple[dict[str, Any], Any]:
        try:
            (batch,), mark = self._made([plan])
        except torch.OutOfMemoryError:
            self._make_room()  # others, ahead of their use, take it
            with room_for(self._bytes_of(plan), self.device):
                (batch,), mark = self._made([plan])
        return batch, mark

    def begin_pass(self, *, by_workers: bool, anew: bool = True) -> None:
        """Count anew; volumes are completed by workers, or by a thread."""
        if anew:
            self.counted.clear()
            self._waits.clear()
            self._decoding.sent_bytes = 0
        self._homes.completer.begin_pass(by_workers=by_workers)

    def has(self, plan: SamplePlan) -> bool:
        """Return whether the device reads all of a batch by itself."""
        find = self._homes.find
        return self._every(lambda places: bool((places.find(plan.volume, find) >= 0).all()))

    def has_all(self) -> bool:
        """Return whether the device reads every batch by itself: all volumes are in memory."""
        find = partial(self._homes.find, bring=False)
        with suppress(RadiObjectError):  # of a batch, when that is asked for
            return self._every(lambda places: places.has_all(find))
        return False

    def _every(self, asked: Callable[[Places], bool]) -> bool:
        if self._gather.slower is not None:
            return False
        with self._lock:
            self._look_again_if_stale()
            return all(asked(channel) for places in self._places.values() for channel in places)

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

    def _look_again_if_stale(self) -> None:
        if self._homes.are_stale():
            self._forget_places()

    def _forget_places(self) -> None:
        for places in self._places.values():
            for channel in places:
                channel.forget()

    def _slower(self) -> str | None:
        refused = None if self._registrations is None else self._registrations.refused
        why = refused and f"the driver registers no memory, so batches are copied: {refused}"
        return self._gather.slower or why

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
        self,
        field: Field,
        plans: Sequence[SamplePlan],
        voxels: Sequence[dict[str, torch.Tensor]],
        tiles: BatchTiles | None,
    ) -> NDArray[np.int64]:
        """Gather what can be; return the rows, of samples times channels, that are left.

        Rows of a batch follow those of the one before.
        """
        side = self._dataset.field_side(field, plans[0])
        outs = [arrays[field.name].view(-1, *side) for arrays in voxels]
        volumes, starts = plans[0].volume, plans[0].start
        if len(plans) > 1:
            volumes = np.concatenate([plan.volume for plan in plans])
            starts = np.concatenate([plan.start for plan in plans])
        starts = np.ascontiguousarray(starts[:, : field.ndim])
        samples = np.arange(len(volumes)) * len(field.channels)
        left = []
        for number, places in enumerate(self._places[field.name]):
            where = samples + number
            if self._gather.slower is not None:
                left.append(where)
                continue
            found = places.find(volumes, self._homes.find) >= 0
            held = None if tiles is None else tiles.held.get((field.name, number))
            there = ~found & (False if held is None else held.memory >= FIRST_MEMORY)
            parts = []
            if found.all():
                parts = places.plans(volumes, starts, where, side)
            else:
                left.append(where[~(found | there)])
                if found.any():
                    parts = places.plans(volumes[found], starts[found], where[found], side)
            if held is not None and there.any():
                boxes = volumes[there], starts[there], where[there], side
                parts += places.plans_within(held.at(there), *boxes)
            memories = self._homes.memories() + ([] if tiles is None else tiles.memories)
            for part in parts:
                part.check()
                if self._gather(part, memories, outs):
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
                    copy_rows(
                        host[field.name].view(-1, *side), voxels[field.name].view(-1, *side), rows
                    )
                    row_bytes = host[field.name].view(-1, *side)[0].nbytes
                    self.counted["staged"] += rows.size
                    self.counted["bus_bytes"] += rows.size * row_bytes
