"""Changes of a stored data set other than adding images: each is one commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from radiobject.exceptions import SchemaError
from radiobject.executors import ExecutorLike
from radiobject.rows.indexers import positions_of_ids
from radiobject.rows.pandas_io import plain_rows
from radiobject.sampling import split as plan
from radiobject.sampling.label_names import LabelNames
from radiobject.storage.commits import recovery
from radiobject.storage.io import layout
from radiobject.storage.schema import dataset, maintenance
from radiobject.storage.schema.collection import CollectionStore
from radiobject.storage.schema.dataset import DatasetStore
from radiobject.storage.schema.label_names import write_label_names
from radiobject.storage.schema.splits import SPLIT
from radiobject.storage.tables.columns import TEXT
from radiobject.storage.tables.table import Table


def delete_subjects(data: DatasetStore, subjects: Sequence[str]) -> None:
    """Delete subjects of a data set with all their volumes.

    Raises
    ------
    KeyError
        If a subject is not there; nothing is deleted.
    """
    gone = list(dict.fromkeys(subjects))
    with dataset.changing(data, "delete subjects") as (tx, before):
        positions_of_ids(layout.SUBJECT_ID, before.position, gone)
        volumes = 0
        for name in before.names:
            store = before.collection(name)
            found = int(np.isin(store.rows.subject_ids.astype(str), gone).sum())
            if found:
                store.obs.delete_keys(layout.SUBJECT_ID, gone, tx.clock.tick())
            volumes += found
        before.obs_meta.delete_keys(layout.SUBJECT_ID, gone, tx.clock.tick())
        dataset.publish(tx, subjects=-len(gone), volumes=-volumes)


def delete_volumes(store: CollectionStore, obs_ids: Sequence[str]) -> None:
    """Delete volumes of a collection.

    Raises
    ------
    KeyError
        If a volume is not there; nothing is deleted.
    """
    gone = list(dict.fromkeys(obs_ids))
    with dataset.changing_collection(store, "delete volumes") as (tx, before, owner):
        rows = positions_of_ids(layout.OBS_ID, before.position, gone)
        before.obs.delete_keys(layout.OBS_ID, gone, tx.clock.tick())
        if owner is not None:
            pairs = zip(before.rows.subject_ids[rows].tolist(), gone, strict=True)
            dataset.change_obs_ids(tx, removed=pairs)
        dataset.publish(tx, volumes=-len(gone))


def rename_collection(data: DatasetStore, old: str, new: str) -> None:
    """Rename a collection of a data set; its volumes keep their ids.

    Raises
    ------
    KeyError
        If there is no collection `old`.
    ValueError
        If there is one called `new`.
    """
    layout.checked_id(new, "a collection's name")
    with dataset.changing(data, f"rename {old} to {new}") as (tx, before):
        places = before.state.collections
        if old not in places:
            raise KeyError(f"collection {old!r} not found in {tx.uri}")
        if new in places:
            raise ValueError(f"collection {new!r} already exists in {tx.uri}")
        renamed = {new if name == old else name: place for name, place in places.items()}
        dataset.publish(tx, collections=renamed)


def name_labels(store: CollectionStore, names: LabelNames) -> None:
    """Store the names of the labels of a collection."""
    with dataset.changing_collection(store, "name labels") as (tx, _, _):
        write_label_names(store.uri, names, tx.clock.tick())
        dataset.publish(tx)


def split_dataset(
    data: DatasetStore,
    fractions: Mapping[str, float],
    stratify: str | None = None,
    seed: int = 0,
) -> dict[str, str]:
    """Divide the subjects of a data set into parts, and store the part of each.

    Raises
    ------
    ConfigurationError
        If the shares do not sum to 1.
    SchemaError
        If there is no column to stratify by, or the column of parts is not text.
    AlignmentError
        If subjects have a part that is not one of `fractions`.
    """
    with dataset.changing(data, "split") as (tx, before):
        stored = before.subjects.rows
        columns = before.obs_meta.schema()[1]
        if columns.get(SPLIT, TEXT) != TEXT:
            raise SchemaError(
                f"obs_meta has a column {SPLIT!r} of type {columns[SPLIT]}; "
                "the parts of a split are text, so drop it first"
            )
        if stratify is not None and stratify not in columns:
            raise SchemaError(f"obs_meta has no column {stratify!r} to stratify by")
        rows = plain_rows(stored)
        subjects = rows[layout.SUBJECT_ID]
        assigned: Sequence[Any] = rows.get(SPLIT, [None] * len(subjects))
        parts = plan.split_subjects(
            subjects,
            fractions,
            seed,
            strata=None if stratify is None else rows[stratify],
            assigned={s: part for s, part in zip(subjects, assigned, strict=True) if part},
        )
        table = Table(before.obs_meta.uri)
        if SPLIT not in columns:
            table.evolve(add={SPLIT: TEXT}, tick=tx.clock.tick)
        table.write({**rows, SPLIT: list(parts.values())}, tx.clock.tick())
        dataset.publish(tx)
    return parts


def vacuum(
    data: DatasetStore, keep: int = 1, *, executor: ExecutorLike | None = None
) -> dict[str, int]:
    """Forget old states of a data set, and remove what only they had.

    Returns
    -------
    dict
        How many states, volumes and collections were removed.
    """
    with dataset.changing(data, "vacuum") as (tx, _):
        return maintenance.vacuum(tx, keep, executor)


def repair(data: DatasetStore, *, break_lock: bool = False) -> None:
    """Roll back what a dead writer left in a data set."""
    with dataset.changing(data, "repair", break_lock=break_lock) as (tx, _):
        recovery.roll_back(tx.uri, tx.rollback_point, tx.locations, tx.manifest)
