"""What a patch costs: the tiles that it touches, and the bytes that they take to read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from radiobject.exceptions import StorageError
from radiobject.geometry.box import Box
from radiobject.geometry.tiling import tiles_covering
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.tiles.fragment import UnsupportedArrayError
from radiobject.storage.tiles.index_build import build_tile_index
from radiobject.storage.tiles.tile_index import TileIndex

_MAX_LISTED = 4096


def tile_index_of(locator: VolumeLocator) -> TileIndex | None:
    """Return the volume's tile index; None where only libtiledb can read it."""
    if locator.index is not None:
        return TileIndex.unpack(locator.index)
    try:
        return build_tile_index(locator.uri)
    except UnsupportedArrayError:
        return None


def touched_tiles(
    locator: VolumeLocator, centre: Sequence[int], size: Sequence[int], t: int = 0
) -> dict[str, Any]:
    """Return the patch of `size` around `centre`, moved into the volume, and its tiles.

    Raises
    ------
    StorageError
        If the volume has no tile index.
    """
    index = tile_index_of(locator)
    if index is None:
        raise StorageError(f"volume {locator.label} is read by libtiledb: it has no tile index")
    shape = locator.shape
    sides = [min(max(1, int(s)), n) for s, n in zip(size, shape, strict=False)]
    start = [
        min(max(0, int(c) - s // 2), n - s) for c, s, n in zip(centre, sides, shape, strict=False)
    ]
    if len(shape) == 4:
        sides, start = [*sides, 1], [*start, min(max(0, t), shape[3] - 1)]
    box = Box.at(start, sides)
    numbers = index.tiling.numbers()
    tiles, decoded, compressed = [], 0, 0
    cover = tiles_covering(box, index.tiling.extents)
    for position in itertools.product(*(range(s.start, s.stop) for s in cover)):
        number = int(numbers[position])
        constant = bool(index.constant[number])
        stored = 0 if constant else int(index.offsets[number + 1] - index.offsets[number])
        decoded += not constant
        compressed += stored
        inside = index.tiling.box(position)
        tiles.append(
            {
                "start": inside.start[:3],
                "stop": inside.stop[:3],
                "constant": constant,
                "bytes": stored,
            }
        )
    return {
        "start": box.start[:3],
        "stop": box.stop[:3],
        "extents": index.tiling.extents,
        "tiles": tiles[:_MAX_LISTED],
        "n_tiles": len(tiles),
        "n_decoded": decoded,
        "compressed_bytes": compressed,
        "decoded_bytes": decoded * index.tile_bytes,
        "patch_bytes": box.size * index.numpy_dtype.itemsize,
    }
