"""A bounded summary of a label volume: enough to sample by class without reading a mask again.

Per class it holds the number of voxels, a uniform sample of their positions, and their number in
each tile of a coarse grid. An organ of fifty million voxels costs a few kilobytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import SchemaError
from radiobject.geometry.ras_view import RasView
from radiobject.geometry.regrid import BACKGROUND
from radiobject.sampling.philox import below, philox

MAX_POSITIONS = 1024
"""Positions kept per class."""
MAX_TILES = 4096
"""Tiles of the coarse grid; its extent is doubled until it fits."""
MAX_CLASSES = 1024
"""More distinct values than this are an image, not labels."""
_TILE = 32
_COUNTED_VALUES = 1 << 16
_SAMPLE_STREAM = 0x1AB

Tile = tuple[int, tuple[int, ...], NDArray[Any]]


class LabelArray(Protocol):
    """An array, or a stored volume, that can be cut along its first axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sides in voxels."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Stored type."""
        ...

    def __getitem__(self, key: slice, /) -> NDArray[Any]:
        """Return the planes of a slice of the first axis."""
        ...


@dataclass(frozen=True, eq=False)
class LabelSummary:
    """What sampling needs to know of one label volume.

    Parameters
    ----------
    shape : tuple of int
        The volume's shape in voxels.
    extent : tuple of int
        Sides of the coarse grid's tiles in voxels.
    values : ndarray of int64, shape (k,)
        The classes that occur, ascending, without the background.
    counts : ndarray of int64, shape (k,)
        Voxels per class.
    positions : tuple of ndarray of uint64, one of shape (<= MAX_POSITIONS,) per class
        Flat C-order indices of a uniform sample of the class's voxels.
    tiles : tuple of ndarray of uint32, one of shape (m, 2) per class
        Tile number (C order over the coarse grid) and voxels of the class in it, where any.
    """

    shape: tuple[int, ...]
    extent: tuple[int, ...]
    values: NDArray[np.int64]
    counts: NDArray[np.int64]
    positions: tuple[NDArray[np.uint64], ...]
    tiles: tuple[NDArray[np.uint32], ...]

    @property
    def grid(self) -> tuple[int, ...]:
        """Tiles per axis."""
        return tuple(-(-n // e) for n, e in zip(self.shape, self.extent, strict=True))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        samples = sum(p.nbytes for p in self.positions) + sum(t.nbytes for t in self.tiles)
        return self.values.nbytes + self.counts.nbytes + samples

    def tile_counts(self, values: Sequence[int] | None = None) -> NDArray[np.int64]:
        """Return the number of voxels of the given classes (None: all) per tile of the grid."""
        counts = np.zeros(int(np.prod(self.grid)), np.int64)
        for value, tiles in zip(self.values, self.tiles, strict=True):
            if values is None or int(value) in values:
                counts[tiles[:, 0]] += tiles[:, 1]
        return counts.reshape(self.grid)


def no_labels(shape: tuple[int, ...]) -> LabelSummary:
    """Return the summary of a volume that is all background, or not there."""
    nothing: NDArray[np.int64] = np.empty(0, np.int64)
    return LabelSummary(shape, shape, nothing, nothing, (), ())


def viewed_summary(summary: LabelSummary, view: RasView) -> LabelSummary:
    """Return a summary of a volume as it is seen; its coarse grid is one tile."""
    shape = view.shape(summary.shape)
    axes = view.axes(len(shape))
    positions = []
    for flat in summary.positions:
        voxels = np.unravel_index(flat.astype(np.int64), summary.shape)
        seen = [voxels[axis] for axis in axes]
        for axis, flipped in enumerate(view.flipped):
            if flipped:
                seen[axis] = shape[axis] - 1 - seen[axis]
        positions.append(np.ravel_multi_index(tuple(seen), shape).astype(np.uint64))
    most = np.iinfo(np.uint32).max
    tiles = tuple(np.array([[0, min(int(n), most)]], np.uint32) for n in summary.counts)
    return LabelSummary(shape, shape, summary.values, summary.counts, tuple(positions), tiles)


def build_label_index(
    data: LabelArray, *, max_positions: int = MAX_POSITIONS, extent: int = _TILE
) -> LabelSummary:
    """Summarise a label volume in two passes over slabs of it.

    Parameters
    ----------
    data : array of integers or bool, shape (X, Y, Z[, T])
        An array, or a stored volume: it is read in slabs of `extent` planes, never whole.
        Floating-point data is accepted where every value is a whole number.
    max_positions : int
        Positions kept per class.
    extent : int
        Side of the coarse grid's tiles; doubled until there are at most `MAX_TILES`.

    Raises
    ------
    SchemaError
        If the data are not labels: fractions, or more than `MAX_CLASSES` values.
    """
    shape = tuple(int(n) for n in data.shape)
    sides = _grid_extent(shape, extent)
    per_class: dict[int, list[tuple[int, int]]] = {}
    for number, _, tile in _tiles(data, shape, sides):
        for value, count in _occurring(tile):
            per_class.setdefault(value, []).append((number, count))
        if len(per_class) > MAX_CLASSES:
            raise SchemaError(
                f"a label volume has at most {MAX_CLASSES} classes, got more: is this an image?"
            )
    values = np.array(sorted(per_class), np.int64)
    tiles = tuple(np.array(per_class[int(v)], np.uint32).reshape(-1, 2) for v in values)
    counts = np.array([t[:, 1].sum(dtype=np.int64) for t in tiles], np.int64)
    ranks = [_spread(int(n), max_positions, int(v)) for n, v in zip(counts, values, strict=True)]
    positions = _positions_of(data, shape, sides, values, ranks)
    return LabelSummary(shape, sides, values, counts, positions, tiles)


ROUNDED_STEPS = 0.75
"""Steps of its scale that a label may be from a whole number: rounding makes half a step."""


def delivered_labels(stored: NDArray[Any], rescale: tuple[float, float] | None) -> NDArray[Any]:
    """Return the label values of stored integers: whole where rounding alone made them uneven.

    A mask that a program saved over the whole range of its type, 0, 1 and 2 as -32768, 0 and 32767
    with a slope, is delivered as 0, 1.00002 and 2.

    Parameters
    ----------
    stored : ndarray of integers or floats
        As in the store or the file.
    rescale : tuple of float, optional
        (slope, intercept) to the delivered values; None where they are the stored ones.

    Returns
    -------
    ndarray
        `stored` itself, or float64; values that are no labels keep their fractions.
    """
    if rescale is None:
        return stored
    slope, intercept = rescale
    return _without_rounding(stored * np.float64(slope) + np.float64(intercept), slope)


def _without_rounding(values: NDArray[Any], slope: float) -> NDArray[Any]:
    whole = np.rint(values)
    return np.where(np.abs(values - whole) <= ROUNDED_STEPS * abs(slope), whole, values)


def is_foreground(
    delivered: NDArray[Any], rescale: tuple[float, float] | None = None
) -> NDArray[np.bool_]:
    """Return where a mask has a label: a number that is not 0, and was not made so by rounding.

    NaN is no label: masks of floats have it where nothing was drawn.

    Parameters
    ----------
    delivered : ndarray
        Values of a mask, not the stored ones where these are scaled.
    rescale : tuple of float, optional
        The (slope, intercept) that they were delivered with.
    """
    values = delivered if rescale is None else _without_rounding(delivered, rescale[0])
    found: NDArray[np.bool_] = values != BACKGROUND
    return found & ~np.isnan(values) if values.dtype.kind == "f" else found


def stored_background(dtype: np.dtype[Any], rescale: tuple[float, float] | None) -> float | None:
    """Return the stored value that is delivered as the label 0, or None where the type has none."""
    slope, intercept = rescale or (1.0, 0.0)
    value = -intercept / slope + 0.0  # Not -0.0, which has other bits.
    if dtype.kind in "iu":
        value = round(value)
        ends = np.iinfo(dtype)
        if not ends.min <= value <= ends.max:
            return None
    stored = np.array(value, dtype)
    return float(stored) if delivered_labels(stored, rescale) == BACKGROUND else None


def labels_as_integers(
    stored: NDArray[Any], rescale: tuple[float, float] | None
) -> NDArray[Any] | None:
    """Return the labels in the smallest integer type, or None where they are none."""
    values = delivered_labels(stored, rescale)
    if values.dtype.kind != "f" or not np.isfinite(values).all() or (values % 1).any():
        return None
    low, high = int(values.min()), int(values.max())
    dtype = np.min_scalar_type(low if low < 0 else high)
    if low < 0 and high > np.iinfo(dtype).max:
        dtype = np.promote_types(dtype, np.min_scalar_type(-high))
    return values.astype(dtype) if dtype.kind in "iu" else None


def _grid_extent(shape: tuple[int, ...], extent: int) -> tuple[int, ...]:
    side = extent
    while np.prod([-(-n // side) for n in shape[:3]], dtype=np.int64) > MAX_TILES:
        side *= 2
    return tuple(min(side, n) if axis < 3 else n for axis, n in enumerate(shape))


def _tiles(data: LabelArray, shape: tuple[int, ...], sides: tuple[int, ...]) -> Iterator[Tile]:
    """Yield number, origin and voxels of every tile that is not all background."""
    grid = [range(0, n, e) for n, e in zip(shape, sides, strict=True)]
    across = int(np.prod([len(r) for r in grid[1:]], dtype=np.int64))
    for row, x in enumerate(grid[0]):
        slab = _whole_numbers(np.asarray(data[slice(x, min(x + sides[0], shape[0]))]))
        if not slab.any():
            continue
        for column, rest in enumerate(itertools.product(*grid[1:])):
            cut = tuple(slice(a, a + e) for a, e in zip(rest, sides[1:], strict=True))
            tile = slab[(slice(None), *cut)]
            if tile.any():
                yield row * across + column, (x, *rest), tile


def _whole_numbers(slab: NDArray[Any]) -> NDArray[Any]:
    if slab.dtype == np.uint64 and slab.size and slab.max() > np.iinfo(np.int64).max:
        raise SchemaError(f"a label is below 2**63, got {slab.max()}")
    if slab.dtype.kind in "iu":
        return slab
    if slab.dtype.kind == "b":
        return slab.view(np.uint8)
    whole = slab.astype(np.int64) if slab.dtype.kind == "f" and np.isfinite(slab).all() else None
    if whole is None or not np.array_equal(whole, slab):
        raise SchemaError(
            f"a label volume holds whole numbers, got {slab.dtype} with fractions or NaN"
        )
    return whole


def _occurring(tile: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Yield each class of a tile and its number of voxels."""
    flat = tile.ravel()
    if int(flat.min()) >= 0 and int(flat.max()) < _COUNTED_VALUES:
        found = np.bincount(flat.astype(np.int64, copy=False))  # Older NumPy takes no uint64.
        values, counts = np.flatnonzero(found), found[found > 0]
    else:
        values, counts = np.unique(flat, return_counts=True)
    for value, count in zip(values, counts, strict=True):
        if value != BACKGROUND:
            yield int(value), int(count)


def _spread(n: int, limit: int, value: int) -> NDArray[np.int64]:
    """Return at most `limit` ranks out of `n`, ascending: one draw in each of equal strata."""
    if n <= limit:
        return np.arange(n)
    edges = (np.arange(limit + 1) * n) // limit
    words = philox(value, 0, np.arange(limit), _SAMPLE_STREAM)[:, 0]
    return edges[:-1] + below(words, np.diff(edges))


def _positions_of(
    data: LabelArray,
    shape: tuple[int, ...],
    sides: tuple[int, ...],
    values: NDArray[np.int64],
    ranks: list[NDArray[np.int64]],
) -> tuple[NDArray[np.uint64], ...]:
    """Return the flat indices of the voxels with the given ranks, per class, in tile order."""
    found: list[list[NDArray[np.uint64]]] = [[] for _ in values]
    seen = [0] * len(values)
    number = {int(v): i for i, v in enumerate(values)}
    for _, origin, tile in _tiles(data, shape, sides):
        flat = tile.ravel()
        for value, count in _occurring(tile):
            i = number[value]
            low, high = np.searchsorted(ranks[i], (seen[i], seen[i] + count))
            if high > low:
                local = np.flatnonzero(flat == value)[ranks[i][low:high] - seen[i]]
                where = np.unravel_index(local, tile.shape)
                voxel = tuple(w + o for w, o in zip(where, origin, strict=True))
                found[i].append(np.ravel_multi_index(voxel, shape).astype(np.uint64))
            seen[i] += count
    return tuple(np.concatenate(f) if f else np.empty(0, np.uint64) for f in found)
