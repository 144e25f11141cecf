"""Bringing data sets of the published 0.1.x to the layout of this version."""

from __future__ import annotations

import warnings
from collections import Counter
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from radiobject.exceptions import StorageError
from radiobject.storage.schema import dataset
from radiobject.storage.schema.legacy import LegacyDatasetStore
from radiobject.transform.jobs import FreeIds, jobs_of, own_schema, stream_into
from radiobject.writers import RadiObjectWriter

if TYPE_CHECKING:
    from radiobject.radi_object import RadiObject


def upgrade_dataset(
    radi: RadiObject, uri: str, *, executor: Executor | None = None, progress: bool = False
) -> RadiObject:
    """Write the data set anew at `uri`, with its ids, and leave the old one as it is.

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
    from radiobject.radi_object import RadiObject

    if not isinstance(radi._store, LegacyDatasetStore):
        raise StorageError(f"{radi._uri} has the layout of this version already")
    rows = radi.obs_meta.read().drop(columns=[dataset.OBS_IDS], errors="ignore")
    schema = {n: d for n, d in radi.obs_meta.dtypes.items() if n != dataset.OBS_IDS}
    ids = _unique_ids(radi)
    with RadiObjectWriter(uri, schema) as writer:
        if len(rows):
            writer.write_obs_meta(rows)
        for name in radi.collection_names:
            collection = radi.collection(name)
            stream_into(
                writer.add_collection(name, None, own_schema(collection)),
                jobs_of(collection),
                (),
                obs_ids=ids[name],
                executor=executor,
                progress=progress,
            )
    return RadiObject(uri)


def _unique_ids(radi: RadiObject) -> dict[str, list[str]]:
    """Return the ids that the volumes of each collection get, in its order."""
    collections = {name: radi.collection(name) for name in radi.collection_names}
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
