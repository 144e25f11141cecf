"""Tiles that the device decodes itself, for volumes that no cache holds.

They cross the bus as they are stored, checked against their checksums by the processor, and are
decompressed there. That takes milliseconds for a few blocks and hardly more for a thousand, so the
tiles of many batches are decoded together. Each box gets a piece of memory for the tiles that cover
it, laid out like a volume, out of which it is gathered like any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import RadiObjectError
from radiobject.ml.datasets.fields import Field
from radiobject.ml.device.kinds import Decompressor, Kind
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.open_volumes import volume_tiles
from radiobject.storage.read.volume_tiles import VolumeTiles
from radiobject.storage.tiles.decode import Blocks

TILES_ENOUGH = 1000
"""Tiles of a call from which on it takes longer for more."""
_MOST_TILES = 4000
"""Tiles of a call from which on what it takes beside them is little of all."""
STAGED_BYTES = 128 << 20
"""Host memory for the tiles of the batches that are decoded together, about, as they are stored."""
_MOST_BYTES = 256 << 20
"""Memory of the device for the tiles of the batches that are decoded together, about."""
_MOST_BATCHES = 64

NOWHERE = -1


@dataclass(frozen=True)
class Held:
    """Where parts of volumes lie in the memory of a device, which boxes are gathered from.

    Parameters
    ----------
    memory : ndarray of int64, shape (n,)
        Number of a memory of `Decoded`, or ``NOWHERE``.
    base : ndarray of int64, shape (n,)
        Byte of it at which the part's first voxel lies.
    origin, shape, stride : ndarray of int64, shape (n, d)
        First voxel of the part in its volume, as stored; its sides; and voxels from one index of
        an axis to the next.
    """

    memory: NDArray[np.int64]
    base: NDArray[np.int64]
    origin: NDArray[np.int64]
    shape: NDArray[np.int64]
    stride: NDArray[np.int64]

    @classmethod
    def joined(cls, held: Sequence[Held]) -> Held:
        """Return the parts of several, one after the other."""
        fields = ("memory", "base", "origin", "shape", "stride")
        return cls(*(np.concatenate([getattr(part, name) for part in held]) for name in fields))

    def at(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Held:
        """Return some of the parts."""
        return Held(
            self.memory[rows],
            self.base[rows],
            self.origin[rows],
            self.shape[rows],
            self.stride[rows],
        )


class Demand:
    """The tiles of the boxes of batches that follow each other.

    Parameters
    ----------
    decompress : Decompressor
        Says which compressions it can.
    """

    def __init__(self, decompress: Decompressor) -> None:
        self._decompress = decompress
        self._kinds: dict[tuple[Blocks, tuple[int, ...], np.dtype], Kind] = {}
        self._numbers: dict[VolumeTiles, int] = {}

    def kind_of(self, volume: VolumeTiles | None) -> Kind | None:
        """Return the kind of a volume; None where the device does not decode its tiles."""
        if volume is None or volume.index.checksums is None:
            return None
        blocks = volume.index.decoder.blocks
        if blocks is None or blocks.compression not in self._decompress.compressions:
            return None
        key = (blocks, volume.index.tiling.extents, volume.dtype)
        return self._kinds.setdefault(key, Kind(*key))

    def ask(
        self, locators: Sequence[VolumeLocator], first: NDArray[np.int64], last: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Ask for the tiles of boxes, as far as they lie in their volumes.

        Parameters
        ----------
        locators : sequence of VolumeLocator, length n
            The volume of each box.
        first, last : ndarray of int64, shape (n, d)
            First voxel of each box as stored, and one past its last.

        Returns
        -------
        ndarray of int64, shape (n, 2)
            Number of the kind and of the box in it, ``NOWHERE`` for one that is not decoded here.
        """
        asked = np.full((len(locators), 2), NOWHERE)
        volumes = [volume_tiles(locator) for locator in locators]
        begin = np.maximum(first, 0)
        end = np.minimum(
            last, np.array([locator.shape for locator in locators]).reshape(last.shape)
        )
        inside = (begin < end).all(axis=1).tolist()  # of another all is padding
        rows: dict[int, list[int]] = {}
        for row, volume in enumerate(volumes):
            if inside[row] and volume is not None and (number := self._number_of(volume)) >= 0:
                rows.setdefault(number, []).append(row)
        kinds = self.kinds
        for number, chosen in rows.items():
            own = [volume for row in chosen if (volume := volumes[row]) is not None]
            asked[chosen, 0] = number
            asked[chosen, 1] = kinds[number].add(own, begin[chosen], end[chosen])
        return asked

    def _number_of(self, volume: VolumeTiles) -> int:
        """Return the number of a volume's kind, ``NOWHERE`` where there is none."""
        number = self._numbers.get(volume)
        if number is None:
            kind = self.kind_of(volume)
            number = NOWHERE if kind is None else list(self._kinds).index(kind.key)
            self._numbers[volume] = number
        return number

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of volumes there are, in the order of their numbers."""
        return list(self._kinds.values())

    def held(self, asked: NDArray[np.int64], memory: int) -> Held:
        """Return where boxes that were asked for lie, kind `i` in memory `memory` + i.

        Of which a tile was lost they lie nowhere.
        """
        axes = max((len(kind.extents) for kind in self.kinds), default=0)
        where = np.full(len(asked), NOWHERE)
        base = np.zeros(len(asked), np.int64)
        origin, shape, stride = (np.zeros((len(asked), axes), np.int64) for _ in range(3))
        for number, kind in enumerate(self.kinds):
            rows = np.flatnonzero(asked[:, 0] == number)
            if rows.size:
                parts, boxes = kind.parts, asked[rows, 1]
                where[rows] = np.where(kind.lost[boxes], NOWHERE, memory + number)
                used = len(kind.extents)
                base[rows] = parts.base[boxes]
                origin[rows, :used] = parts.origin[boxes]
                shape[rows, :used] = parts.shape[boxes]
                stride[rows, :used] = parts.stride[boxes]
        return Held(where, base, origin, shape, stride)


def first_opened(locators: Sequence[VolumeLocator]) -> VolumeTiles | None:
    """Return the first volume of a table, which stands for the others, if it can be read."""
    try:
        return volume_tiles(locators[0]) if len(locators) else None
    except RadiObjectError:  # an error of the batch that needs it
        return None


def batches_together(
    field_sides: Sequence[tuple[Field, tuple[int, ...]]], batch: int, ahead: int
) -> int:
    """Return how many batches are best decoded in one call.

    Parameters
    ----------
    field_sides : sequence of pairs of Field and tuple of int
        What a batch has of voxels, and the sides of its boxes.
    batch : int
        Samples of a batch.
    ahead : int
        Batches that are asked for ahead of their use: more are taken only as far as it takes them
        to fill a call.
    """
    tiles, staged, nbytes = 0.0, 0.0, 0
    for field, side in field_sides:
        for table in field.channels:
            volume = first_opened(table.locators)
            if volume is None:
                continue
            index = volume.index
            extents, grid = index.tiling.extents, index.tiling.grid
            own = batch * math.prod(1 + (n - 1) / e for n, e in zip(side, extents, strict=True))
            tiles += own
            staged += own * (index.file_size - index.offset_list[0]) / index.tiling.count
            most = math.prod(
                min(-(-(n - 1) // e) + 1, tiled) * e
                for n, e, tiled in zip(side, extents, grid, strict=True)
            )
            nbytes += batch * most * volume.dtype.itemsize
    if not tiles:
        return 1
    enough, most_tiles = math.ceil(TILES_ENOUGH / tiles), math.ceil(_MOST_TILES / tiles)
    wanted = min(max(enough, min(most_tiles, ahead)), _MOST_BATCHES)
    room = min(_MOST_BYTES // max(nbytes, 1), int(STAGED_BYTES // max(staged, 1)))
    return max(1, min(wanted, room))
