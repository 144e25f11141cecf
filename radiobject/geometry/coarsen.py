"""Boxes at a coarser resolution: blocks of voxels become one, images by their mean, labels not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radiobject.geometry.box import Box

SPATIAL_AXES = 3
MAX_FINE_VOXELS = 1 << 24
"""Voxels that are read at once, where a box is larger than that: some planes of it."""


@dataclass(frozen=True, slots=True)
class Coarsen:
    """How many voxels of a volume become one, along each of its three spatial axes.

    Parameters
    ----------
    factor : int
        At least 1.
    nearest : bool
        Take the block's voxel nearest to its centre (of an even factor, that with the higher
        indices), as labels need it. Otherwise take the mean.
    """

    factor: int
    nearest: bool = False

    def fine_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the box that is read for a coarse one."""
        return tuple(n * self.factor if a < SPATIAL_AXES else n for a, n in enumerate(shape))

    def parts(self, box: Box) -> Iterator[tuple[Box, slice]]:
        """Yield the boxes that are read one after the other, and the coarse planes they become."""
        side = box.shape
        planes = side[0] // self.factor
        together = max(1, MAX_FINE_VOXELS // max(1, box.size // max(planes, 1)))
        for first in range(0, planes, together):
            last = min(first + together, planes)
            start = (box.start[0] + first * self.factor, *box.start[1:])
            shape = ((last - first) * self.factor, *side[1:])
            yield Box.at(start, shape), slice(first, last)

    def reduce(self, fine: NDArray, out: NDArray) -> None:
        """Fill `out` from the voxels of its box.

        A mean is a sum in float64, along the last of the three axes first, divided once and then
        rounded to the type of `out` (to whole numbers, halfway to even, where that has no
        fractions).
        """
        step, middle = self.factor, self.factor // 2
        if self.nearest:
            out[...] = fine[middle::step, middle::step, middle::step]
            return
        sums = fine.astype(np.float64)
        for axis in (2, 1, 0):
            sums = _block_sums(sums, axis, step)
        sums /= step**SPATIAL_AXES
        out[...] = np.rint(sums) if out.dtype.kind in "biu" else sums


def _block_sums(fine: NDArray[np.float64], axis: int, step: int) -> NDArray[np.float64]:
    """Return the sums of `step` neighbours along an axis, each added in their order."""
    before: tuple[slice, ...] = (slice(None),) * axis
    total = fine[(*before, slice(0, None, step))].copy()
    for offset in range(1, step):
        total += fine[(*before, slice(offset, None, step))]
    return total
