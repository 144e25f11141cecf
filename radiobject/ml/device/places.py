"""From the samples of a batch to the plan of a gather, for one channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from radiobject.geometry.gather import ROW, GatherPlan, can_gather, packed_volumes, parts_of
from radiobject.geometry.padding import Padding
from radiobject.geometry.ras_view import RasView
from radiobject.geometry.rescale import Rescale
from radiobject.ml.datasets.source import VolumeTable
from radiobject.ml.device.decoding import Held
from radiobject.ml.device.homes import Place
from radiobject.storage.read.locator import VolumeLocator

_UNKNOWN, _NEVER = -1, -2
_MOST_LOOKED_FOR = 64


class Places:
    """Where the volumes of a channel lie, as arrays over all of them.

    Parameters
    ----------
    table : VolumeTable
        The volumes whose boxes are gathered.
    delivered : str
        Type wanted; see `radiobject.geometry.gather`.
    pad : Padding, optional
        What lies beyond a volume; without, a box that leaves it is refused.
    views : sequence of RasView, length of the volumes, optional
        The views that boxes are counted in; else they are counted as stored.
    gathers : bool
        Whether boxes can be gathered at all.
    """

    def __init__(
        self,
        table: VolumeTable,
        delivered: str,
        pad: Padding | None,
        views: Sequence[RasView] | None = None,
        *,
        gathers: bool = True,
    ) -> None:
        self._table = table
        self._gathers = gathers
        self._delivered = delivered
        self._pad = pad
        self._scaled = np.array([rescale is not None for rescale in table.rescales])
        self._shape = np.array([locator.shape for locator in table.locators], np.int64)
        steps = np.cumprod(self._shape[:, :0:-1], axis=1)[:, ::-1]
        self._stride = np.concatenate((steps, np.ones_like(self._shape[:, :1])), axis=1)
        self._first = np.zeros(len(table), np.int64)
        self._order: NDArray[np.int64] | None = None
        self._back: NDArray[np.bool_] = np.zeros(self._shape.shape, bool)
        if views is not None:
            self._see(views)
        scales = [rescale or Rescale() for rescale in table.rescales]
        self._packed = packed_volumes(
            self._shape,
            self._stride,
            np.array([s.slope for s in scales]),
            np.array([s.intercept for s in scales]),
            self._scaled,
        )
        names, self._type = np.unique(
            [locator.dtype for locator in table.locators], return_inverse=True
        )
        self._types = [np.dtype(str(name)) for name in names]
        self._base = np.zeros(len(table), np.int64)
        self._memory = np.full(len(table), _UNKNOWN)
        self.forget()

    def _see(self, views: Sequence[RasView]) -> None:
        """Count along the axes of the views: in another order, and backwards where flipped."""
        axes = self._shape.shape[1]
        order = np.array([view.axes(axes) for view in views])
        back = np.zeros_like(order, bool)
        back[:, :3] = [view.flipped for view in views]
        self._order, self._back = order, back
        self._shape = np.take_along_axis(self._shape, order, axis=1)
        stride = np.take_along_axis(self._stride, order, axis=1)
        self._first, self._stride = _seen(self._shape, stride, back)

    def forget(self) -> None:
        """Find every volume afresh."""
        self._memory[:] = _UNKNOWN
        for row, locator in enumerate(self._table.locators):
            resampled = self._table.regrids is not None and self._table.regrids[row] is not None
            scaled = bool(self._scaled[row])
            possible = can_gather(locator.numpy_dtype, self._delivered, scaled=scaled)
            if resampled or not possible or not self._gathers or self._table.is_missing(row):
                self._memory[row] = _NEVER

    def may_be_gathered(self, volumes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which volumes a device could read, if it had them."""
        return self._memory[volumes] != _NEVER

    def find(
        self, volumes: NDArray[np.int64], where: Callable[[VolumeLocator], Place | None]
    ) -> NDArray[np.int64]:
        """Return the memory that each volume lies in, negative where it cannot be gathered."""
        found: NDArray[np.int64] = self._memory[volumes]
        unknown = found == _UNKNOWN
        if not unknown.any():
            return found
        for row in np.unique(volumes[unknown]).tolist():
            self._look(row, where)
        return self._memory[volumes]

    def _look(self, row: int, where: Callable[[VolumeLocator], Place | None]) -> bool:
        """Return whether a volume that was not found before can be gathered now."""
        place = where(self._table.locators[row])
        if place is None:
            return False
        self._memory[row], base = place
        self._base[row] = base + self._first[row] * self._types[self._type[row]].itemsize
        return True

    def has_all(self, where: Callable[[VolumeLocator], Place | None]) -> bool:
        """Return whether every volume can be gathered; few are looked for anew."""
        unknown = np.flatnonzero(self._memory == _UNKNOWN)
        if len(unknown) > _MOST_LOOKED_FOR or (self._memory == _NEVER).any():
            return False
        return all(self._look(row, where) for row in unknown.tolist())

    def plans(
        self,
        volumes: NDArray[np.int64],
        starts: NDArray[np.int64],
        rows: NDArray[np.int64],
        side: tuple[int, ...],
    ) -> list[GatherPlan]:
        """Return the gathers of some boxes, one for each stored type.

        Parameters
        ----------
        volumes : ndarray, shape (n,)
            Rows of volumes that were found.
        starts : ndarray, shape (n, d)
            First voxel of each box; it may lie beyond the volume.
        rows : ndarray, shape (n,)
            Places in the array of the batch.
        side : tuple of int, length d
            Sides of the boxes in voxels.
        """
        if len(self._types) == 1:
            return [self._plan(self._types[0], volumes, starts, rows, side)]
        return [
            self._plan(stored, volumes[chosen], starts[chosen], rows[chosen], side)
            for stored, chosen in self._by_type(volumes)
        ]

    def _by_type(self, volumes: NDArray[np.int64]) -> Iterator[tuple[np.dtype, NDArray[np.int64]]]:
        """Yield each stored type that some volumes have, and which of them have it."""
        kinds = self._type[volumes]
        for kind, stored in enumerate(self._types):
            chosen = np.flatnonzero(kinds == kind)
            if chosen.size:
                yield stored, chosen

    def as_stored(
        self, volumes: NDArray[np.int64], starts: NDArray[np.int64], side: tuple[int, ...]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first voxel of boxes along the axes as stored, and one past their last."""
        first, last = starts, starts + np.array(side)
        if self._order is None:
            return first, last
        back, whole, order = self._back[volumes], self._shape[volumes], self._order[volumes]
        ends = np.where(back, whole - last, first), np.where(back, whole - first, last)
        stored = np.empty_like(first), np.empty_like(last)
        for array, end in zip(stored, ends, strict=True):
            np.put_along_axis(array, order, end, axis=1)
        return stored

    def plans_within(
        self,
        held: Held,
        volumes: NDArray[np.int64],
        starts: NDArray[np.int64],
        rows: NDArray[np.int64],
        side: tuple[int, ...],
    ) -> list[GatherPlan]:
        """Return the gathers of boxes as `plans` does, each out of a part of its volume.

        Parameters
        ----------
        held : Held
            Where the parts lie, each with all that its box has of the volume.
        """
        origin, shape, stride = (
            array[:, : len(side)] for array in (held.origin, held.shape, held.stride)
        )
        whole, back = self._shape[volumes], self._back[volumes]
        if self._order is not None:
            order = self._order[volumes]
            origin, shape, stride = (
                np.take_along_axis(array, order, axis=1) for array in (origin, shape, stride)
            )
        first, stride = _seen(shape, stride, back)
        start = starts - np.where(back, whole - origin - shape, origin)
        made = []
        for stored, chosen in self._by_type(volumes):
            which = volumes[chosen]
            scales = parts_of(self._packed[which], len(side))
            made.append(
                GatherPlan(
                    stored,
                    self._delivered,
                    side,
                    self._pad,
                    rows[chosen],
                    held.memory[chosen],
                    held.base[chosen] + first[chosen] * stored.itemsize,
                    stride[chosen],
                    shape[chosen],
                    start[chosen],
                    scales.slope,
                    scales.intercept,
                    self._scaled[which],
                )
            )
        return made

    def _plan(
        self,
        stored: np.dtype,
        volumes: NDArray[np.int64],
        starts: NDArray[np.int64],
        rows: NDArray[np.int64],
        side: tuple[int, ...],
    ) -> GatherPlan:
        """Return the gather of boxes of volumes of one type: all of it in one array, and views."""
        table = self._packed[volumes]
        table[:, ROW] = rows
        start, shape, stride, slope, intercept = parts_of(table, len(side))
        start[...] = starts
        return GatherPlan(
            stored,
            self._delivered,
            side,
            self._pad,
            rows,
            self._memory[volumes],
            self._base[volumes],
            stride,
            shape,
            start,
            slope,
            intercept,
            self._scaled[volumes],
            table,
        )


def _seen(
    shape: NDArray[np.int64], stride: NDArray[np.int64], back: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, of volumes seen backwards along some axes, the first voxel and the strides."""
    return (back * (shape - 1) * stride).sum(axis=1), np.where(back, -stride, stride)
