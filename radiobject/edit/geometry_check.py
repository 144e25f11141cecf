"""What of a data set's geometry a person should look at: it is whole, and may still mislead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from radiobject.geometry.corners import SAME_PLACE_MM, corner_distance_mm
from radiobject.geometry.orientation import COSINE_TOLERANCE, axis_codes
from radiobject.indexing import shortened
from radiobject.storage.schema.collection import CollectionStore
from radiobject.storage.schema.dataset import DatasetStore
from radiobject.storage.schema.label_index import label_index_uri
from radiobject.storage.schema.legacy import LegacyDatasetStore
from radiobject.storage.tables.groups import object_kind

_SHOWN = 3
_SOURCE = "orientation_source"
_MASK_TYPES = ("uint8", "bool")


def geometry_findings(store: DatasetStore | LegacyDatasetStore) -> list[str]:
    """Return a line for each thing: mixed axis codes, sheared and unplaced volumes, masks that do
    not lie on their images. An empty list where there is none."""
    collections = {name: store.collection(name) for name in store.names}
    filled = {name: found for name, found in collections.items() if len(found.rows)}
    lines = [line for name, found in filled.items() for line in _of_collection(name, found)]
    masks = [name for name, found in filled.items() if _holds_masks(found)]
    for mask in masks:
        for image in filled:
            if image not in masks:
                lines += _of_pair(image, filled[image], mask, filled[mask])
    return lines


def _of_collection(name: str, store: CollectionStore) -> Iterator[str]:
    rows = store.rows
    codes = Counter("".join(axis_codes(affine)) for affine in rows.affines)
    if len(codes) > 1:
        shares = ", ".join(f"{count} {code}" for code, count in codes.most_common())
        yield f"{name}: axis codes are mixed: {shares}"
    columns = rows.affines[:, :3, :3] / np.linalg.norm(rows.affines[:, :3, :3], axis=1)[:, None]
    cosines = np.abs(np.einsum("nij,nik->njk", columns, columns) - np.eye(3)).max(axis=(1, 2))
    yield from _listed(name, "sheared", rows.obs_ids[cosines > COSINE_TOLERANCE])
    if _SOURCE in store.obs.schema()[1]:
        sources = np.array(store.obs.read([_SOURCE])[_SOURCE].to_list(), object)
        where = "unplaced: their headers say no position, sizes alone"
        yield from _listed(name, where, rows.obs_ids[sources == "identity"])


def _listed(name: str, what: str, ids: Sequence[str]) -> Iterator[str]:
    if len(ids):
        yield f"{name}: {len(ids)} {what}: {shortened(list(ids), _SHOWN)}"


def _holds_masks(store: CollectionStore) -> bool:
    indexed = object_kind(label_index_uri(store.uri)) is not None
    return indexed or set(store.rows.dtypes) <= set(_MASK_TYPES)


def _of_pair(
    image: str, images: CollectionStore, mask: str, masks: CollectionStore
) -> Iterator[str]:
    """Compare the masks of subjects that have one in both collections."""
    here, there = _single(images), _single(masks)
    both = [subject for subject in here if subject in there]
    first = np.array([here[subject] for subject in both], np.intp)
    second = np.array([there[subject] for subject in both], np.intp)
    if not both:
        return
    shapes = images.rows.sides[first, :3].astype(np.int64)
    ids = masks.rows.ids.take(second)
    other = (shapes != masks.rows.sides[second, :3]).any(axis=1)
    yield from _listed(mask, f"of another grid than {image}", ids[other])
    apart: NDArray[np.float64] = corner_distance_mm(
        images.rows.affines_of(first), masks.rows.affines_of(second), shapes
    )
    off = ~other & (apart > SAME_PLACE_MM)
    if off.any():
        yield from _listed(mask, f"off {image} by up to {apart[off].max():.3g} mm", ids[off])


def _single(store: CollectionStore) -> dict[str, int]:
    subjects = store.rows.subject_ids.tolist()
    counts = Counter(subjects)
    return {subject: row for row, subject in enumerate(subjects) if counts[subject] == 1}
