"""Which part of a volume is more than background."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radiobject.geometry.box import Box

_THINNED = 8
"""Every how many voxels are looked at first: most parts that are no background show it there."""


def content_box(voxels: np.ndarray, extents: Sequence[int]) -> Box:
    """Return the smallest box of whole tiles beyond which every voxel equals the first one.

    Voxels are compared by their bits, so that -0.0 is not 0.0 and a NaN may be background. Where
    nothing differs, the box is one tile.

    Parameters
    ----------
    voxels : ndarray, any number of axes and any strides, no side 0
    extents : sequence of int
        Sides of a tile in voxels, one per axis.
    """
    bits = voxels.view(f"u{voxels.itemsize}")
    background = bits[(0,) * bits.ndim]
    start, stop = [0] * bits.ndim, list(bits.shape)

    def is_background(axis: int, first: int, last: int) -> bool:
        window = [slice(a, b) for a, b in zip(start, stop, strict=True)]
        window[axis] = slice(first, last)
        slab = bits[tuple(window)]
        thinned = slab[(slice(None, None, _THINNED),) * slab.ndim]
        return bool((thinned == background).all() and (slab == background).all())

    for axis, extent in enumerate(extents):
        while stop[axis] - start[axis] > extent:
            if not is_background(axis, start[axis], start[axis] + extent):
                break
            start[axis] += extent
        while stop[axis] - start[axis] > extent:
            last_tile = (stop[axis] - 1) // extent * extent
            if not is_background(axis, last_tile, stop[axis]):
                break
            stop[axis] = last_tile
    return Box(tuple(start), tuple(stop))
