"""How far apart two grids lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAME_PLACE_MM = 0.05
"""How far apart the same corner of a mask and its image may lie, as for loaders."""


def corner_distance_mm(
    a: NDArray[np.float64], b: NDArray[np.float64], shapes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the largest distance, over the eight corners, between paired volumes, shape (n,).

    Parameters
    ----------
    a, b : ndarray of float64, shape (n, 4, 4)
        Voxel index to RAS+ mm.
    shapes : ndarray of int64, shape (n, at least 3)
        The shape that both volumes of a pair have.
    """
    unit = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(8, 3)
    corners = unit[None] * (shapes[:, None, :3] - 1)
    homogeneous = np.concatenate((corners, np.ones((*corners.shape[:2], 1))), axis=-1)
    apart = np.einsum("nij,ncj->nci", (a - b)[:, :3], homogeneous)
    distance: NDArray[np.float64] = np.linalg.norm(apart, axis=-1).max(axis=1)
    return distance
