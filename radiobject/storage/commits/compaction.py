"""Merging the small files of many commits, without losing a state.

Every commit leaves a fragment per table and a metadata file. They are merged now and then, after
a commit and under its lock, so that many small appends do not slow reads. What was merged is kept
until the next round: a reader that listed the files a moment ago still finds them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Protocol

import tiledb

from radiobject.ctx import get_tiledb_ctx
from radiobject.exceptions import StorageError
from radiobject.storage.io import files, layout
from radiobject.storage.io import tiledb_names as tdb
from radiobject.storage.io.atomic import atomic
from radiobject.storage.io.libtiledb import changing_ctx
from radiobject.storage.tables.digests import Files, Manifest, new_files, seal, unseal
from radiobject.storage.tables.table import Table

COMMITS_PER_ROUND = 8
"""A round looks at every table, which costs listings; it follows each so many commits."""

_MAX_METADATA_FILES = 32
_TABLES = (layout.OBS, layout.TILE_INDEX, *layout.DERIVED)
_log = logging.getLogger(__name__)


class Merging(Protocol):
    """What merging needs of the transaction that it is part of."""

    uri: str
    manifest: Manifest | None

    def record_merge(self, tables: Mapping[str, Files]) -> None:
        """Publish the record of tables whose files were merged."""


def tables_of(uri: str, places: Iterable[str]) -> list[str]:
    """Return where the tables of the data set or collection at `uri` are, and of its collections.

    Not every one of them has to exist.
    """
    folders = [uri, *(layout.located(uri, place) for place in places)]
    tables = [layout.join(folder, name) for folder in folders for name in _TABLES]
    return [layout.join(uri, layout.OBS_META), *tables]


def compact(tx: Merging, places: dict[str, str], *, force: bool = False) -> None:
    """Merge what is small in a data set or collection and its collections.

    What is removed leaves the record of table files before, and what is made enters it after, so
    that a reader finds every recorded file at any moment.

    Parameters
    ----------
    tx : Merging
        The transaction; everything in it must be committed.
    places : dict of str to str
        Its collections.
    force : bool
        Merge even a few files, and remove what was merged at once.
    """
    for location in tables_of(tx.uri, places.values()):
        try:
            _compact_table(tx, Table(location), force)
        except (tiledb.TileDBError, StorageError) as error:
            # The commit is complete without this, and the next round tries again.
            _log.warning("the table at %s was not merged: %s", location, error)
            undo(tx, location)
    try:
        _compact_metadata(tx.uri, force)
    except (tiledb.TileDBError, StorageError) as error:
        _log.warning("the history of %s was not merged: %s", tx.uri, error)


def undo(tx: Merging, location: str) -> None:
    """Remove what an interrupted merge left of a table: on a full disk, room is what is wanted."""
    recorded = None if tx.manifest is None else tx.manifest.tables.get(place_of(tx, location))
    try:
        files.remove_uncommitted(location)
        if recorded is not None:
            files.remove_unrecorded(location, recorded)
    except (tiledb.TileDBError, StorageError) as error:
        _log.warning("what merging left at %s was not removed: %s", location, error)


def place_of(tx: Merging, location: str) -> str:
    """Return a table's place in the data set, as its record names it."""
    return location.removeprefix(f"{tx.uri}/")


def _compact_table(tx: Merging, table: Table, force: bool) -> None:
    if not table.has_many_fragments(force=force):
        return
    place = place_of(tx, table.uri)

    def forget_merged() -> None:
        merged, notes = table.merged_before()
        if not notes:
            return
        if tx.manifest is not None and place in tx.manifest.tables:
            recorded = tx.manifest.tables[place].items()
            gone = {path for path, _ in recorded if merged & set(parts_of(path))}
            gone |= {f"{tdb.COMMITS}/{note}" for note in notes}
            tx.record_merge({place: {p: entry for p, entry in recorded if p not in gone}})
        unseal(table.uri, merged)
        tiledb.vacuum(table.uri, ctx=get_tiledb_ctx())

    forget_merged()
    before = set(table.fragments())
    known = None if tx.manifest is None else tx.manifest.tables.get(place)
    if table.merge(force=force, among=known and {f for path in known for f in parts_of(path)}):
        merged = set(table.fragments()) - before
        if layout.base_name(table.uri) in layout.DERIVED:
            for made in merged:
                seal(table.uri, made)
        if known is not None:
            new = new_files(table.uri, known, lambda path: not merged.isdisjoint(parts_of(path)))
            tx.record_merge({place: {**known, **new}})
        if force:
            forget_merged()


def parts_of(path: str) -> list[str]:
    """Return the names in a path, without what follows a point."""
    return [part.partition(".")[0] for part in path.split("/")]


def _compact_metadata(uri: str, force: bool) -> None:
    folder = layout.join(uri, tdb.METADATA)
    limit = 1 if force else _MAX_METADATA_FILES
    if len(files.list_folder(folder)) <= limit:
        return
    files.remove_merged(folder)
    if len(files.list_folder(folder)) <= limit:
        return
    with atomic(uri, metadata=True) as place:
        tiledb.Group.consolidate_metadata(place, ctx=changing_ctx(uri))
        for entry in files.list_folder(layout.join(place, tdb.METADATA)):
            # It lists what was merged by where it was; the names tell it as well.
            if entry.endswith(tdb.REPLACED):
                files.remove_file(entry)
    if force:
        files.remove_merged(folder)
