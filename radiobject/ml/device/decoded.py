"""Batches ahead of their use whose tiles the device decodes, and when that is the way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from radiobject.exceptions import RadiObjectError
from radiobject.ml.datasets.base import Field, StoredDataset
from radiobject.ml.datasets.plan import SamplePlan
from radiobject.ml.device.decoding import (
    NOWHERE,
    Decompressor,
    Demand,
    Held,
    Kind,
    Staging,
    batches_together,
    first_opened,
)
from radiobject.ml.device.homes import Place
from radiobject.ml.device.places import Places
from radiobject.ml.device.queue import Queue
from radiobject.storage.cache.tile_cache import budget_bytes, shared_arena
from radiobject.storage.io import stats
from radiobject.storage.read.locator import VolumeLocator

_log = logging.getLogger(__name__)

FIRST_MEMORY = 2
"""Number of the first memory with decoded tiles, after those of `radiobject.ml.device.homes`."""

_MODES = ("constant", "edge")
"""Ways of padding that need nothing of a volume beyond the box itself."""

Find = Callable[[VolumeLocator], Place | None]


@dataclass(frozen=True)
class BatchTiles:
    """Where the boxes of a batch lie whose tiles the device has decoded.

    Parameters
    ----------
    memories : list of tensor of uint8
        The first one is number ``FIRST_MEMORY``.
    held : mapping
        By name of a field and number of its channel, the parts of all samples of the batch.
    """

    memories: list[torch.Tensor]
    held: Mapping[tuple[str, int], Held]


class TileDecoding:
    """Decodes on a device what batches need and no memory holds.

    Parameters
    ----------
    dataset : StoredDataset
        What batches are made of.
    device : torch.device
        Where they are made.
    decompress : Decompressor, optional
        Without one, nothing is decoded there.
    staging : callable
        Takes a number of bytes, returns host memory that the device may copy from later.

    Attributes
    ----------
    sent_bytes : int
        Bytes that went to the device.
    """

    def __init__(
        self,
        dataset: StoredDataset,
        device: torch.device,
        decompress: Decompressor | None,
        staging: Staging,
    ) -> None:
        self._dataset = dataset
        self._device = device
        self._decompress = decompress
        self._staging = staging
        self._proved: set[object] = set()
        self.sent_bytes = 0

    def is_wanted(self) -> bool:
        """Return whether the device can decode, and no cache holds what it is to deliver."""
        if self._decompress is None:
            return False
        fields = self._dataset.fields
        demand = Demand(self._decompress)
        if not any(
            demand.kind_of(first_opened(table.locators)) is not None
            for field in fields
            if _can_be_decoded(field)
            for table in field.channels
        ):
            return False
        arena = shared_arena()
        if arena is None:
            return True
        decoded = sum(
            int(table.shapes.prod(axis=1).sum()) * table.locators[0].numpy_dtype.itemsize
            for field in fields
            for table in field.channels
            if len(table)
        )
        return decoded > budget_bytes(arena)

    def together(self, plan: SamplePlan) -> int:
        """Return how many batches like this one are decoded in one call."""
        sides = [(field, self._dataset.field_side(field, plan)) for field in self._dataset.fields]
        return batches_together([pair for pair in sides if _can_be_decoded(pair[0])], len(plan))

    def decode(
        self,
        plans: Sequence[SamplePlan],
        places: Mapping[str, Sequence[Places]],
        find: Find,
        lock: threading.Lock,
        queue: Queue,
    ) -> list[BatchTiles] | None:
        """Decode what some batches need; None where the device does not.

        A volume that cannot be read is left out: it is an error when its batch is asked for.

        Parameters
        ----------
        plans : sequence of SamplePlan
            The batches.
        places : mapping
            Of each field, its channels.
        find, lock
            Where a volume lies already, and what has to be held while that is asked.
        queue : Queue
            Where the work of the device is put.
        """
        decompress = self._decompress  # another thread may give it up meanwhile
        if decompress is None:
            return None
        demand = Demand(decompress)
        asked = []
        for plan in plans:
            try:
                asked.append(self._asked(demand, plan, places, find, lock))
            except RadiObjectError:
                asked.append({})
        kinds = demand.kinds
        if not any(kind.tiles for kind in kinds):
            return None
        try:
            with queue.running():
                memories = self._launched(decompress, kinds)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # of a driver, or of the library: it can be done without
            self._give_up(str(error))
            return None
        if memories is None:
            return None
        with lock:
            self.sent_bytes += sum(kind.sent_bytes for kind in kinds)
        stats.count(
            tiles_decoded=sum(kind.tiles for kind in kinds),
            bytes_decoded=sum(kind.tiles * kind.tile_bytes for kind in kinds),
        )
        return [
            BatchTiles(
                memories,
                {key: demand.held(boxes, FIRST_MEMORY) for key, boxes in of_batch.items()},
            )
            for of_batch in asked
        ]

    def _launched(
        self, decompress: Decompressor, kinds: Sequence[Kind]
    ) -> list[torch.Tensor] | None:
        """Decode all kinds and wait for it, in the thread that reads ahead; None if it fails."""
        made = [kind.launch(decompress, self._staging, self._device) for kind in kinds]
        if not all(bool(right.all()) for _, right in made):
            self._give_up("blocks that are as they were written did not decompress there")
            return None
        for kind, (memory, _) in zip(kinds, made, strict=True):
            if kind.key not in self._proved and not kind.is_right(memory):
                self._give_up(
                    f"tiles of {kind.dtype} decode to other voxels than the processor's there; "
                    "please report it"
                )
                return None
            self._proved.add(kind.key)
        return [memory for memory, _ in made]

    def _asked(
        self,
        demand: Demand,
        plan: SamplePlan,
        places: Mapping[str, Sequence[Places]],
        find: Find,
        lock: threading.Lock,
    ) -> dict[tuple[str, int], np.ndarray]:
        """Ask for the tiles of a batch that no memory holds; return where each box will be."""
        asked = {}
        for field in self._dataset.fields:
            if not _can_be_decoded(field):
                continue
            side = self._dataset.field_side(field, plan)
            starts = np.ascontiguousarray(plan.start[:, : field.ndim])
            for number, (table, channel) in enumerate(
                zip(field.channels, places[field.name], strict=True)
            ):
                with lock:
                    missing = channel.find(plan.volume, find) < 0
                missing &= channel.may_be_gathered(plan.volume)
                rows = np.flatnonzero(missing)
                boxes = np.full((len(plan), 2), NOWHERE)
                if rows.size:
                    volumes = plan.volume[rows]
                    first, last = channel.as_stored(volumes, starts[rows], side)
                    locators = [table.locators[volume] for volume in volumes.tolist()]
                    boxes[rows] = demand.ask(locators, first, last)
                asked[field.name, number] = boxes
        return asked

    def _give_up(self, why: str) -> None:
        self._decompress = None
        _log.warning("tiles are decoded by the processor and not on %s: %s", self._device, why)


def _can_be_decoded(field: Field) -> bool:
    return field.can_be_gathered and (field.pad is None or field.pad.mode in _MODES)
