"""The voxels of a plane, as the page is sent them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from radiobject.exceptions import BoundsError
from radiobject.geometry.box import Box
from radiobject.sampling.labels import delivered_labels
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.reader import read_into

_WIRE = frozenset(["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])


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
