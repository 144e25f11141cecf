"""From the samples of a batch to the plan of a gather, for one channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from radiobject.geometry.gather import GatherPlan, can_gather
from radiobject.geometry.padding import Padding
from radiobject.geometry.ras_view import RasView
from radiobject.geometry.rescale import Rescale
from radiobject.ml.datasets.source import VolumeTable
from radiobject.ml.device.homes import Place
from radiobject.storage.read.locator import VolumeLocator

_UNKNOWN, _NEVER = -1, -2


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
        scales = [rescale or Rescale() for rescale in table.rescales]
        self._slope = np.array([s.slope for s in scales])
        self._intercept = np.array([s.intercept for s in scales])
        self._scaled = np.array([rescale is not None for rescale in table.rescales])
        self._shape = np.array([locator.shape for locator in table.locators], np.int64)
        steps = np.cumprod(self._shape[:, :0:-1], axis=1)[:, ::-1]
        self._stride = np.concatenate((steps, np.ones_like(self._shape[:, :1])), axis=1)
        self._first = np.zeros(len(table), np.int64)
        if views is not None:
            self._see(views)
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
        self._shape = np.take_along_axis(self._shape, order, axis=1)
        stride = np.take_along_axis(self._stride, order, axis=1)
        self._first = (back * (self._shape - 1) * stride).sum(axis=1)
        self._stride = np.where(back, -stride, stride)

    def forget(self) -> None:
        """Find every volume afresh."""
        self._memory[:] = _UNKNOWN
        for row, locator in enumerate(self._table.locators):
            resampled = self._table.regrids is not None and self._table.regrids[row] is not None
            scaled = bool(self._scaled[row])
            possible = can_gather(locator.numpy_dtype, self._delivered, scaled=scaled)
            if resampled or not possible or not self._gathers or self._table.is_missing(row):
                self._memory[row] = _NEVER

    def find(
        self, volumes: NDArray[np.int64], where: Callable[[VolumeLocator], Place | None]
    ) -> NDArray[np.int64]:
        """Return the memory that each volume lies in, negative where it cannot be gathered."""
        found: NDArray[np.int64] = self._memory[volumes]
        unknown = found == _UNKNOWN
        if not unknown.any():
            return found
        for row in np.unique(volumes[unknown]).tolist():
            place = where(self._table.locators[row])
            if place is not None:
                self._memory[row], self._base[row] = place
        return self._memory[volumes]

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
        made = []
        kinds = self._type[volumes]
        for kind, stored in enumerate(self._types):
            chosen = slice(None) if len(self._types) == 1 else np.flatnonzero(kinds == kind)
            some = volumes[chosen]
            if len(some):
                made.append(
                    GatherPlan(
                        stored,
                        self._delivered,
                        side,
                        self._pad,
                        rows[chosen],
                        self._memory[some],
                        self._base[some] + self._first[some] * stored.itemsize,
                        self._stride[some],
                        self._shape[some],
                        starts[chosen],
                        self._slope[some],
                        self._intercept[some],
                        self._scaled[some],
                    )
                )
        return made
