"""How much of a patch is labelled, told from a label summary without reading the patch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from radiobject.sampling.labels import LabelSummary


def foreground_share(
    summary: LabelSummary,
    starts: NDArray[np.int64],
    patch_size: Sequence[int],
    classes: Sequence[int] | None = None,
) -> NDArray[np.float64]:
    """Return the share of labelled voxels in patches, from the sampled positions.

    Exact for classes of which every position is kept; else the standard error of a patch that
    holds a share `p` of a class is about ``sqrt(p / kept)`` of that class. Where
    `foreground_bounds` decide a question, they do so without error, and in less time.

    Parameters
    ----------
    starts : ndarray of int64, shape (m, d)

    Returns
    -------
    ndarray of float64, shape (m,)
    """
    held = np.zeros(len(starts))
    for value, count, flat in zip(summary.values, summary.counts, summary.positions, strict=True):
        if classes is not None and int(value) not in classes:
            continue
        inside: NDArray[np.bool_] = np.ones((len(starts), len(flat)), bool)
        voxels = np.unravel_index(flat.astype(np.int64), summary.shape)
        for axis, (where, side) in enumerate(zip(voxels, patch_size, strict=True)):
            apart = where[None] - starts[:, axis, None]
            inside &= (apart >= 0) & (apart < side)
        held += inside.mean(axis=1) * count
    return held / math.prod(patch_size)


def foreground_bounds(
    summary: LabelSummary,
    starts: NDArray[np.int64],
    patch_size: Sequence[int],
    classes: Sequence[int] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the largest share of labelled voxels that patches can hold.

    They follow from the number of labelled voxels in each tile of the coarse grid, which is exact:
    of a tile's labelled voxels a patch holds at most as many as it covers, and at least those that
    do not fit into the rest. For patches much larger than tiles the two are close.

    Parameters
    ----------
    starts : ndarray of int64, shape (m, d)

    Returns
    -------
    low, high : ndarray of float64, shape (m,)
    """
    ndim, grid = len(summary.shape), summary.grid
    where, covered, size = [], [], []
    for axis, (side, extent, length) in enumerate(
        zip(patch_size, summary.extent, summary.shape, strict=True)
    ):
        start = starts[:, axis, None]
        touched = min(grid[axis], -(-(int(side) - 1) // extent) + 1)
        number = np.maximum(start, 0) // extent + np.arange(touched)
        first, last = number * extent, np.minimum((number + 1) * extent, length)
        overlap = np.minimum(last, start + side) - np.maximum(first, start)
        spread = (len(starts), *(touched if a == axis else 1 for a in range(ndim)))
        where.append(np.minimum(number, grid[axis] - 1).reshape(spread))
        covered.append(np.maximum(overlap, 0).reshape(spread))
        size.append(np.maximum(last - first, 0).reshape(spread))
    held = math.prod(covered)
    labelled = np.where(held > 0, summary.tile_counts(classes)[tuple(where)], 0)
    low = np.maximum(labelled + held - math.prod(size), 0)
    high = np.minimum(labelled, held)
    tiles, voxels = tuple(range(1, ndim + 1)), math.prod(patch_size)
    return low.sum(axis=tiles) / voxels, high.sum(axis=tiles) / voxels
