"""Tables of what was worked out from voxels, beside a collection's `obs`: written by readers.

A row says what it was made from, and is ignored when that is no longer so; deleting the whole table
loses nothing but the time to make it again. Values are plain little-endian numbers, never pickles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from radiobject.exceptions import StorageError, StoreExistsError
from radiobject.storage.commits.head import Clock
from radiobject.storage.commits.recovery import clear_without_schema
from radiobject.storage.io import files, layout
from radiobject.storage.io.atomic import create_atomically
from radiobject.storage.io.libtiledb import writing
from radiobject.storage.tables.columns import BLOB, TEXT, Column
from radiobject.storage.tables.digests import seal
from radiobject.storage.tables.groups import object_kind
from radiobject.storage.tables.table import Table, create_table

FINGERPRINT = "fingerprint"
"""The column that says what a row was made from."""

_TILE_ROWS = 64


def write_derived(
    uri: str,
    rows: Mapping[str, Sequence[object]],
    keys: Sequence[str] = (layout.OBS_ID,),
    timestamp: int | None = None,
) -> None:
    """Store rows in the table at `uri`, replacing those of their keys; the first ones make it.

    Parameters
    ----------
    uri : str
    rows : mapping of str to sequence
        Columns: the keys and `FINGERPRINT` as text, all others bytes.
    keys : sequence of str
        The columns that tell rows apart.
    timestamp : int, optional
        Milliseconds since the epoch; now by default, and later than what is there.

    Raises
    ------
    StorageError
        If the table cannot be written, as in a read-only store.
    """
    with writing(uri):
        _create(uri, keys, [name for name in rows if name not in (*keys, FINGERPRINT)])
        # A reader whose clock is ahead may have written the row that this one replaces.
        when = Clock.later_than_all_at(uri).now if timestamp is None else timestamp
        fragment = Table(uri).write(rows, when)
        if fragment is not None:
            seal(uri, fragment)


def read_derived(uri: str, columns: Sequence[str]) -> Mapping[str, Column] | None:
    """Return the keys and columns of the table at `uri`; None if there is none.

    Raises
    ------
    StorageError
        If the table is there but cannot be read.
    """
    if object_kind(uri) != "array" or _is_broken(uri):
        return None
    return Table(uri).read((FINGERPRINT, *columns))


def _is_broken(uri: str) -> bool:
    """Return whether an array is what an undone change of an older version left of it on a disk.

    TileDB takes a folder of schemas for an array though none is in it.
    """
    return layout.is_local(uri) and not files.has_schema(uri)


def _create(uri: str, keys: Sequence[str], columns: Sequence[str]) -> None:
    if object_kind(uri) == "array":
        if not _is_broken(uri):
            return
        clear_without_schema(uri)
    typed = {FINGERPRINT: TEXT} | dict.fromkeys(columns, BLOB)
    try:
        with create_atomically(
            uri, folder=layout.join(layout.parent(uri), layout.STAND_INS)
        ) as place:
            create_table(place, keys, typed, tile_rows=_TILE_ROWS)
    except StoreExistsError:
        return  # by another process, with the same columns
    except StorageError as error:
        if "already exists" not in str(error):
            raise
