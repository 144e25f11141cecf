"""Data sets made of collections that are there already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import pandas as pd

from radiobject.exceptions import AlignmentError
from radiobject.indexing import shortened
from radiobject.rows.pandas_io import frame_rows, frame_schema
from radiobject.storage.commits.head import NAME, OWNER, ROOT, read_head
from radiobject.storage.commits.transaction import Transaction, creation, transaction
from radiobject.storage.io import layout
from radiobject.storage.schema import dataset
from radiobject.storage.tables import groups
from radiobject.transform.jobs import jobs_of, new_ids, own_schema, stream_into
from radiobject.volume_collection import VolumeCollection
from radiobject.writers import RadiObjectWriter, VolumeCollectionWriter

if TYPE_CHECKING:
    from radiobject.radi_object import RadiObject


def write_selection(
    radi: RadiObject, uri: str, *, executor: Executor | None = None, progress: bool = False
) -> RadiObject:
    """Copy the selected subjects and collections to a new data set.

    A subject that was selected twice is written once.
    """
    from radiobject.radi_object import RadiObject

    once = radi if not radi.is_view else radi.loc[list(dict.fromkeys(radi.obs_subject_ids))]
    rows = once.obs_meta.read().drop(columns=[dataset.OBS_IDS])
    schema = {n: d for n, d in once.obs_meta.dtypes.items() if n != dataset.OBS_IDS}
    with RadiObjectWriter(uri, schema) as writer:
        if len(rows):
            writer.write_obs_meta(rows)
        taken: list[str] = []
        for name in once.collection_names:
            target = writer.add_collection(name, None, own_schema(once.collection(name)))
            jobs = jobs_of(once.collection(name))
            ids = new_ids(jobs, name, taken)
            taken += ids
            stream_into(target, jobs, (), obs_ids=ids, executor=executor, progress=progress)
    return RadiObject(uri)


def create_from_collections(
    uri: str,
    collections: Mapping[str, VolumeCollection | str],
    obs_meta: pd.DataFrame | None,
) -> RadiObject:
    """Create a data set; collections that lie below it are linked, the others copied."""
    from radiobject.radi_object import RadiObject

    if not collections:
        raise ValueError("At least one collection is required")
    given = {
        name: vc if isinstance(vc, VolumeCollection) else VolumeCollection(vc)
        for name, vc in collections.items()
    }
    location = layout.normalise_uri(uri)
    subjects = list(dict.fromkeys(s for vc in given.values() for s in vc.subject_ids))
    rows = obs_meta if obs_meta is not None else pd.DataFrame({layout.SUBJECT_ID: sorted(subjects)})
    missing = sorted(set(subjects) - set(rows[layout.SUBJECT_ID]))
    if missing:
        raise AlignmentError(f"subjects in the collections lack a row: {shortened(missing)}")
    rows = rows.drop(columns=[dataset.OBS_IDS], errors="ignore")
    with creation(location, ROOT, "from collections") as tx:
        schema = frame_schema(rows, dataset.META_KEYS)
        dataset.create_obs_meta(location, schema, tx.clock)
        dataset.add_subjects(location, frame_rows(rows), tx.clock)
        places: dict[str, str] = {}
        pairs: list[tuple[str, str]] = []
        for name, vc in given.items():
            places[name] = _bring_in(tx, name, vc, [obs_id for _, obs_id in pairs])
            pairs += volumes_of(layout.located(location, places[name]), tx.timestamp)
        _refuse_repeats([obs_id for _, obs_id in pairs])
        dataset.change_obs_ids(tx, added=pairs)
        dataset.publish(tx, collections=places, subjects=len(rows), volumes=len(pairs))
    return RadiObject(location)


def add_collection(radi: RadiObject, name: str, vc: VolumeCollection) -> None:
    """Do what `RadiObject.add_collection` says."""
    layout.checked_id(name, "a collection's name")
    with radi._change(f"add {name}") as tx:
        if name in radi.collection_names:
            raise ValueError(f"collection {name!r} already exists in {tx.uri}")
        unknown = sorted(set(vc.subject_ids) - set(radi.obs_subject_ids))
        if unknown:
            raise AlignmentError(
                f"subjects without a row in obs_meta: {shortened(unknown)}; append them first"
            )
        place = _bring_in(tx, name, vc, radi.all_obs_ids)
        places = {**radi._store.state.collections, name: place}
        pairs = volumes_of(layout.located(tx.uri, place), tx.timestamp)
        _refuse_repeats([*radi.all_obs_ids, *(obs_id for _, obs_id in pairs)])
        dataset.change_obs_ids(tx, added=pairs)
        dataset.publish(tx, collections=places, volumes=len(pairs))


def volumes_of(uri: str, timestamp: int) -> list[tuple[str, str]]:
    """Return (subject id, volume id) of every volume of a collection at `timestamp`."""
    table = dataset.CollectionStore(uri, timestamp).read()
    columns = (table[layout.SUBJECT_ID].values, table[layout.OBS_ID].values)
    return list(zip(*columns, strict=True))


def _refuse_repeats(obs_ids: Sequence[str]) -> None:
    repeated = [obs_id for obs_id, count in Counter(obs_ids).items() if count > 1]
    if repeated:
        raise AlignmentError(
            f"volume ids used by two collections: {shortened(repeated)}; "
            "write() one of them under another name first"
        )


def _bring_in(tx: Transaction, name: str, vc: VolumeCollection, taken: Sequence[str]) -> str:
    """Link a collection that lies below the data set, or copy it there; return its place.

    A copy's volumes get ids of their own, none of them in `taken`.
    """
    below = layout.parent(vc.uri) == layout.join(tx.uri, layout.COLLECTIONS)
    if below and not vc.is_view and OWNER not in (groups.read_metadata(vc.uri) or {}):
        # Its own lock rolls back what a dead writer left, which this commit would publish.
        with transaction(vc.uri, "link"):
            # The commit must be later than the collection's rows, or they stay invisible.
            tx.clock.now = max(tx.clock.now, read_head(vc.uri).last.timestamp)
        described = {NAME: name, OWNER: "../.."}
        groups.write_metadata(vc.uri, described, tx.clock.tick())
        return f"{layout.COLLECTIONS}/{layout.base_name(vc.uri)}"
    place = dataset.new_collection_location(tx, name)
    uri, schema = layout.join(tx.uri, place), own_schema(vc)
    with VolumeCollectionWriter(uri, None, schema, name).within(tx) as writer:
        jobs = jobs_of(vc)
        stream_into(writer, jobs, (), obs_ids=new_ids(jobs, name, taken))
    return place
