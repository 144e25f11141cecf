"""The three planes of a volume: which way they are shown, and their voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radiobject.exceptions import BoundsError
from radiobject.geometry.box import Box
from radiobject.geometry.orientation import WORLD_LETTERS, axis_directions, spacing_mm
from radiobject.sampling.labels import delivered_labels
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.reader import read_into

_RIGHT, _FRONT, _HEAD = range(3)
# World axis that a plane is perpendicular to, and the world axes that run right and up on screen.
_VIEWS = {
    "axial": (_HEAD, (_RIGHT, -1), (_FRONT, 1)),
    "coronal": (_FRONT, (_RIGHT, -1), (_HEAD, 1)),
    "sagittal": (_RIGHT, (_FRONT, -1), (_HEAD, 1)),
}
_WIRE = frozenset(["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])


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
    """

    name: str
    axis: int
    across: int
    down: int
    flip_across: bool
    flip_down: bool
    letters: dict[str, str]
    size_mm: tuple[float, float]


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
            )
        )
    return views


def wire_dtype(locator: VolumeLocator) -> np.dtype:
    """Return the type in which the browser gets the voxels: the volume's own where it has it."""
    if locator.rescale is not None:
        return np.dtype("float32")
    stored = locator.numpy_dtype
    if stored == np.bool_:
        return np.dtype("uint8")
    return stored if stored.name in _WIRE else np.dtype("float64")


def read_plane(
    locator: VolumeLocator, axis: int, index: int, t: int = 0, *, labels: bool = False
) -> npt.NDArray[Any]:
    """Return one plane of a volume in its units, its two axes in the order of the volume's.

    With `labels`, values that rounding alone made uneven are whole: see `delivered_labels`.

    Raises
    ------
    BoundsError
        If there is no such axis, plane or time point.
    """
    shape = locator.shape
    times = shape[3] if len(shape) == 4 else 1
    if axis not in (0, 1, 2) or not 0 <= index < shape[axis] or not 0 <= t < times:
        raise BoundsError(
            f"plane {index} of axis {axis} at time {t} is outside volume {locator.label} of shape "
            f"{shape}"
        )
    start, stop = [0, 0, 0, t], [*shape[:3], t + 1]
    start[axis], stop[axis] = index, index + 1
    box = Box(tuple(start[: len(shape)]), tuple(stop[: len(shape)]))
    if labels and locator.rescale is not None:
        stored = np.empty(box.shape, locator.numpy_dtype)
        read_into(locator, box, stored)
        out = delivered_labels(stored, locator.rescale)
    else:
        out = np.empty(box.shape, wire_dtype(locator))
        read_into(locator, box, out, rescale=locator.units)
    return out.reshape([n for other, n in enumerate(shape[:3]) if other != axis])
