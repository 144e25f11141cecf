"""The three planes of a volume: which way they are shown, in the viewer and in a notebook alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radiobject.geometry.orientation import WORLD_LETTERS, axis_directions, spacing_mm
from radiobject.geometry.ras_view import tilt_degrees

_RIGHT, _FRONT, _HEAD = range(3)
# World axis that a plane is perpendicular to, and the world axes that run right and up on screen.
_VIEWS = {
    "axial": (_HEAD, (_RIGHT, -1), (_FRONT, 1)),
    "coronal": (_FRONT, (_RIGHT, -1), (_HEAD, 1)),
    "sagittal": (_RIGHT, (_FRONT, -1), (_HEAD, 1)),
}


@dataclass(frozen=True)
class PlaneView:
    """How one plane is laid on the screen, as radiologists expect it: the patient's right at left.

    Parameters
    ----------
    name : {"axial", "coronal", "sagittal"}
        The nearest anatomical plane.
    axis : int
        Voxel axis that the plane is perpendicular to.
    across, down : int
        Voxel axes that run to the right and down on the screen.
    flip_across, flip_down : bool
        Whether their indices fall in that direction.
    letters : dict
        Where the patient's sides are: one of R/L, A/P, S/I at left, right, top and bottom.
    size_mm : tuple of float
        Width and height of the plane.
    tilt : float
        Angle in degrees to the plane of the body that it is called after; see `tilt_degrees`.
    """

    name: str
    axis: int
    across: int
    down: int
    flip_across: bool
    flip_down: bool
    letters: dict[str, str]
    size_mm: tuple[float, float]
    tilt: float

    def turned(self, plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a plane of voxels, its two axes in the order of the volume's, as rows from the
        top and columns from the left; no copy."""
        rows = plane if self.down < self.across else plane.T
        return rows[:: -1 if self.flip_down else 1, :: -1 if self.flip_across else 1]


def plane_views(shape: tuple[int, ...], affine: npt.NDArray[np.float64]) -> list[PlaneView]:
    """Return the axial, coronal and sagittal view of a volume.

    Planes follow the voxel axes: an oblique volume is shown in the nearest anatomical planes and
    is not resampled.

    Parameters
    ----------
    shape : tuple of int
        (X, Y, Z) or (X, Y, Z, T).
    affine : ndarray, shape (4, 4)
        Voxel index to RAS+ mm.
    """
    directions = axis_directions(affine)
    voxel_axis = {world: axis for axis, (world, _) in enumerate(directions)}
    spacing = spacing_mm(affine)
    views = []
    for name, (normal, (right, right_sign), (up, up_sign)) in _VIEWS.items():
        across, down = voxel_axis[right], voxel_axis[up]
        views.append(
            PlaneView(
                name=name,
                axis=voxel_axis[normal],
                across=across,
                down=down,
                flip_across=directions[across][1] != right_sign,
                flip_down=directions[down][1] == up_sign,
                letters={
                    "right": WORLD_LETTERS[right][right_sign > 0],
                    "left": WORLD_LETTERS[right][right_sign < 0],
                    "top": WORLD_LETTERS[up][up_sign > 0],
                    "bottom": WORLD_LETTERS[up][up_sign < 0],
                },
                size_mm=(shape[across] * spacing[across], shape[down] * spacing[down]),
                tilt=tilt_degrees(affine, voxel_axis[normal]),
            )
        )
    return views
