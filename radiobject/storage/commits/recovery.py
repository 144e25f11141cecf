"""Removing what a writer left that did not reach its commit."""

from __future__ import annotations

from collections.abc import Iterable

from radiobject import process
from radiobject.storage.io import files, layout, owned
from radiobject.storage.io import tiledb_names as tdb
from radiobject.storage.io.array_files import open_files
from radiobject.storage.tables import groups
from radiobject.storage.tables.digests import Manifest

STANDALONE = "standalone"
"""Metadata key of a collection that was committed on its own, before any owner linked it."""

WITH_CONTENT = (
    layout.OBS_META, layout.OBS, layout.TILE_INDEX, *layout.DERIVED, layout.VOLUMES,
)  # fmt: skip
PARTS = (
    *WITH_CONTENT,
    tdb.GROUP_MARK, tdb.GROUP, tdb.METADATA,
)  # fmt: skip
"""What a data set's folder holds beside its collections and its lock."""

_LOOKED_AT_ONCE = 16


def roll_back(
    uri: str, timestamp: int, locations: set[str], manifest: Manifest | None = None
) -> None:
    """Bring the data set at `uri` back to its state at `timestamp`.

    Parameters
    ----------
    uri : str
        A root or a collection of its own.
    timestamp : int
        The committed head; everything later goes.
    locations : set of str
        Where the committed states have their collections; a folder that no state knows goes
        whole, unless it is a collection that was committed on its own.
    manifest : Manifest, optional
        The recorded table files; what an interrupted merge left beside them goes.
    """
    roll_back_collection(uri, timestamp)
    for location in locations:
        roll_back_collection(layout.located(uri, location), timestamp)
    _remove_unknown(uri, {layout.base_name(location) for location in locations})
    for place, recorded in ({} if manifest is None else manifest.tables).items():
        files.remove_unrecorded(layout.join(uri, place), recorded)


def roll_back_collection(uri: str, timestamp: int) -> None:
    """Bring a group's metadata, tables and volumes back to their state at `timestamp`."""
    files.remove_after(uri, timestamp)
    owned.remove(uri, owned.ARRAY, folder=layout.STAND_INS)
    _roll_back_tables(uri, timestamp)
    for volume in files.own_entries(layout.join(uri, layout.VOLUMES)):
        written = layout.array_timestamp(layout.base_name(volume))
        if written is not None and written > timestamp:
            owned.remove(volume, owned.ARRAY)


def holds_more(
    uri: str, timestamp: int, locations: set[str], manifest: Manifest | None = None
) -> bool:
    """Return whether a data set holds what was written after `timestamp`, or what is not recorded.

    Under its lock nobody is writing: this is a dead writer's, or it came with a copy that another
    program made while the data set was written, without the lock that would tell. The next commit
    would have it be seen. Parameters are those of `roll_back`.
    """
    homes = [uri, *(layout.located(uri, place) for place in locations)]
    tables = [layout.join(home, name) for home in homes for name in (layout.OBS, layout.TILE_INDEX)]
    tables.append(layout.join(uri, layout.OBS_META))
    recorded = {} if manifest is None else manifest.tables

    def has_more(place: str) -> bool:
        known = recorded.get(place.removeprefix(f"{uri}/"))
        for path in _stamped_files(place):
            span = tdb.span(layout.base_name(path))
            later = span is not None and span[0] > timestamp
            if later or (known and tdb.is_in(path, tdb.COMMITS) and path not in known):
                return True
        return False

    if layout.is_local(uri):
        return any(map(has_more, [*tables, *homes]))
    with process.new_threads("look", _LOOKED_AT_ONCE) as threads:
        return any(threads.map(has_more, [*tables, *homes]))


def _stamped_files(place: str) -> Iterable[str]:
    """Return the paths below a table or a group of what commits it, and of what it says of itself.

    On a disk that is three folders; in a bucket one request lists a table, and one a group's own.
    """
    if layout.is_local(place):
        folders = (tdb.COMMITS, tdb.SCHEMA, tdb.METADATA)
        listed = ((f, files.list_folder(layout.join(place, f))) for f in folders)
        return [f"{f}/{layout.base_name(entry)}" for f, entries in listed for entry in entries]
    if layout.base_name(place) in WITH_CONTENT:
        return open_files(place).names()
    return [f"{tdb.METADATA}/{n}" for n in open_files(layout.join(place, tdb.METADATA)).names()]


def latest_at(uri: str) -> int:
    """Return the latest time that anything written to the array or group at `uri` carries, or 0."""
    spans = (tdb.span(layout.base_name(path)) for path in _stamped_files(uri))
    return max((last for _, last in filter(None, spans)), default=0)


def remove_unfinished(uri: str) -> None:
    """Remove a data set that never had a head, and nothing else that lies in its folder."""
    _remove_unknown(uri, set())
    files.remove_folder_if_empty(layout.join(uri, layout.COLLECTIONS))
    owned.remove(uri, owned.PARTS)


def standing_alone(uri: str) -> set[str]:
    """Return the folders below `uri` of collections that were committed on their own."""
    folder = layout.join(uri, layout.COLLECTIONS)
    return {layout.base_name(f) for f in files.own_entries(folder) if _is_standalone(f)}


def _remove_unknown(uri: str, known: set[str]) -> None:
    for folder in files.own_entries(layout.join(uri, layout.COLLECTIONS)):
        if layout.base_name(folder) not in known and not _is_standalone(folder):
            owned.remove(folder, owned.COLLECTION)


def _roll_back_tables(uri: str, timestamp: int) -> None:
    for name in (layout.OBS_META, layout.OBS, layout.TILE_INDEX, *layout.DERIVED):
        table = layout.join(uri, name)
        if files.is_link(table):
            continue
        if name not in layout.DERIVED:  # readers make and write these without the lock
            files.remove_after(table, timestamp)
            owned.remove(table, owned.PARTIAL, folder=layout.DIGESTS)
        owned.remove(table, owned.ARRAY, folder=layout.STAND_INS)
        files.remove_uncommitted(table)
        clear_without_schema(table)


def clear_without_schema(table: str) -> None:
    """Remove what is left of a table that a dead writer began, or an undone change took apart."""
    if not files.has_schema(table):
        owned.remove(table, owned.ARRAY)


def _is_standalone(uri: str) -> bool:
    return STANDALONE in (groups.read_metadata(uri) or {})
