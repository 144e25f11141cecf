"""The arrays of a sample, and the reads that fill those of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.geometry.box import Box
from radiobject.geometry.gather import BFLOAT16
from radiobject.geometry.padding import Padding
from radiobject.geometry.ras_view import RasView
from radiobject.ml.datasets.plan import SamplePlan
from radiobject.ml.datasets.source import VolumeTable
from radiobject.storage.read.reader import ReadRequest

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Field:
    """One array of a sample: its channels, each a table of volumes in the order of the dataset."""

    name: str
    channels: tuple[VolumeTable, ...]
    dtype: np.dtype
    pad: Padding | None
    narrow: bool = False
    """Whether it is read as float32 and delivered as bfloat16."""

    @property
    def delivered(self) -> str:
        """Name of the type that is delivered; see `radiobject.geometry.gather`."""
        return BFLOAT16 if self.narrow else str(self.dtype.name)

    @property
    def ndim(self) -> int:
        """Axes of the volumes, 3 or 4."""
        return int(self.channels[0].shapes.shape[1])


def read_requests(
    fields: Sequence[Field],
    plan: SamplePlan,
    side: tuple[int, ...],
    arrays: Arrays,
    slice_axis: int | None = None,
    views: Sequence[RasView] | None = None,
) -> list[ReadRequest]:
    """Return the reads that fill the arrays of a batch.

    Parameters
    ----------
    fields : sequence of Field
    plan : SamplePlan
    side : tuple of int
        Sides of every box.
    arrays : mapping of str to ndarray, shape (samples, channels, ...)
    slice_axis : int, optional
        The axis of length 1 that the arrays leave out.
    views : sequence of RasView, length of the volumes, optional
        The views that the plan's boxes are counted in; else they are counted as stored.
    """
    starts, rows = plan.start.tolist(), plan.volume.tolist()
    stops = (plan.start + np.array(side)).tolist()
    requests = []
    for field in fields:
        given, axes = arrays[field.name], field.ndim
        if slice_axis is not None:
            given = np.expand_dims(given, 2 + slice_axis)
        for i, row in enumerate(rows):
            box = Box(tuple(starts[i][:axes]), tuple(stops[i][:axes]))
            for c, table in enumerate(field.channels):
                where, out = box, given[i, c]
                if views is not None:
                    where = views[row].stored_box(box, table.shapes[row].tolist())
                    out = views[row].as_stored(out)
                regrid = None if table.regrids is None else table.regrids[row]
                locator, rescale = table.locators[row], table.rescales[row]
                requests.append(ReadRequest(locator, where, out, field.pad, rescale, regrid))
    return requests
