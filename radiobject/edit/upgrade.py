"""Bringing data sets of the published 0.1.x to the layout of this version."""

from __future__ import annotations

import warnings
from collections import Counter

from radiobject.exceptions import StorageError
from radiobject.executors import ExecutorLike
from radiobject.rows.pandas_io import frame_rows
from radiobject.selection import SubjectSelection
from radiobject.storage.ids import FreeIds
from radiobject.storage.io import layout
from radiobject.storage.schema.legacy import LegacyDatasetStore
from radiobject.storage.writers import DatasetWriter
from radiobject.transform.jobs import jobs_of, own_schema, stream_into


def upgrade_dataset(
    old: SubjectSelection, uri: str, *, executor: ExecutorLike | None = None, progress: bool = False
) -> str:
    """Write a data set of 0.1.x anew at `uri`, with its ids; return the address.

    Columns of text that held geometry are replaced by numbers; all others are kept. So are the
    ids of volumes, but for those that several collections share: 0.1.1 named volumes by series
    type and allowed that. They become ``{subject}_{collection}``, with a warning.

    Raises
    ------
    StorageError
        If the data set has this version's layout already.
    StoreNotFoundError
        If a row has no volume; nothing is written.
    """
    if not isinstance(old.store, LegacyDatasetStore):
        raise StorageError(f"{old.store.uri} has the layout of this version already")
    table = old.obs_meta()
    rows = table.read().drop(columns=[layout.OBS_IDS], errors="ignore")
    schema = {n: d for n, d in table.dtypes.items() if n != layout.OBS_IDS}
    ids = _unique_ids(old)
    with DatasetWriter(uri, schema) as writer:
        if len(rows):
            writer.write_subjects(frame_rows(rows))
        for name in old.collection_names:
            collection = old.collection(name)
            stream_into(
                writer.add_collection(name, None, own_schema(collection)),
                jobs_of(collection),
                (),
                obs_ids=ids[name],
                executor=executor,
                progress=progress,
            )
    return writer.uri


def _unique_ids(old: SubjectSelection) -> dict[str, list[str]]:
    """Return the ids that the volumes of each collection get, in its order."""
    collections = {name: old.collection(name) for name in old.collection_names}
    counted = Counter(obs_id for one in collections.values() for obs_id in one.obs_ids)
    shared = {obs_id for obs_id, times in counted.items() if times > 1}
    used = set(counted) - shared
    ids: dict[str, list[str]] = {}
    for name, collection in collections.items():
        free = FreeIds(name, used)
        pairs = zip(collection.obs_ids, collection.subject_ids, strict=True)
        ids[name] = [free.next(s) if obs_id in shared else obs_id for obs_id, s in pairs]
        used |= set(ids[name])
    if shared:
        warnings.warn(
            f"{len(shared)} volume ids were those of volumes in several collections, such as "
            f"{min(shared)!r}; these volumes are now called by subject and collection",
            stacklevel=3,
        )
    return ids
