"""What a group in an object store says of itself, read in two steps.

libtiledb takes nine, each of which waits for the one before, and keeps the interpreter meanwhile.
The layout is that of TileDB's public format specification (metadata file), as libtiledb 2.30
writes it. What is not as expected is left to libtiledb, which reads all that there may be.
"""

from __future__ import annotations

import struct
from typing import Any

from radiobject import process
from radiobject.exceptions import (
    ConfigurationError,
    IntegrityError,
    StorageError,
    StoreNotFoundError,
)
from radiobject.storage.io import tiledb_names as tdb
from radiobject.storage.io.object_store import status_of
from radiobject.storage.io.remote import RemoteFiles
from radiobject.storage.tiles.fragment import Cursor, UnsupportedArrayError, generic_tile

_FETCHES = 16
_MOST_FILES = 4096
_NO_BUCKET = 404
_MOST_BYTES = 64 << 20
_VALUE = struct.Struct("<BI")
_INT64, _UTF8, _BLOB = 1, 12, 40
_BYTES_OF_LENGTH, _BYTES_OF_INT64 = 4, 8
_OF_TILEDB_PY = ("__np_flat_", "__np_shape_")
"""Keys that tiledb-py deletes with each value it writes; ones that stay give arrays a shape."""


def read_remote(uri: str) -> dict[str, Any] | None:
    """Return the metadata of the group at the remote `uri`, None where libtiledb is to be asked.

    Raises
    ------
    StorageError
        If the place cannot be reached.
    """
    source = RemoteFiles(uri)
    written = RemoteFiles(f"{uri}/{tdb.METADATA}")
    try:
        with process.new_threads("group", _FETCHES) as threads:
            marked = threads.submit(source.tag, tdb.GROUP_MARK)
            sizes = written.sizes()
            marked.result()
            names = _in_order(sizes)
            if names is None:
                return None
            files = threads.map(lambda name: written.read(name, sizes[name]), names)
            return _merged(list(files))
    except (StoreNotFoundError, IntegrityError, ConfigurationError, UnsupportedArrayError):
        return None
    except StorageError as error:
        if status_of(error) == _NO_BUCKET:
            return None
        raise


def _in_order(sizes: dict[str, int]) -> list[str] | None:
    """Return the files as they were written; None if their names do not say that alone."""
    spans = {name: tdb.span(name) for name in sizes}
    plain = {n: s[0] for n, s in spans.items() if s is not None and s[0] == s[1] and "." not in n}
    fits = len(sizes) <= _MOST_FILES and sum(sizes.values()) <= _MOST_BYTES
    # Files that were merged cover a time each, and say in another which ones they replace.
    if not fits or len(set(plain.values())) != len(sizes):
        return None
    return sorted(plain, key=plain.__getitem__)


def _merged(files: list[bytes]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for content in files:
        _apply(Cursor(generic_tile(content, 0)), found)
    return dict(sorted(found.items()))


def _apply(cursor: Cursor, found: dict[str, Any]) -> None:
    """Set or delete what one file says."""
    while not cursor.is_at_end:
        length = int.from_bytes(cursor.take(_BYTES_OF_LENGTH), "little")
        key = _text(cursor.take(length))
        if cursor.flag():
            found.pop(key, None)
            continue
        kind, count = _VALUE.unpack(cursor.take(_VALUE.size))
        if key.startswith(_OF_TILEDB_PY):
            raise UnsupportedArrayError(f"the metadata holds {key!r}")
        if kind == _INT64 and count == 1:
            found[key] = int.from_bytes(cursor.take(_BYTES_OF_INT64), "little", signed=True)
        elif kind == _UTF8:
            found[key] = _text(cursor.take(count))
        elif kind == _BLOB:
            found[key] = cursor.take(count)
        else:
            raise UnsupportedArrayError(f"the metadata holds {count} values of type {kind}")


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise UnsupportedArrayError("the metadata holds a text that is none") from error
