"""Batches ahead of their use whose tiles the device decodes, and when that is the way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from radiobject.exceptions import RadiObjectError
from radiobject.ml.datasets.base import Field, StoredDataset
from radiobject.ml.datasets.plan import SamplePlan
from radiobject.ml.device.decoding import (
    NOWHERE,
    Demand,
    Held,
    batches_together,
    first_opened,
)
from radiobject.ml.device.homes import Place
from radiobject.ml.device.kinds import Decompressor, Kind, Staging
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


class Verdict:
    """Whether a device decompressed what it was given, which it says some time after it began.

    Parameters
    ----------
    queue : Queue
        Where the work was put.
    rights : sequence of tensor of bool
        Of each launch, which blocks were right.
    give_up : callable
        Takes why the device is to decode nothing any more, where they were not.
    """

    def __init__(
        self, queue: Queue, rights: Sequence[torch.Tensor], give_up: Callable[[str], None]
    ) -> None:
        flags = torch.stack([right.all() for right in rights])
        self._queue, self._give_up = queue, give_up
        # The answer goes by itself to where the processor finds it: nobody waits here.
        self._answer = torch.empty(
            flags.shape, dtype=torch.bool, device="cpu", pin_memory=flags.is_cuda
        ).copy_(flags, non_blocking=True)
        self._mark = queue.mark()

    def is_right(self) -> bool:
        """Return whether all was right, as soon as it is known."""
        self._queue.wait(self._mark)
        right = bool(self._answer.all())
        if not right:
            self._give_up("blocks that are as they were written did not decompress there")
        return right


@dataclass(frozen=True)
class BatchTiles:
    """Where the boxes of a batch lie whose tiles the device has decoded.

    Parameters
    ----------
    memories : list of tensor of uint8
        The first one is number ``FIRST_MEMORY``.
    held : mapping
        By name of a field and number of its channel, the parts of all samples of the batch.
    verdict : Verdict
        To be looked at before the batch is handed over.
    whole : bool
        Whether all boxes of the batch are among them.
    """

    memories: list[torch.Tensor]
    held: Mapping[tuple[str, int], Held]
    verdict: Verdict
    whole: bool


def joined(tiles: Sequence[BatchTiles]) -> BatchTiles:
    """Return the tiles of several batches of one launch, all of them whole, as those of one."""
    first = tiles[0]
    held = {key: Held.joined([batch.held[key] for batch in tiles]) for key in first.held}
    return BatchTiles(first.memories, held, first.verdict, True)


def whole_runs(
    tiles: Sequence[BatchTiles] | None, plans: Sequence[SamplePlan], most: int
) -> Iterator[slice]:
    """Yield which batches may be gathered by one launch: those that wait for nothing else."""
    first = 0
    while first < len(plans):
        last = first + 1
        if tiles is not None and tiles[first].whole:
            while last < min(first + most, len(plans)) and tiles[last].whole:
                last += 1
        yield slice(first, last)
        first = last


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
        self._heads: dict[object, int] = {}
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

    def together(self, plan: SamplePlan, ahead: int) -> int:
        """Return how many batches like this one are decoded in one call.

        `ahead` are wanted ahead of their use; see `batches_together`.
        """
        sides = [(field, self._dataset.field_side(field, plan)) for field in self._dataset.fields]
        decoded = [pair for pair in sides if _can_be_decoded(pair[0])]
        return batches_together(decoded, len(plan), ahead)

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
        try:
            for kind in kinds:
                self._heads[kind.key] = kind.read(self._staging, self._heads.get(kind.key, 0))
            if not any(kind.tiles for kind in kinds):
                return None
            with queue.running():
                launched = self._launched(decompress, kinds, queue)
        except torch.OutOfMemoryError:
            raise
        except RadiObjectError:
            raise
        except RuntimeError as error:  # of a driver, or of the library: it can be done without
            self._give_up(str(error))
            return None
        if launched is None:
            return None
        memories, verdict = launched
        with lock:
            self.sent_bytes += sum(kind.sent_bytes for kind in kinds)
        stats.count(
            tiles_decoded=sum(kind.tiles for kind in kinds),
            bytes_decoded=sum(kind.tiles * kind.tile_bytes for kind in kinds),
        )
        channels = sum(len(field.channels) for field in self._dataset.fields)
        made = []
        for of_batch in asked:
            held = {key: demand.held(boxes, FIRST_MEMORY) for key, boxes in of_batch.items()}
            here = [bool((part.memory >= FIRST_MEMORY).all()) for part in held.values()]
            whole = len(here) == channels and all(here)
            made.append(BatchTiles(memories, held, verdict, whole))
        return made

    def _launched(
        self, decompress: Decompressor, kinds: Sequence[Kind], queue: Queue
    ) -> tuple[list[torch.Tensor], Verdict] | None:
        """Start decoding all kinds; None if it fails.

        The tiles that are the first of a kind are waited for, and compared with the processor's;
        of others the device's word is taken, when it comes.
        """
        made = [kind.launch(decompress, self._device) for kind in kinds]
        memories = [memory for memory, _ in made]
        verdict = Verdict(queue, [right for _, right in made], self._give_up)
        new = [
            (kind, memory)
            for kind, memory in zip(kinds, memories, strict=True)
            if kind.can_be_compared and kind.key not in self._proved
        ]
        if new and not verdict.is_right():
            return None
        for kind, memory in new:
            if not kind.is_right(memory):
                self._give_up(
                    f"tiles of {kind.dtype} decode to other voxels than the processor's there; "
                    "please report it"
                )
                return None
            self._proved.add(kind.key)
        return memories, verdict

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
        """Decode nothing there any more, and say why, once."""
        if self._decompress is not None:
            self._decompress = None
            _log.warning("tiles are decoded by the processor and not on %s: %s", self._device, why)


def _can_be_decoded(field: Field) -> bool:
    return field.can_be_gathered and (field.pad is None or field.pad.mode in _MODES)
