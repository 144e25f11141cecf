"""Data sets and collections made of what is there already: selections, collections, arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from radiobject.exceptions import AlignmentError
from radiobject.executors import ExecutorLike
from radiobject.indexing import shortened
from radiobject.lazy import pd
from radiobject.rows.pandas_io import frame_rows, frame_schema
from radiobject.selection import SubjectSelection, VolumeSelection
from radiobject.storage.commits import compaction
from radiobject.storage.commits.head import NAME, OWNER, ROOT, read_head
from radiobject.storage.commits.transaction import Transaction, creation, transaction
from radiobject.storage.io import layout
from radiobject.storage.schema import dataset
from radiobject.storage.schema.dataset import DatasetStore
from radiobject.storage.tables import digests, groups
from radiobject.storage.writers import DatasetWriter, VolumeCollectionWriter
from radiobject.transform.jobs import jobs_of, new_ids, own_schema, stream_into


def write_arrays(
    uri: str,
    volumes: Mapping[tuple[str, str], np.ndarray],
    name: str | None = None,
    affines: Mapping[tuple[str, str], npt.ArrayLike] | None = None,
    obs: pd.DataFrame | None = None,
) -> str:
    """Create a collection from arrays keyed by (subject id, volume id); return its address.

    Raises
    ------
    AlignmentError
        If `obs` has a row that no volume belongs to.
    """
    keys = [layout.SUBJECT_ID, layout.OBS_ID]
    rows = {} if obs is None else obs.set_index(keys).to_dict(orient="index")
    unknown = [key for key in rows if key not in volumes]
    if unknown:
        raise AlignmentError(f"obs has rows without a volume: {shortened(unknown)}")
    with VolumeCollectionWriter(uri, name=name) as writer:
        for (subject, obs_id), data in volumes.items():
            attrs = {str(k): v for k, v in rows.get((subject, obs_id), {}).items()}
            affine = (affines or {}).get((subject, obs_id))
            writer.write_volume(data, obs_id, subject, affine=affine, **attrs)
    return writer.uri


def write_selection(
    selected: SubjectSelection,
    uri: str,
    *,
    executor: ExecutorLike | None = None,
    progress: bool = False,
) -> str:
    """Copy the selected subjects and collections to a new data set; return its address.

    A subject that was selected twice is written once.
    """
    once = selected.once()
    table = once.obs_meta()
    rows = table.read().drop(columns=[layout.OBS_IDS])
    schema = {n: d for n, d in table.dtypes.items() if n != layout.OBS_IDS}
    with DatasetWriter(uri, schema) as writer:
        if len(rows):
            writer.write_subjects(frame_rows(rows))
        taken: list[str] = []
        for name in once.collection_names:
            volumes = once.collection(name)
            target = writer.add_collection(name, None, own_schema(volumes))
            jobs = jobs_of(volumes)
            ids = new_ids(jobs, name, taken)
            taken += ids
            stream_into(target, jobs, (), obs_ids=ids, executor=executor, progress=progress)
            target.name_labels(volumes.store.label_names)
    return writer.uri


def create_from_collections(
    uri: str, collections: Mapping[str, VolumeSelection], obs_meta: pd.DataFrame | None = None
) -> str:
    """Create a data set; collections that lie below it are linked, the others copied.

    Returns
    -------
    str
        Its address.

    Raises
    ------
    ValueError
        If there is no collection.
    AlignmentError
        If a volume's subject has no row in `obs_meta`, or two volumes have one id.
    """
    if not collections:
        raise ValueError("At least one collection is required")
    location = layout.normalise_uri(uri)
    subjects = list(dict.fromkeys(s for given in collections.values() for s in given.subject_ids))
    rows = obs_meta if obs_meta is not None else pd.DataFrame({layout.SUBJECT_ID: sorted(subjects)})
    missing = sorted(set(subjects) - set(rows[layout.SUBJECT_ID]))
    if missing:
        raise AlignmentError(f"subjects in the collections lack a row: {shortened(missing)}")
    rows = rows.drop(columns=[layout.OBS_IDS], errors="ignore")
    with creation(location, ROOT, "from collections") as tx:
        schema = frame_schema(rows, dataset.META_KEYS)
        dataset.create_obs_meta(location, schema, tx.clock)
        dataset.add_subjects(location, frame_rows(rows), tx.clock)
        places: dict[str, str] = {}
        pairs: list[tuple[str, str]] = []
        for name, given in collections.items():
            places[name] = _bring_in(tx, name, given, [obs_id for _, obs_id in pairs])
            pairs += volumes_of(layout.located(location, places[name]), tx.timestamp)
        _refuse_repeats([obs_id for _, obs_id in pairs])
        dataset.change_obs_ids(tx, added=pairs)
        dataset.publish(tx, collections=places, subjects=len(rows), volumes=len(pairs))
    return location


def add_collection(data: DatasetStore, name: str, given: VolumeSelection) -> None:
    """Make a collection part of a data set: linked if it lies below it, else copied.

    Raises
    ------
    ValueError
        If there is a collection of that name.
    AlignmentError
        If a volume belongs to a subject without a row in obs_meta, or an id is taken.
    """
    layout.checked_id(name, "a collection's name")
    with dataset.changing(data, f"add {name}") as (tx, before):
        if name in before.names:
            raise ValueError(f"collection {name!r} already exists in {tx.uri}")
        unknown = sorted(set(given.subject_ids) - set(before.position))
        if unknown:
            raise AlignmentError(
                f"subjects without a row in obs_meta: {shortened(unknown)}; append them first"
            )
        taken = [i for other in before.names for i in before.collection(other).position]
        place = _bring_in(tx, name, given, taken)
        places = {**before.state.collections, name: place}
        pairs = volumes_of(layout.located(tx.uri, place), tx.timestamp)
        _refuse_repeats([*taken, *(obs_id for _, obs_id in pairs)])
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


def _bring_in(tx: Transaction, name: str, given: VolumeSelection, taken: Sequence[str]) -> str:
    """Link a collection that lies below the data set, or copy it there; return its place.

    A copy's volumes get ids of their own, none of them in `taken`.
    """
    source = given.store.uri
    below = layout.parent(source) == layout.join(tx.uri, layout.COLLECTIONS)
    if below and not given.is_view and OWNER not in (groups.read_metadata(source) or {}):
        # Its own lock rolls back what a dead writer left, which this commit would publish.
        with transaction(source, "link"):
            # The commit must be later than the collection's rows, or they stay invisible.
            tx.clock.now = max(tx.clock.now, read_head(source).timestamp)
        described = {NAME: name, OWNER: layout.TO_ROOT}
        groups.write_metadata(source, described, tx.clock.tick())
        for table in compaction.tables_of(source, ()):
            digests.touch(table)
        return f"{layout.COLLECTIONS}/{layout.base_name(source)}"
    place = dataset.new_collection_location(tx, name)
    uri, schema = layout.join(tx.uri, place), own_schema(given)
    with VolumeCollectionWriter(uri, None, schema, name).within(tx) as writer:
        jobs = jobs_of(given)
        stream_into(writer, jobs, (), obs_ids=new_ids(jobs, name, taken))
        writer.name_labels(given.store.label_names)
    return place
