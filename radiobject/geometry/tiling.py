"""How a volume is cut into tiles, and which parts of which tiles make up a box."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from radiobject.geometry.box import Box

_CANDIDATE_EXTENTS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256)
_MIN_TILE_VOXELS = 2048
_MAX_TILE_VOXELS = 131072
# Reading a tile costs about as much, beside its voxels, as decoding this many more.
_OVERHEAD_VOXELS = 16000


@dataclass(frozen=True, slots=True)
class Tiling:
    """A regular grid of tiles over a volume; the last tile of an axis may stick out of it.

    Parameters
    ----------
    shape : tuple of int
        Voxels per axis.
    extents : tuple of int
        Voxels of a tile per axis, each at least 1.
    order : {"C", "F"}
        Whether tile numbers grow fastest along the last axis or along the first.
    """

    shape: tuple[int, ...]
    extents: tuple[int, ...]
    order: str = "C"

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of tiles per axis."""
        return tuple(-(-n // e) for n, e in zip(self.shape, self.extents, strict=True))

    @property
    def count(self) -> int:
        """Number of tiles."""
        return math.prod(self.grid)

    @property
    def steps(self) -> tuple[int, ...]:
        """How much a tile's number grows from one position of the grid to the next, per axis."""
        grid, axes = self.grid, range(len(self.shape))
        faster = [grid[axis + 1 :] if self.order == "C" else grid[:axis] for axis in axes]
        return tuple(map(math.prod, faster))

    def numbers(self) -> np.ndarray:
        """Return the number of every tile, as an array of int64 of shape `grid`."""
        return np.arange(self.count).reshape(self.grid, order=self.order)  # type: ignore[call-overload]

    def position(self, number: int) -> tuple[int, ...]:
        """Return the position in the grid of tile `number`."""
        where = np.unravel_index(number, self.grid, order=self.order)  # type: ignore[call-overload]
        return tuple(int(i) for i in where)

    def box(self, position: Sequence[int]) -> Box:
        """Return the voxels, inside the volume, of the tile at `position` in the grid."""
        start = tuple(int(i) * e for i, e in zip(position, self.extents, strict=True))
        stop = tuple(min(a + e, n) for a, e, n in zip(start, self.extents, self.shape, strict=True))
        return Box(start, stop)


def tiles_covering(box: Box, extents: Sequence[int]) -> tuple[slice, ...]:
    """Return the range of the grid, per axis, whose tiles together cover `box`.

    An empty box is covered by an empty range on the axis where it is empty.
    """
    return tuple(
        slice(a // e, -(-b // e)) if b > a else slice(a // e, a // e)
        for a, b, e in zip(box.start, box.stop, extents, strict=True)
    )


TilePart = tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]
"""The part of one tile that lies in a box: the tile's position in the grid, and the same voxels
counted from the tile's first voxel and from the box's."""


def parts_of(box: Box, extents: Sequence[int]) -> Iterator[TilePart]:
    """Yield the part of every tile that lies in `box`, each voxel once, in C order of the grid."""
    positions, in_tile, in_box = [], [], []
    for a, b, e in zip(box.start, box.stop, extents, strict=True):
        tiles = range(a // e, -(-b // e) if b > a else a // e)
        ends = [(i * e, max(a, i * e), min(b, i * e + e)) for i in tiles]
        positions.append(tiles)
        in_tile.append([slice(first - origin, last - origin) for origin, first, last in ends])
        in_box.append([slice(first - a, last - a) for _, first, last in ends])
    return zip(
        itertools.product(*positions),
        itertools.product(*in_tile),
        itertools.product(*in_box),
        strict=True,
    )


def extents_for_patch(shape: Sequence[int], patch_size: Sequence[int]) -> tuple[int, ...]:
    """Return the tile extents that read random patches of `patch_size` with the least work.

    The expected number of tiles that a patch of side p meets along an axis with extent e is
    ``1 + (p - 1) / e``; the extents minimise tiles times (voxels of a tile + a fixed overhead).

    Parameters
    ----------
    shape : sequence of int
        (X, Y, Z) or (X, Y, Z, T) of the volume in voxels.
    patch_size : sequence of int
        Sides in voxels, one per axis of `shape` or per spatial axis; a time axis that the patch
        does not name is stored one time point per tile.
    """
    sides = [min(int(p), int(n)) for p, n in zip(patch_size, shape, strict=False)]
    sides += [1] * (len(shape) - len(sides))
    options = []
    for side, length in zip(sides, shape, strict=True):
        usable = {min(e, int(length)) for e in _CANDIDATE_EXTENTS if e <= 2 * side}
        options.append([(e, _expected_tiles(side, int(length), e)) for e in sorted(usable)])
    floor = min(_MIN_TILE_VOXELS, math.prod(int(n) for n in shape))

    def cost(choice: tuple[tuple[int, float], ...]) -> tuple[bool, float]:
        voxels = math.prod(e for e, _ in choice)
        tiles = math.prod(n for _, n in choice)
        fits = floor <= voxels <= _MAX_TILE_VOXELS
        return not fits, tiles * (voxels + _OVERHEAD_VOXELS)

    best = min(itertools.product(*options), key=cost)
    return tuple(e for e, _ in best)


def _expected_tiles(side: int, length: int, extent: int) -> float:
    return float(-(-length // extent)) if side == length else 1 + (side - 1) / extent
