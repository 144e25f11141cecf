"""Removing what a writer left that did not reach its commit."""

from __future__ import annotations

from radiobject.addresses import is_absolute
from radiobject.storage.io import files, layout
from radiobject.storage.io.atomic import FOLDER as ASIDE
from radiobject.storage.tables import groups

STANDALONE = "standalone"
"""Metadata key of a collection that was committed on its own, before any owner linked it."""

PARTS = (
    layout.OBS_META, layout.OBS, layout.TILE_INDEX, layout.LABEL_INDEX, layout.VOLUMES,
    "__tiledb_group.tdb", "__group", "__meta",
)  # fmt: skip
"""What a data set's folder holds beside its collections and its lock; what says so comes last."""


def roll_back(uri: str, timestamp: int, locations: set[str]) -> None:
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
    """
    roll_back_collection(uri, timestamp)
    for location in locations:
        if not is_absolute(location):
            roll_back_collection(layout.join(uri, location), timestamp)
    known = {layout.base_name(location) for location in locations}
    for folder in files.list_folder(layout.join(uri, layout.COLLECTIONS)):
        if layout.base_name(folder) not in known and not _is_standalone(folder):
            files.remove(folder)


def roll_back_collection(uri: str, timestamp: int) -> None:
    """Bring a group's metadata, tables and volumes back to their state at `timestamp`."""
    files.remove_after(uri, timestamp)
    files.remove(layout.join(uri, ASIDE))
    _roll_back_tables(uri, timestamp)
    for volume in files.list_folder(layout.join(uri, layout.VOLUMES)):
        written = layout.array_timestamp(layout.base_name(volume))
        if written is not None and written > timestamp:
            files.remove(volume)


def remove_unfinished(uri: str) -> None:
    """Remove a data set that never had a head, and nothing else that lies in its folder."""
    for folder in files.list_folder(layout.join(uri, layout.COLLECTIONS)):
        if not _is_standalone(folder):
            files.remove(folder)
    files.remove_folder_if_empty(layout.join(uri, layout.COLLECTIONS))
    for name in PARTS:
        files.remove(layout.join(uri, name))


def _roll_back_tables(uri: str, timestamp: int) -> None:
    for name in (layout.OBS_META, layout.OBS, layout.TILE_INDEX, layout.LABEL_INDEX):
        table = layout.join(uri, name)
        files.remove_after(table, timestamp)
        files.remove(layout.join(table, layout.OWN_FOLDER))
        files.remove_uncommitted(table)
        if not files.list_folder(layout.join(table, "__schema")):
            # A table that the dead writer began; what is left of it is no array.
            files.remove(table)


def _is_standalone(uri: str) -> bool:
    return STANDALONE in (groups.read_metadata(uri) or {})
