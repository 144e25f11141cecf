"""What a read delivers for voxels that lie outside the volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.geometry.box import Box

PADDING_MODES = ("constant", "edge", "reflect", "symmetric", "wrap")


@dataclass(frozen=True, slots=True)
class Padding:
    """How a box that leaves its volume is filled; the modes mean what they mean in ``numpy.pad``.

    Parameters
    ----------
    mode : {"constant", "edge", "reflect", "symmetric", "wrap"}
        The volume is continued without bound in every direction, so a box may lie anywhere.
    value : float
        Fill of mode "constant", in delivered units (after any rescale, as HU for CT).

    Raises
    ------
    ConfigurationError
        If the mode is not one of these.
    """

    mode: str = "constant"
    value: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in PADDING_MODES:
            raise ConfigurationError(
                f"padding mode must be one of {PADDING_MODES}, got {self.mode!r}"
            )


def source_positions(start: int, stop: int, length: int, mode: str) -> np.ndarray:
    """Return, for each index of ``range(start, stop)``, the index inside the volume it repeats.

    Parameters
    ----------
    start, stop : int
        A half-open range along one axis, which may leave ``range(length)`` on both sides.
    length : int
        Voxels of the volume along the axis, at least 1.
    mode : str
        One of `PADDING_MODES` except "constant", which repeats nothing.

    Returns
    -------
    ndarray of int64, shape (stop - start,), values in ``range(length)``
    """
    index = np.arange(start, stop)
    if mode == "edge":
        return index.clip(0, length - 1)
    if mode == "wrap":
        return index % length
    if mode == "symmetric":
        index = index % (2 * length)
        return np.where(index < length, index, 2 * length - 1 - index)
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    index = index % period
    return np.where(index < length, index, period - index)


def padded_source(box: Box, shape: Sequence[int], mode: str) -> tuple[Box, tuple[np.ndarray, ...]]:
    """Return the box to read, inside the volume, and the positions in it that fill `box`.

    Returns
    -------
    source : Box
        The smallest box inside the volume that holds every voxel needed.
    positions : tuple of ndarray, one per axis
        ``read(source)[numpy.ix_(*positions)]`` has the shape of `box` and is its content.
    """
    per_axis = [
        source_positions(a, b, n, mode) for a, b, n in zip(box.start, box.stop, shape, strict=True)
    ]
    if any(p.size == 0 for p in per_axis):
        raise ShapeError(f"box {box} is empty and has nothing to pad")
    low = tuple(int(p.min()) for p in per_axis)
    high = tuple(int(p.max()) + 1 for p in per_axis)
    return Box(low, high), tuple(p - a for p, a in zip(per_axis, low, strict=True))
