"""Turning Fortran order into C order several times faster than NumPy does."""

from __future__ import annotations

import itertools

import numpy as np

_BLOCK = {3: (8, 32), 4: (8, 8, 16)}

_GROUP = np.dtype("V16")
"""Neighbours along the first axis that travel together: what one register holds."""

_LARGEST_GROUPED = 4
"""Bytes of a voxel. Two of eight bytes in a group gain nothing."""

_CACHED_BYTES = 1 << 19
"""Bytes of a block that is taken apart before it leaves the processor's cache."""


def copy_in_blocks(voxels: np.ndarray, out: np.ndarray) -> None:
    """Copy an array in Fortran order to one in C order, or the other way round.

    A transpose touches one of its two arrays with a long stride. Done block by block, both sides
    of a block stay in the processor's cache.

    Parameters
    ----------
    voxels : ndarray, 3-D or 4-D, any strides
    out : ndarray of the same shape, any strides and numeric type
    """
    grouped = _grouped_side(voxels)
    if grouped:
        planes = [(voxels, out)]
        if voxels.ndim == 4:
            planes = [(voxels[:, y], out[:, y]) for y in range(voxels.shape[1])]
        for source, target in planes:
            _copy_in_groups(source[:grouped], target[:grouped])
    _copy_one_by_one(voxels[grouped:], out[grouped:])


def _grouped_side(voxels: np.ndarray) -> int:
    """Return how much of the first axis can be copied in groups."""
    if voxels.strides[0] != voxels.itemsize or voxels.itemsize > _LARGEST_GROUPED:
        return 0
    return voxels.shape[0] - voxels.shape[0] % (_GROUP.itemsize // voxels.itemsize)


def _copy_in_groups(voxels: np.ndarray, out: np.ndarray) -> None:
    """Copy an array of shape (X, Y, Z), contiguous along X and with whole groups along it.

    Turning groups instead of voxels takes a fraction of the steps with a long stride. What is
    left, taking the groups apart, reads with a short stride and writes with none.
    """
    slices = voxels.T.view(_GROUP)
    depth, height, width = slices.shape
    step = max(1, _CACHED_BYTES // (depth * width * _GROUP.itemsize))
    # Rows are gathered first: turned where they lie, they would share few lines of the cache when
    # a slice has a power of two of bytes.
    gathered = np.empty((depth, step, width), _GROUP)
    turned = np.empty((width, step, depth), _GROUP)
    single = turned[..., np.newaxis].view(voxels.dtype)
    count = single.shape[-1]
    for first in range(0, height, step):
        rows = slices[:, first : first + step]
        many = rows.shape[1]
        gathered[:, :many] = rows
        turned[:, :many] = gathered[:, :many].transpose(2, 1, 0)
        for place in range(count):
            out[place::count, first : first + many] = single[:, :many, :, place]


def _copy_one_by_one(voxels: np.ndarray, out: np.ndarray) -> None:
    blocks = _BLOCK[voxels.ndim]
    starts = [range(0, n, b) for n, b in zip(voxels.shape[1:], blocks, strict=True)]
    for corner in itertools.product(*starts):
        window = tuple(slice(a, a + b) for a, b in zip(corner, blocks, strict=True))
        out[:, *window] = voxels[:, *window]
