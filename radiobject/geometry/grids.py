"""Grids of voxels as values: shape and affine, and the ones that resampling and cropping make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.geometry.box import Box

GEOMETRY_TOLERANCE_MM = 0.05
"""How far apart the same corner of two volumes may lie that count as on one grid."""

_NEGLIGIBLE = 1e-6
"""Share of a voxel by which a side may exceed a whole number of voxels and still count as it."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxels in space.

    Parameters
    ----------
    shape : tuple of int
        (X, Y, Z) in voxels.
    affine : ndarray of float64, shape (4, 4)
        Voxel index to RAS+ mm.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @classmethod
    def of(cls, shape: Sequence[int], affine: NDArray[np.float64]) -> Grid:
        """Return the grid of a volume (X, Y, Z[, T]).

        Raises
        ------
        ShapeError
            If the affine has no inverse: the volume has no place in space.
        """
        matrix = np.asarray(affine, np.float64)
        if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
            raise ShapeError(f"the affine {matrix.tolist()} has no inverse")
        x, y, z = (int(n) for n in shape[:3])
        return cls((x, y, z), matrix)

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Distance between neighbouring voxels along each axis of the array, shape (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def with_spacing(self, spacing_mm: Sequence[float]) -> Grid:
        """Return the grid of the same field of view with other distances between voxels.

        Its centre stays where it is, as do the directions of the axes. Sides are rounded up:
        nothing is cut off, and the centre of every voxel lies in the field of view, whose faces the
        outermost voxels exceed by less than half a voxel.
        """
        wanted = spacing_of(spacing_mm)
        factor = wanted / self.spacing_mm
        sides = [
            1 if n == 1 else max(1, math.ceil(n / f - _NEGLIGIBLE))
            for n, f in zip(self.shape, factor, strict=True)
        ]
        affine = self.affine.copy()
        affine[:3, :3] *= factor
        first = (np.array(self.shape) - 1) / 2 - (np.array(sides) - 1) / 2 * factor
        affine[:3, 3] += self.affine[:3, :3] @ first
        return Grid((sides[0], sides[1], sides[2]), affine)

    def cropped(self, box: Box) -> Grid:
        """Return the part of the grid that a box holds."""
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, :3] @ np.asarray(box.start, np.float64)
        x, y, z = box.shape
        return Grid((x, y, z), affine)

    def index_to(self, other: Grid) -> NDArray[np.float64]:
        """Return the map from this grid's voxel index to that of another, shape (4, 4)."""
        return np.linalg.solve(other.affine, self.affine).astype(np.float64)

    def is_same(self, other: Grid, tolerance_mm: float) -> bool:
        """Return whether two grids have one shape and no corner further apart than that."""
        if self.shape != other.shape:
            return False
        ends = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(3, 8)
        apart = (self.affine - other.affine)[:3] @ np.vstack([ends, np.ones(8)])
        return bool(np.linalg.norm(apart, axis=0).max() <= tolerance_mm)


def spacing_of(given: Sequence[float] | float) -> NDArray[np.float64]:
    """Return distances in mm along the three axes; one number stands for all.

    Raises
    ------
    ConfigurationError
        If they are not three positive numbers.
    """
    try:
        spacing = np.broadcast_to(np.asarray(given, np.float64), (3,)).copy()
    except ValueError as error:
        raise ConfigurationError(f"spacing is one or three numbers in mm, got {given!r}") from error
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise ConfigurationError(f"spacing is in mm and above 0, got {given!r}")
    return spacing
