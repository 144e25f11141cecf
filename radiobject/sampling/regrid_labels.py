"""A label summary, moved with its volume into another grid."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from radiobject.geometry.regrid import Regrid
from radiobject.sampling.labels import LabelSummary

_ENOUGH_POSITIONS = 64


def regridded_summary(summary: LabelSummary, regrid: Regrid) -> LabelSummary:
    """Return a label summary in the target's grid, made from the summary alone.

    Each sampled position moves to the target voxel nearest to it. Those that take the class of
    just that position are kept; where they are few (a source much finer than the target, in which
    most voxels are nobody's nearest), all that lie inside are, and a patch around them may miss
    the class by half a voxel. A class that lies outside is dropped. Counts are scaled by the sizes
    of the voxels and by the share of positions inside; the coarse grid is one tile.
    """
    kept = [
        (value, *moved)
        for value, count, flat in zip(
            summary.values, summary.counts, summary.positions, strict=True
        )
        if (moved := _moved_class(summary.shape, int(count), flat, regrid)) is not None
    ]
    most = np.iinfo(np.uint32).max
    return LabelSummary(
        regrid.shape,
        regrid.shape,
        np.array([value for value, _, _ in kept], np.int64),
        np.array([count for _, count, _ in kept], np.int64),
        tuple(positions for _, _, positions in kept),
        tuple(np.array([[0, min(count, most)]], np.uint32) for _, count, _ in kept),
    )


def _moved_class(
    shape: tuple[int, ...], count: int, flat: NDArray[np.uint64], regrid: Regrid
) -> tuple[int, NDArray[np.uint64]] | None:
    """Return the voxels of a class in the target and their sampled positions, or None."""
    voxels = np.stack(np.unravel_index(flat.astype(np.int64), shape), axis=-1)
    unbounded = regrid.nearest_target(voxels[:, :3])
    moved = unbounded.clip(0, np.array(regrid.shape[:3]) - 1)
    exact = (regrid.nearest(moved) == voxels[:, :3]).all(axis=1)
    inside = exact | (moved == unbounded).all(axis=1)
    all_are_known = len(flat) == count
    enough = exact.any() if all_are_known else np.count_nonzero(exact) >= _ENOUGH_POSITIONS
    chosen = exact if enough else inside
    if not chosen.any():
        return None
    where = (*moved[chosen].T, *voxels[chosen, 3:].T)
    positions = np.unique(np.ravel_multi_index(where, regrid.shape)).astype(np.uint64)
    scaled = round(count * inside.mean() / regrid.voxels_per_target)
    return min(max(scaled, len(positions)), math.prod(regrid.shape)), positions
