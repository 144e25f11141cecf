"""The contact sheet: one image a subject, with its mask, and marks that become a column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from radiobject._types import OBS_ID
from radiobject.edit.subject_values import set_values
from radiobject.exceptions import ConfigurationError, StorageError
from radiobject.geometry.box import Box
from radiobject.geometry.plane_views import PlaneView, plane_views
from radiobject.geometry.regrid import BACKGROUND
from radiobject.plane_images import display_window, fitted, gray_levels, png
from radiobject.sampling.labels import delivered_labels, is_foreground
from radiobject.storage.io import layout
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.reader import read_into
from radiobject.storage.schema import dataset
from radiobject.viewer.catalog import Catalog
from radiobject.viewer.planes import read_plane

_SIDE = 120
"""Pixels of the longest side of the three planes."""
_GAP = 4
_OPACITY = 0.45
_COLOURS = np.array(
    [
        [255, 92, 92], [88, 183, 255], [120, 220, 120], [255, 196, 84], [200, 130, 255],
        [80, 220, 210], [255, 140, 60], [255, 130, 190], [170, 200, 80], [140, 150, 255],
        [230, 220, 130], [120, 190, 160],
    ],
    np.float64,
)  # fmt: skip
"""Those of the page, `plane.js`."""

Plane = tuple[PlaneView, npt.NDArray[Any], npt.NDArray[Any] | None]


class Sheet:
    """Images and marks of the subjects of a catalog.

    Parameters
    ----------
    catalog : Catalog
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def image(self, subject: str, collection: str, window: tuple[float, float] | None) -> bytes:
        """Return the three planes of a subject's first volume in a collection, as PNG.

        The planes are those with most of the mask in them, or the middle ones.

        Raises
        ------
        KeyError
            If the subject has no volume there.
        """
        volumes = self._catalog.subject(subject)["volumes"]
        obs_id = next((v[OBS_ID] for v in volumes if v["collection"] == collection), None)
        if obs_id is None:
            raise KeyError(f"subject {subject!r} has no volume in {collection!r}")
        volume = self._catalog.volume(collection, obs_id)
        locator = self._catalog.locate(collection, obs_id)
        overlay = next(iter(volume["overlays"]), None)
        place = None
        if overlay is not None:
            place = self._catalog.locate(overlay["collection"], overlay[OBS_ID])
        planes = _planes(locator, np.array(volume["affine"]), place)
        low, high = window or display_window([plane for _, plane, _ in planes])
        return png(_composed(planes, low, high))

    def marks(self, column: str) -> list[str]:
        """Return the subjects that a column of booleans marks; none where it is not there."""
        table = self._catalog.subject_table()
        if column not in table or table[column].dtype.name not in ("bool", "boolean"):
            return []
        chosen = table[column].fillna(False).astype(bool)
        return table[layout.SUBJECT_ID][chosen].tolist()

    def store(self, column: str, marked: Sequence[str], seen: Sequence[str]) -> dict[str, Any]:
        """Commit the marks: true for the subjects marked, false for the others that were seen.

        Raises
        ------
        ConfigurationError
            If the column has no name.
        ViewError
            If a selection or an older state is shown.
        SchemaError
            If the column holds something else, or is kept by the store.
        """
        if not column.strip():
            raise ConfigurationError("name the column of the marks")
        self._catalog.refuse_change()
        data = dataset.open_dataset(self._catalog.uri)
        if not isinstance(data, dataset.DatasetStore):
            raise StorageError("a data set of 0.1 takes no marks: upgrade it first")
        ids = sorted({*marked, *seen})
        chosen = set(marked)
        values = [subject in chosen for subject in ids]
        done = set_values(data, {layout.SUBJECT_ID: ids, column.strip(): values})
        self._catalog.reopen()
        return {"marked": len(chosen), "seen": len(ids), "values": done.values}


def _planes(
    locator: VolumeLocator, affine: npt.NDArray[np.float64], mask: VolumeLocator | None
) -> list[Plane]:
    shape = locator.shape
    labels = None
    if mask is not None:
        labels = np.empty(mask.shape, mask.numpy_dtype)
        read_into(mask, Box.whole(mask.shape), labels)
        labels = delivered_labels(labels, mask.rescale)
        labels = np.where(is_foreground(labels), labels, BACKGROUND)
    planes: list[Plane] = []
    for view in plane_views(shape, affine):
        index = shape[view.axis] // 2
        others = tuple(axis for axis in range(3) if axis != view.axis)
        if labels is not None:
            counts = np.count_nonzero(labels, axis=others)
            index = int(counts.argmax()) if counts.any() else index
        part = None if labels is None else view.turned(labels.take(index, view.axis))
        planes.append((view, view.turned(read_plane(locator, view.axis, index)), part))
    return planes


def _composed(planes: Sequence[Plane], low: float, high: float) -> npt.NDArray[np.uint8]:
    scale = _SIDE / max(side for view, _, _ in planes for side in view.size_mm)
    tiles = []
    for view, plane, labels in planes:
        width, height = (max(1, round(side * scale)) for side in view.size_mm)
        gray = fitted(gray_levels(plane, low, high), width, height)
        colour = np.repeat(gray[..., None], 3, axis=2).astype(np.float64)
        if labels is not None:
            values = fitted(labels, width, height).astype(np.int64)
            inside = values != 0
            tint = _COLOURS[(values[inside] - 1) % len(_COLOURS)]
            colour[inside] = (1 - _OPACITY) * colour[inside] + _OPACITY * tint
        tile = np.zeros((_SIDE, width, 3), np.uint8)
        top = (_SIDE - height) // 2
        tile[top : top + height] = colour.astype(np.uint8)
        tiles += [tile, np.zeros((_SIDE, _GAP, 3), np.uint8)]
    return np.concatenate(tiles[:-1], axis=1)
