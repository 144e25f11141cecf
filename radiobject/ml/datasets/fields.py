"""The arrays of a sample, and the reads that fill those of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.geometry.box import Box
from radiobject.geometry.coarsen import SPATIAL_AXES, Coarsen
from radiobject.geometry.gather import BFLOAT16
from radiobject.geometry.padding import Padding
from radiobject.geometry.ras_view import RasView
from radiobject.ml.datasets.plan import SamplePlan
from radiobject.ml.datasets.source import VolumeTable
from radiobject.storage.read.convert import Copies
from radiobject.storage.read.reader import ReadRequest, read_batch, read_warm

Arrays = Mapping[str, NDArray[Any]]
Sides = tuple[int, ...]


@cache
def _name_of(dtype: np.dtype) -> str:
    """Return a type's name, which NumPy puts together anew each time."""
    return str(dtype.name)


@dataclass(frozen=True, eq=False)
class Field:
    """One array of a sample: its channels, each a table of volumes in the order of the dataset."""

    name: str
    channels: tuple[VolumeTable, ...]
    dtype: np.dtype
    pad: Padding | None
    narrow: bool = False
    """Whether it is read as float32 and delivered as bfloat16."""
    labels: bool = False
    """Whether it holds label values, which are never mixed."""
    coarsen: Coarsen | None = None
    """What makes it coarser than the volumes."""
    neighbours: int = 0
    """Slices before and after that are channels, too."""
    fills: tuple[float, ...] = ()
    """Value of each channel where there is no volume."""

    @property
    def delivered(self) -> str:
        """Name of the type that is delivered; see `radiobject.geometry.gather`."""
        return BFLOAT16 if self.narrow else _name_of(self.dtype)

    @property
    def ndim(self) -> int:
        """Axes of the volumes, 3 or 4."""
        return int(self.channels[0].shapes.shape[1])

    @property
    def can_be_gathered(self) -> bool:
        """Whether a device can make it of volumes in memory; else it is read and copied."""
        return self.coarsen is None and self.neighbours == 0

    def side(self, side: Sides, slice_axis: int | None) -> Sides:
        """Return the sides that are delivered of a box, with all slices."""
        sides = list(side[: self.ndim])
        if slice_axis is not None:
            sides[slice_axis] = 1 + 2 * self.neighbours
        return tuple(sides)

    def shape(self, side: Sides, slice_axis: int | None) -> Sides:
        """Return the shape of a sample's array: channels, then sides without that of slices."""
        kept = (n for axis, n in enumerate(side[: self.ndim]) if axis != slice_axis)
        return (len(self.channels) * (1 + 2 * self.neighbours), *kept)

    def boxes(
        self, starts: NDArray[np.int64], side: Sides, slice_axis: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return first voxel and one past the last of what is read for boxes of the plan."""
        first = starts[:, : self.ndim].copy()
        sides = np.array(self.side(side, slice_axis))
        if slice_axis is not None:
            first[:, slice_axis] -= self.neighbours
        if self.coarsen is not None:
            spatial = sides[:SPATIAL_AXES]
            first[:, :SPATIAL_AXES] -= spatial * (self.coarsen.factor - 1) // 2
            sides = np.array(self.coarsen.fine_shape(tuple(sides.tolist())))
        return first, first + sides

    def channel_arrays(self, array: NDArray[Any], slice_axis: int | None) -> NDArray[Any]:
        """Return an array of the batch, shape (n, channels, *side), with the axis of slices."""
        if slice_axis is None:
            return array
        apart = array.reshape(
            len(array), len(self.channels), 1 + 2 * self.neighbours, *array.shape[2:]
        )
        return np.moveaxis(apart, 2, 2 + slice_axis)


def coarser(field: Field, factor: int) -> Field:
    """Return a field as it is at another resolution, under a name of its own."""
    if factor == 1:
        return field
    return replace(
        field, name=f"{field.name}_x{factor}", coarsen=Coarsen(factor, nearest=field.labels)
    )


def read_requests(
    fields: Sequence[Field],
    plan: SamplePlan,
    side: Sides,
    arrays: Arrays,
    slice_axis: int | None = None,
    views: Sequence[RasView] | None = None,
) -> list[ReadRequest]:
    """Return the reads that fill the arrays of a batch.

    Parameters
    ----------
    fields : sequence of Field
        What a batch has of voxels.
    plan : SamplePlan
        Which volumes are read, and where.
    side : tuple of int
        Sides of every box.
    arrays : mapping of str to ndarray, shape (samples, channels, ...)
        Where the voxels of each field go; filled when the requests are carried out.
    slice_axis : int, optional
        The axis of slices, which the arrays leave out.
    views : sequence of RasView, length of the volumes, optional
        The views that the plan's boxes are counted in; else they are counted as stored.
    """
    requests = []
    for field, given, first, last in _placed(fields, plan, side, [arrays], slice_axis):
        every = [(i, c) for i in range(len(plan)) for c in range(len(field.channels))]
        requests += _requests(field, plan.volume, first, last, given, every, views)
    return requests


def read_voxels(
    fields: Sequence[Field],
    plan: SamplePlan,
    side: Sides,
    batches: Sequence[Arrays],
    slice_axis: int | None = None,
    views: Sequence[RasView] | None = None,
    *,
    copies: Copies,
) -> None:
    """Fill the arrays of batches: with what is cached by copies, with the rest by requests.

    Parameters are those of `read_requests`, where `plan` is of all `batches` one after the other,
    and `copies`, which the caller makes.
    """
    requests = []
    for field, given, first, last in _placed(fields, plan, side, batches, slice_axis):
        left = []
        for c, table in enumerate(field.channels):
            plain = views is None and field.coarsen is None
            if plain and table.regrids is None and table.missing is None:
                outs = [out[c] for out in given]
                some = _read_warm(table, plan.volume, first, last, outs, copies)
            else:
                some = list(range(len(plan)))
            left += [(i, c) for i in some]
        if left:
            requests += _requests(field, plan.volume, first, last, given, left, views)
    if requests:
        read_batch(requests)


def _placed(
    fields: Sequence[Field],
    plan: SamplePlan,
    side: Sides,
    batches: Sequence[Arrays],
    slice_axis: int | None,
) -> Iterator[tuple[Field, list[NDArray[Any]], NDArray[np.int64], NDArray[np.int64]]]:
    """Yield each field with its samples' arrays by channel, and both corners of its boxes."""
    for field in fields:
        given = [
            sample
            for arrays in batches
            for sample in field.channel_arrays(arrays[field.name], slice_axis)
        ]
        yield field, given, *field.boxes(plan.start, side, slice_axis)


def _read_warm(
    table: VolumeTable,
    volumes: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    outs: Sequence[NDArray[Any]],
    copies: Copies,
) -> list[int]:
    """Read the boxes of a channel that are cached; return which are left.

    Those that leave their volume are left: they are no hot path.
    """
    inside, which = ((first >= 0) & (last <= table.shapes[volumes])).all(axis=1), None
    if not inside.all():
        which = np.flatnonzero(inside)
        volumes, first, last = volumes[which], first[which], last[which]
        outs = [outs[i] for i in which.tolist()]
    rows, locators, rescales = volumes.tolist(), table.locators, table.rescales
    left = read_warm(
        [locators[row] for row in rows],
        first.tolist(),
        last.tolist(),
        outs,
        [rescales[row] for row in rows],
        copies,
    )
    if which is None:
        return left
    return [*np.flatnonzero(~inside).tolist(), *(int(which[n]) for n in left)]


def _requests(
    field: Field,
    volumes: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    given: Sequence[NDArray[Any]],
    wanted: Sequence[tuple[int, int]],
    views: Sequence[RasView] | None,
) -> list[ReadRequest]:
    """Return the reads of some boxes of a field, each a sample and a channel."""
    rows, starts, stops = volumes.tolist(), first.tolist(), last.tolist()
    requests = []
    for i, c in wanted:
        row, table = rows[i], field.channels[c]
        where, out = Box(tuple(starts[i]), tuple(stops[i])), given[i][c]
        if table.is_missing(row):
            requests.append(_nothing(table, row, out, field.fills[c]))
            continue
        if views is not None:
            where = views[row].stored_box(where, table.shapes[row].tolist())
            out = views[row].as_stored(out)
        regrid = None if table.regrids is None else table.regrids[row]
        locator, rescale = table.locators[row], table.rescales[row]
        requests.append(ReadRequest(locator, where, out, field.pad, rescale, regrid, field.coarsen))
    return requests


def _nothing(table: VolumeTable, row: int, out: NDArray[Any], fill: float) -> ReadRequest:
    """Return the read of a box that lies beside a volume, where there is nothing but padding."""
    locator = table.locators[row]
    return ReadRequest(locator, Box.at(locator.shape, out.shape), out, Padding("constant", fill))
