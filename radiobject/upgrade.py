"""Bringing data sets of the published 0.1.x to the layout of this version."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import TYPE_CHECKING

from radiobject import pipeline
from radiobject.exceptions import StorageError
from radiobject.storage import dataset
from radiobject.storage.legacy import LegacyDatasetStore
from radiobject.writers import RadiObjectWriter

if TYPE_CHECKING:
    from radiobject.radi_object import RadiObject


def upgrade_dataset(
    radi: RadiObject, uri: str, *, executor: Executor | None = None, progress: bool = False
) -> RadiObject:
    """Write the data set anew at `uri`, with its ids, and leave the old one as it is.

    Columns of text that held geometry are replaced by numbers; all others are kept.

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
    with RadiObjectWriter(uri, schema) as writer:
        if len(rows):
            writer.write_obs_meta(rows)
        for name in radi.collection_names:
            collection = radi.collection(name)
            pipeline.stream_into(
                writer.add_collection(name, None, pipeline.own_schema(collection)),
                pipeline.jobs_of(collection),
                (),
                obs_ids=collection.obs_ids,
                executor=executor,
                progress=progress,
            )
    return RadiObject(uri)
