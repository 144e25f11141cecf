"""Merging the small files of many commits, without losing a state.

Every commit leaves a fragment per table and a metadata file. They are merged now and then, after
a commit and under its lock, so that many small appends do not slow reads. What was merged is kept
until the next round: a reader that listed the files a moment ago still finds them.
"""

from __future__ import annotations

import logging

import tiledb

from radiobject.ctx import get_tiledb_ctx
from radiobject.storage.io import files, layout
from radiobject.storage.io.atomic import atomic
from radiobject.storage.tables.table import Table

COMMITS_PER_ROUND = 8
"""A round looks at every table, which costs listings; it follows each so many commits."""

_MAX_METADATA_FILES = 32
_TABLES = (layout.OBS, layout.TILE_INDEX, layout.LABEL_INDEX)
_log = logging.getLogger(__name__)


def compact(uri: str, places: dict[str, str], *, force: bool = False) -> None:
    """Merge what is small in the data set or collection at `uri` and its collections.

    Parameters
    ----------
    uri : str
        The data set; everything in it must be committed, and its lock held.
    places : dict of str to str
        Its collections.
    force : bool
        Merge even a few files, and remove what was merged at once.
    """
    tables = [layout.join(uri, name) for name in (layout.OBS_META, *_TABLES)]
    for place in places.values():
        folder = layout.located(uri, place)
        tables += [layout.join(folder, name) for name in _TABLES]
    for location in tables:
        try:
            Table(location).consolidate(force=force)
        except tiledb.TileDBError as error:
            # The commit is complete without this, and the next round tries again.
            _log.warning("the table at %s was not merged: %s", location, error)
    try:
        _compact_metadata(uri, force)
    except tiledb.TileDBError as error:
        _log.warning("the history of %s was not merged: %s", uri, error)


def _compact_metadata(uri: str, force: bool) -> None:
    folder = layout.join(uri, "__meta")
    limit = 1 if force else _MAX_METADATA_FILES
    if len(files.list_folder(folder)) <= limit:
        return
    files.remove_merged(folder)
    if len(files.list_folder(folder)) <= limit:
        return
    with atomic(uri, metadata=True) as place:
        tiledb.Group.consolidate_metadata(place, ctx=get_tiledb_ctx())
        for entry in files.list_folder(layout.join(place, "__meta")):
            # It lists what was merged by where it was; the names tell it as well.
            if entry.endswith(".vac"):
                files.remove(entry)
    if force:
        files.remove_merged(folder)
