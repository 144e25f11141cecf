"""Changes of a stored data set other than adding images: each is one commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from radiobject.exceptions import SchemaError
from radiobject.rows.pandas_io import plain_rows
from radiobject.sampling import split as plan
from radiobject.storage.commits.transaction import transaction
from radiobject.storage.io import layout
from radiobject.storage.schema import dataset
from radiobject.storage.schema.splits import SPLIT
from radiobject.storage.tables.table import TEXT, Table

if TYPE_CHECKING:
    from radiobject.radi_object import RadiObject
    from radiobject.volume_collection import VolumeCollection


def delete_subjects(radi: RadiObject, subjects: Sequence[str]) -> None:
    """Do what `RadiObject.delete` says."""
    gone = list(dict.fromkeys(subjects))
    with radi._change("delete subjects") as tx:
        radi.loc[gone]
        volumes = 0
        for name in radi.collection_names:
            store = radi._store.collection(name)
            found = int(np.isin(store.rows.subject_ids.astype(str), gone).sum())
            if found:
                store.obs.delete_keys(layout.SUBJECT_ID, gone, tx.clock.tick())
            volumes += found
        radi._store.obs_meta.delete_keys(layout.SUBJECT_ID, gone, tx.clock.tick())
        dataset.publish(tx, subjects=-len(gone), volumes=-volumes)


def delete_volumes(collection: VolumeCollection, obs_ids: Sequence[str]) -> None:
    """Do what `VolumeCollection.delete` says."""
    gone = list(dict.fromkeys(obs_ids))
    owner = dataset.owner_of(collection.uri)
    with transaction(owner, "delete volumes") as tx:
        collection._reopen()
        found: VolumeCollection = collection.loc[gone]  # type: ignore[assignment]
        collection._store.obs.delete_keys(layout.OBS_ID, gone, tx.clock.tick())
        if owner != collection.uri:
            pairs = zip(found.subject_ids, gone, strict=True)
            dataset.change_obs_ids(tx, removed=pairs)
        dataset.publish(tx, volumes=-len(gone))


def rename_collection(radi: RadiObject, old: str, new: str) -> None:
    """Do what `RadiObject.rename_collection` says."""
    layout.checked_id(new, "a collection's name")
    with radi._change(f"rename {old} to {new}") as tx:
        if old not in radi.collection_names:
            raise KeyError(f"collection {old!r} not found in {tx.uri}")
        if new in radi.collection_names:
            raise ValueError(f"collection {new!r} already exists in {tx.uri}")
        places = {
            new if name == old else name: place
            for name, place in radi._store.state.collections.items()
        }
        dataset.publish(tx, collections=places)


def split_dataset(
    radi: RadiObject, fractions: Mapping[str, float], stratify: str | None, seed: int
) -> dict[str, str]:
    """Do what `RadiObject.split` says."""
    with radi._change("split") as tx:
        table = Table(radi._store.obs_meta.uri)
        _, columns = table.schema()
        if columns.get(SPLIT, TEXT) != TEXT:
            raise SchemaError(
                f"obs_meta has a column {SPLIT!r} of type {columns[SPLIT]}; "
                "the parts of a split are text, so drop it first"
            )
        if stratify is not None and stratify not in columns:
            raise SchemaError(f"obs_meta has no column {stratify!r} to stratify by")
        rows = plain_rows(table.read(list(columns)))
        subjects = rows[layout.SUBJECT_ID]
        before: Sequence[Any] = rows.get(SPLIT, [None] * len(subjects))
        parts = plan.split_subjects(
            subjects,
            fractions,
            seed,
            strata=None if stratify is None else rows[stratify],
            assigned={s: part for s, part in zip(subjects, before, strict=True) if part},
        )
        if SPLIT not in columns:
            table.evolve(add={SPLIT: TEXT}, tick=tx.clock.tick)
        table.write({**rows, SPLIT: list(parts.values())}, tx.clock.tick())
        dataset.publish(tx)
    return parts
