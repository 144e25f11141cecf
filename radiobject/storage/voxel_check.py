"""Comparing decoded tiles with what the store says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from radiobject.exceptions import IntegrityError
from radiobject.storage.decode import Buffer, decode_tile
from radiobject.storage.tile_index import TileIndex


def decode_whole(index: TileIndex, number: int, stored: Buffer, label: str) -> np.ndarray:
    """Decode tile `number`, with its whole extents; valid until this thread decodes again.

    Raises
    ------
    IntegrityError
        If it does not decode; the message names the volume by `label`, and the tile.
    """
    extents = index.tiling.extents
    try:
        flat = decode_tile(stored, index.filters, index.numpy_dtype, math.prod(extents))
    except IntegrityError as error:
        raise IntegrityError(f"tile {number} of {label} {error}") from error
    return flat.reshape(extents) if index.cell_order == "C" else flat.reshape(extents[::-1]).T


def inside(index: TileIndex, position: Sequence[int], tile: np.ndarray) -> np.ndarray:
    """Return the voxels of a whole tile that lie in the volume."""
    return tile[tuple(slice(0, n) for n in index.tiling.box(position).shape)]


def inside_tile(index: TileIndex, number: int, stored: Buffer, label: str) -> np.ndarray:
    """Decode tile `number` and return the voxels of it that lie in the volume."""
    tile = decode_whole(index, number, stored, label)
    return inside(index, index.tiling.position(number), tile)


def usable_sum(total: np.ndarray) -> np.ndarray:
    """Tell which floating-point sums are sums: neither NaN nor at the limit where TileDB stops."""
    return np.abs(total) < np.finfo(np.float64).max


def matches_statistics(index: TileIndex, number: int, voxels: np.ndarray) -> bool:
    """Tell whether the voxels of a tile have its stored minimum, maximum and sum.

    Sums of integers are compared exactly, unless the stored one ran into the limit of its type;
    sums of floats within the rounding that another order of addition gives. Tiles with values
    that are not finite have no usable statistics and always match.
    """
    total = index.total[number]
    if voxels.dtype.kind == "f":
        if not usable_sum(total):
            return True
        wide = voxels.astype(np.float64)
        bound = np.finfo(np.float64).eps * voxels.size * np.abs(wide).sum()
        same = bool(abs(wide.sum() - total) <= bound)
    else:
        limits = np.iinfo(total.dtype)
        saturated = voxels.dtype.itemsize == 8 and total in (limits.min, limits.max)
        same = bool(saturated or voxels.sum(dtype=total.dtype) == total)
    return same and bool(
        voxels.min() == index.minimum[number] and voxels.max() == index.maximum[number]
    )
