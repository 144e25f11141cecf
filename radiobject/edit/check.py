"""Proof that a store is whole: rows, ids, arrays and voxels agree."""

from __future__ import annotations

import json
import warnings
from collections import Counter

import numpy as np

from radiobject.exceptions import AlignmentError
from radiobject.indexing import shortened
from radiobject.storage.io import files, layout
from radiobject.storage.read import reader
from radiobject.storage.schema.collection import CollectionStore
from radiobject.storage.schema.dataset import DatasetStore
from radiobject.storage.schema.description import describe_volume
from radiobject.storage.schema.legacy import LegacyCollectionStore, LegacyDatasetStore


def validate_collection(store: CollectionStore, *, checksums: bool = False) -> None:
    """Raise an `AlignmentError` unless every row has its volume and ids are unique.

    A sound collection of 0.1.x passes, with a warning that says what its layout lacks.
    """
    if isinstance(store, LegacyCollectionStore):
        _validate_legacy_arrays(store)
    rows = store.rows
    repeated = [obs_id for obs_id, n in Counter(rows.obs_ids.tolist()).items() if n > 1]
    if repeated:
        raise AlignmentError(f"{store.uri} has several volumes called {shortened(repeated)}")
    folder = layout.join(store.uri, layout.VOLUMES)
    present = {layout.base_name(entry) for entry in files.list_folder(folder)}
    missing = [
        obs_id
        for obs_id, array in zip(rows.obs_ids, rows.arrays, strict=True)
        if array not in present
    ]
    if missing:
        raise AlignmentError(f"{store.uri} has rows without a volume: {shortened(missing)}")
    for row in range(len(rows)):
        _validate_volume(store, row, checksums)


def _validate_volume(store: CollectionStore, row: int, checksums: bool) -> None:
    locator = store.locators(np.asarray([row], dtype=np.intp))[0]
    found = describe_volume(locator.uri)
    expected = (locator.obs_id, locator.shape, locator.numpy_dtype)
    if (found.obs_id, found.shape, found.dtype) != expected:
        raise AlignmentError(
            f"the row of {locator.label} says {expected[1:]}, its array at {locator.uri} says "
            f"{found.obs_id!r}, {found.shape}, {found.dtype}"
        )
    reader.verify(locator) if checksums else reader.probe(locator)


def _validate_legacy_arrays(store: LegacyCollectionStore) -> None:
    nameless = [array.uri for array in store.arrays if array.obs_id is None]
    if nameless:
        raise AlignmentError(f"arrays without an obs_id in their metadata: {shortened(nameless)}")
    listed = set(store.rows.obs_ids)
    extra = [array.obs_id for array in store.arrays if array.obs_id not in listed]
    if extra:
        raise AlignmentError(f"{store.uri} has volumes without a row: {shortened(extra)}")
    bare = [array.obs_id for array in store.arrays if array.affine is None]
    without = f"; no affine for {shortened(bare)}" if bare else ""
    warnings.warn(
        f"{store.uri} has the layout of RadiObject 0.1: no commits, no tile index, geometry as "
        f"text only{without}; RadiObject.upgrade(new_uri) writes the new form",
        stacklevel=3,
    )


def validate_dataset(store: DatasetStore | LegacyDatasetStore, *, checksums: bool = False) -> None:
    """Raise an `AlignmentError` unless subjects, ids and all collections agree."""
    expected: dict[str, list[str]] = {subject: [] for subject in store.subject_ids}
    seen: dict[str, str] = {}
    for name in store.names:
        collection = store.collection(name)
        validate_collection(collection, checksums=checksums)
        rows = collection.rows
        for subject, obs_id in zip(rows.subject_ids, rows.obs_ids, strict=True):
            if subject not in expected:
                raise AlignmentError(
                    f"volume {obs_id!r} of {name!r} belongs to subject {subject!r}, which has no "
                    "row in obs_meta"
                )
            if obs_id in seen:
                raise AlignmentError(
                    f"volume id {obs_id!r} is in the collections {seen[obs_id]!r} and {name!r}"
                )
            seen[obs_id] = name
            expected[subject].append(obs_id)
    if isinstance(store, DatasetStore):
        _validate_counts(store, len(seen))
    if layout.OBS_IDS in store.obs_meta.schema()[1]:
        _validate_obs_ids(store, expected)


def _validate_counts(store: DatasetStore, n_volumes: int) -> None:
    found, committed = (len(store.subject_ids), n_volumes), store.state
    if found != (committed.n_subjects, committed.n_volumes):
        raise AlignmentError(
            f"{store.uri} was committed with {committed.n_subjects} subjects and "
            f"{committed.n_volumes} volumes, found {found[0]} and {found[1]}"
        )


def _validate_obs_ids(
    store: DatasetStore | LegacyDatasetStore, expected: dict[str, list[str]]
) -> None:
    table = store.obs_meta.read([layout.OBS_IDS])
    listed = table[layout.OBS_IDS].to_list()
    for subject, text in zip(table[layout.SUBJECT_ID].values, listed, strict=True):
        if json.loads(text or "[]") != sorted(expected[subject]):
            raise AlignmentError(
                f"obs_meta lists the volumes {text} for subject {subject!r}, the collections "
                f"have {sorted(expected[subject])}"
            )
