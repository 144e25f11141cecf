"""Comparing decoded tiles with what the store says of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radiobject.exceptions import IntegrityError
from radiobject.storage.tiles.blosc_chunk import Buffer
from radiobject.storage.tiles.tile_index import TileIndex


def decode_tiles(
    index: TileIndex,
    numbers: Sequence[int],
    stored: Sequence[Buffer],
    label: str,
    out: np.ndarray,
) -> np.ndarray:
    """Decode tiles into the bytes `out`.

    Returns
    -------
    ndarray, shape (tiles, *extents)
        A view of `out`.

    Raises
    ------
    IntegrityError
        If one does not decode; the message names the volume by `label`, and the tile.
    """
    try:
        return index.decoder.decode(stored, out)
    except IntegrityError as error:
        if len(stored) == 1:
            raise IntegrityError(f"tile {numbers[0]} of volume {label} {error}") from error
        for number, tile in zip(numbers, stored, strict=True):
            decode_tiles(index, [number], [tile], label, out[: index.tile_bytes])
        raise


def inside_tile(index: TileIndex, number: int, stored: Buffer, label: str) -> np.ndarray:
    """Decode tile `number` and return the voxels of it that lie in the volume."""
    sides = index.tiling.box(index.tiling.position(number)).shape
    out = np.empty(index.tile_bytes, np.uint8)
    tile = decode_tiles(index, [number], [stored], label, out)[0]
    return tile[tuple(slice(0, n) for n in sides)]


def usable_sum(total: np.ndarray) -> np.ndarray:
    """Return which floating-point sums are sums: neither NaN nor at the limit of TileDB."""
    return np.abs(total) < np.finfo(np.float64).max


def matches_statistics(index: TileIndex, number: int, voxels: np.ndarray) -> bool:
    """Return whether the voxels of a tile have its stored minimum, maximum and sum.

    Sums of integers are compared exactly, unless one of its parts may have left the type's range;
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
        same = _may_overflow(voxels) or bool(voxels.sum(dtype=total.dtype) == total)
    return same and bool(
        voxels.min() == index.minimum[number] and voxels.max() == index.maximum[number]
    )


def _may_overflow(voxels: np.ndarray) -> bool:
    # TileDB stops at the limit of 64 bits and goes on adding from there, up or down.
    if voxels.dtype.itemsize < 8:
        return False
    largest = max(abs(int(voxels.min())), abs(int(voxels.max())))
    return largest * voxels.size > np.iinfo(voxels.dtype).max
