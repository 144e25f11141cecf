"""What the page shows of a data set beside voxels: subjects, rows, and volumes described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any, cast

import numpy as np

from radiobject._types import OBS_ID, OBS_IDS
from radiobject.geometry.corners import SAME_PLACE_MM, corner_distance_mm
from radiobject.geometry.orientation import axis_codes, spacing_mm
from radiobject.geometry.plane_views import plane_views
from radiobject.jsonable import plain
from radiobject.lazy import pd
from radiobject.radi_object import RadiObject
from radiobject.sampling.labels import MAX_CLASSES, delivered_labels
from radiobject.storage.io.layout import base_name
from radiobject.storage.read.locator import VolumeLocator
from radiobject.viewer.planes import read_plane, wire_dtype
from radiobject.viewer.tiles import tile_index_of
from radiobject.volume_collection import VolumeCollection

_ALIKE = 0.5
"""Share of labelled voxels whose neighbour is the same; an 8-bit image has far fewer."""
_MANY, _SMALL_STEP = 24, 4
"""An image has more values than this, and most of its steps are no larger."""
_AIR_HU, _BONE_HU = -900, 300
_CT_SERIES = frozenset(["CT", "HRCT", "CTA", "CTPA"])
_LABEL_KINDS = "biu"
_KEPT_LOCATORS = 1024


class Catalog:
    """Answers about one data set, as it was when it was opened.

    Parameters
    ----------
    radi : RadiObject
        The data set, or a selection of it.
    """

    def __init__(self, radi: RadiObject) -> None:
        self._radi = radi
        # A slice must not read the table again to find its volume.
        self._located = lru_cache(_KEPT_LOCATORS)(self._locate)

    @property
    def uri(self) -> str:
        """Where the data set lies."""
        return self._radi._uri

    def subject_table(self) -> pd.DataFrame:
        """Return the rows of all subjects."""
        return self._radi.obs_meta.read()

    def refuse_change(self) -> None:
        """Raise a ViewError where a selection or an older state is shown."""
        self._radi._require_root("storing marks")

    def reopen(self) -> None:
        """Show what is committed now."""
        self._radi = RadiObject(self.uri)
        self._located.cache_clear()

    def overview(self) -> dict[str, Any]:
        """Return name, size and columns of the data set."""
        radi = self._radi
        return {
            "name": base_name(radi._uri),
            "subjects": len(radi),
            "collections": [
                {"name": name, "volumes": len(radi.collection(name))}
                for name in radi.collection_names
            ],
            "columns": [name for name in radi.obs_meta.columns if name != OBS_IDS],
        }

    def subjects(
        self, *, expression: str = "", text: str = "", offset: int = 0, limit: int = 200
    ) -> dict[str, Any]:
        """Return a page of the subjects that match a filter expression and hold `text`.

        Raises
        ------
        ValueError
            If the expression is not one.
        """
        chosen = self._radi.filter(expression) if expression.strip() else self._radi
        wanted = text.strip().casefold()
        ids = [i for i in chosen.obs_subject_ids if wanted in i.casefold()]
        return {"total": len(ids), "offset": offset, "ids": ids[offset : offset + limit]}

    def subject(self, subject_id: str) -> dict[str, Any]:
        """Return a subject's row and volumes; KeyError if unknown."""
        one = self._radi.loc[[subject_id]]
        row = one.obs_meta.read().iloc[0].drop(OBS_IDS, errors="ignore")
        volumes = [
            {"collection": name, OBS_ID: obs_id}
            for name in one.collection_names
            for obs_id in one.collection(name).obs_ids
        ]
        return {"id": subject_id, "row": plain(row.to_dict()), "volumes": volumes}

    def locate(self, collection: str, obs_id: str) -> VolumeLocator:
        """Return where a volume's voxels are; KeyError if there is none of that name."""
        return self._located(collection, obs_id)

    def _locate(self, collection: str, obs_id: str) -> VolumeLocator:
        return self._radi.collection(collection).locate(obs_id)

    def volume(self, collection: str, obs_id: str) -> dict[str, Any]:
        """Return all that the page needs to show a volume; KeyError if there is none."""
        volumes = self._radi.collection(collection)
        one = cast(VolumeCollection, volumes.loc[[obs_id]])
        locator = self.locate(collection, obs_id)
        affine = one.affines()[0]
        row = one.to_obs().iloc[0].drop(["affine_json"], errors="ignore")
        return {
            "collection": collection,
            OBS_ID: obs_id,
            "subject": one.subject_ids[0],
            "shape": locator.shape,
            "dtype": locator.dtype,
            "wire": wire_dtype(locator).name,
            "spacing": spacing_mm(affine),
            "axcodes": "".join(axis_codes(affine)),
            "affine": affine.tolist(),
            "planes": [asdict(view) for view in plane_views(locator.shape, affine)],
            "row": plain(row.to_dict()),
            "tiling": _tiling(locator),
            "shows": "CT" if _is_ct(locator, row.to_dict()) else None,
            "overlays": self._overlays(one.subject_ids[0], locator, affine),
        }

    def _overlays(
        self, subject: str, locator: VolumeLocator, affine: np.ndarray
    ) -> list[dict[str, Any]]:
        """Return the subject's label masks on the same grid."""
        found = []
        one = self._radi.loc[[subject]]
        for name in one.collection_names:
            volumes = one.collection(name)
            for other, place in zip(volumes.locators(), volumes.affines(), strict=True):
                shape = locator.shape[:3]
                apart = corner_distance_mm(place[None], affine[None], np.array([shape]))
                same = other.shape[:3] == shape and apart[0] <= SAME_PLACE_MM
                if not same or other.uri == locator.uri:
                    continue
                names = {str(value): text for value, text in volumes.label_names.items()}
                if names or _may_be_labels(other):
                    found.append({"collection": name, OBS_ID: other.obs_id, "names": names})
        return found


def _is_ct(locator: VolumeLocator, row: Mapping[Any, Any]) -> bool:
    """Return whether values are HU: by the row, or since they reach from air to bone."""
    modality = row.get("modality")
    if isinstance(modality, str) and modality:
        return modality == "CT"
    if row.get("series_type") in _CT_SERIES:
        return True
    index = tile_index_of(locator)
    if index is None or not index.minimum.size or row.get("series_type") not in (None, "unknown"):
        return False
    ends = np.array([index.minimum.min(), index.maximum.max()], np.float64)
    slope, intercept = locator.rescale or (1.0, 0.0)
    low, high = sorted((ends * slope + intercept).tolist())
    return low <= _AIR_HU and high >= _BONE_HU


def _may_be_labels(locator: VolumeLocator) -> bool:
    """Return whether a volume can be a label mask: 3-D, few whole numbers in connected regions."""
    stored = locator.numpy_dtype
    if stored.kind not in _LABEL_KINDS or len(locator.shape) != 3:
        return False
    index = tile_index_of(locator)
    if index is None or not index.minimum.size:
        return False
    ends = np.array([index.minimum.min(), index.maximum.max()])
    low, high = sorted(delivered_labels(ends, locator.rescale).tolist())
    return low >= 0 and high <= MAX_CLASSES and _in_regions(locator)


@lru_cache(_KEPT_LOCATORS)
def _in_regions(locator: VolumeLocator) -> bool:
    """Return whether the middle planes hold whole numbers, most of them beside their like."""
    alike = labelled = small = 0
    distinct: set[float] = set()
    for axis, side in enumerate(locator.shape[:3]):
        values = read_plane(locator, axis, side // 2, labels=True)
        if values.dtype.kind == "f" and (values % 1).any():
            return False
        inside = values[:, :-1] != 0
        labelled += int(inside.sum())
        steps = np.abs(np.diff(values.astype(np.float64), axis=1))[inside]
        alike += int((steps == 0).sum())
        small += int(((steps > 0) & (steps <= _SMALL_STEP)).sum())
        distinct.update(np.unique(values).tolist())
    # Neighbours in an image of 8 bits differ by a little; classes have no order.
    smooth = len(distinct) > _MANY and small > _ALIKE * (labelled - alike)
    return alike >= _ALIKE * labelled and not smooth


def _tiling(locator: VolumeLocator) -> dict[str, Any] | None:
    index = tile_index_of(locator)
    if index is None:
        return None
    return {
        "extents": index.tiling.extents,
        "n_tiles": index.tiling.count,
        "n_constant": int(np.count_nonzero(index.constant)),
        "filters": index.filters,
        "compressed_bytes": index.file_size,
        "minimum": plain(index.minimum.min()) if index.minimum.size else None,
        "maximum": plain(index.maximum.max()) if index.maximum.size else None,
    }
