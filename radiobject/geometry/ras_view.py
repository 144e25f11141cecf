"""A stored volume seen with its axes to the patient's right, front and head; no voxel is moved.

Slices by anatomy are cut from this view: an axial slice is one position along its third axis,
whatever the order and the directions in which the voxels are stored. An oblique volume is seen
along its voxel axes, each under the name of the nearest axis of the body.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.geometry.box import Box
from radiobject.geometry.orientation import axis_directions

PLANES = ("sagittal", "coronal", "axial")
"""The plane of the body across each axis of the view."""

OBLIQUE_DEGREES = 45.0
"""From this angle on a plane of voxels is as much another plane of the body."""

_SLACK_DEGREES = 1e-3
"""What rounding of an affine may take from an angle."""


@dataclass(frozen=True)
class RasView:
    """Order and direction of a stored volume's axes in the view.

    Parameters
    ----------
    order : tuple of int
        The stored axis that runs left to right, back to front, and feet to head.
    flipped : tuple of bool
        Whether its index falls in that direction.
    """

    order: tuple[int, int, int] = (0, 1, 2)
    flipped: tuple[bool, bool, bool] = (False, False, False)

    @classmethod
    def of(cls, affine: NDArray[np.floating]) -> RasView:
        """Return the view of a volume with this affine, voxel index to RAS+ mm.

        Raises
        ------
        ShapeError
            If the affine has not three independent axes.
        """
        directions = axis_directions(affine)
        order = sorted(range(3), key=lambda axis: directions[axis][0])
        x, y, z = order
        return cls((x, y, z), tuple(directions[axis][1] < 0 for axis in order))  # type: ignore[arg-type]

    @property
    def is_stored(self) -> bool:
        """Whether the voxels are stored as they are seen."""
        return self.order == (0, 1, 2) and not any(self.flipped)

    def axes(self, ndim: int) -> list[int]:
        """Return the stored axis of each axis of the view, time last."""
        return [*self.order, *range(3, ndim)]

    def shape(self, stored: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the view."""
        return tuple(int(stored[axis]) for axis in self.axes(len(stored)))

    def affine(self, stored: NDArray[np.floating], shape: Sequence[int]) -> NDArray[np.float64]:
        """Return the affine of the view, of a volume stored with that affine and shape."""
        step = np.zeros((4, 4))
        step[3, 3] = 1.0
        for seen, (axis, flipped) in enumerate(zip(self.order, self.flipped, strict=True)):
            step[axis, seen] = -1.0 if flipped else 1.0
            step[axis, 3] = shape[axis] - 1 if flipped else 0.0
        return np.asarray(stored, np.float64) @ step

    def stored_box(self, box: Box, shape: Sequence[int]) -> Box:
        """Return where a box of the view lies in a volume stored with that shape."""
        start, stop = list(box.start), list(box.stop)
        for seen, (axis, flipped) in enumerate(zip(self.order, self.flipped, strict=True)):
            ends = box.start[seen], box.stop[seen]
            start[axis], stop[axis] = (
                (shape[axis] - ends[1], shape[axis] - ends[0]) if flipped else ends
            )
        return Box(tuple(start), tuple(stop))

    def as_seen(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return stored voxels, shape (X, Y, Z[, T]), as the view shows them; no copy."""
        return stored.transpose(self.axes(stored.ndim))[self._steps]

    def as_stored(self, seen: NDArray[Any]) -> NDArray[Any]:
        """Return voxels of the view in their stored order; no copy."""
        return seen[self._steps].transpose(np.argsort(self.axes(seen.ndim)))

    @property
    def _steps(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if flipped else None) for flipped in self.flipped)


def tilt_degrees(affine: NDArray[np.floating], axis: int) -> float:
    """Return the angle between the planes across a voxel axis and the plane of the body that they
    are called after: 0 for a volume along the axes of the body.

    Parameters
    ----------
    affine : ndarray, shape (4, 4)
        Voxel index to RAS+ mm.
    axis : int
        The stored axis that the planes are perpendicular to.
    """
    columns = np.asarray(affine, np.float64)[:3, :3].T
    normal: NDArray[np.float64] = np.cross(columns[axis - 2], columns[axis - 1])
    world, _ = axis_directions(affine)[axis]
    share = abs(normal[world]) / np.linalg.norm(normal)
    return math.degrees(math.acos(min(1.0, float(share))))


def is_beyond(degrees: float) -> bool:
    """Return whether planes tilted so far can no longer be called after the body's."""
    return degrees >= OBLIQUE_DEGREES - _SLACK_DEGREES
