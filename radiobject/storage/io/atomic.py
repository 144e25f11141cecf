"""Files that TileDB writes in place, written elsewhere first and moved into place whole.

A reader of a group or an array loads every file of its metadata and its schemas. On a disk, one
that a killed process had begun makes the object unreadable, and a reader that comes while it is
written fails. So such a file is written to a stand-in of the object beside it, and renamed. An
object store needs no such thing: an object appears whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from radiobject.exceptions import StoreExistsError
from radiobject.storage.io import layout
from radiobject.storage.io import tiledb_names as tdb
from radiobject.system import files, room

_KINDS = (tdb.GROUP, tdb.METADATA, tdb.SCHEMA)
_LOADED = (tdb.GROUP, tdb.SCHEMA)
"""What TileDB reads of an object that it is going to write to."""


@contextmanager
def atomic(uri: str, *, metadata: bool = False) -> Iterator[str]:
    """Give the URI to write metadata, members or a schema of the object at `uri` to.

    On a disk it is a stand-in with the schemas and members of the object, and its metadata if
    asked, but no data; what it got appears in the object when the block ends without an error.
    """
    if not layout.is_local(uri):
        yield uri
        return
    place = Path(uri, layout.STAND_INS, uuid.uuid4().hex)
    try:
        with room.writing(uri):
            known = _stand_in(Path(uri), place, _KINDS if metadata else _LOADED)
            yield str(place)
            for path in _files(place):
                if path.relative_to(place) not in known:
                    _move(path, Path(uri, path.relative_to(place)))
    finally:
        files.discard_tree(place)
        _remove_if_empty(place.parent)


@contextmanager
def create_atomically(uri: str, *, folder: str | None = None) -> Iterator[str]:
    """Give the URI to create an object at, which then appears at `uri` whole or not at all.

    Parameters
    ----------
    uri : str
        Nothing may lie there.
    folder : str, optional
        Where it is made on a disk; by default beside `uri`, under a hidden name. It has to be on
        the same file system.

    Raises
    ------
    StoreExistsError
        If something lies at `uri`, or another process was faster.
    StorageError
        If the folder cannot be written.
    """
    if not layout.is_local(uri):
        yield uri
        return
    target = Path(uri)
    if folder is None:
        place = target.with_name(f".{files.shortened(target.name)}.{uuid.uuid4().hex}.partial")
    else:
        place = Path(folder, uuid.uuid4().hex)
    if os.path.lexists(target):
        raise StoreExistsError(f"something lies at {uri!r} already; choose another place")
    try:
        with room.writing(uri):
            place.parent.mkdir(parents=True, exist_ok=True)
            yield str(place)
            _name(place, target)
    finally:
        files.discard_tree(place)
        if folder is not None:
            _remove_if_empty(place.parent)


def _name(place: Path, target: Path) -> None:
    """Give what was made its name, unless another process was faster."""
    try:
        files.rename(place, target)
    except OSError as error:
        if os.path.lexists(target):
            raise StoreExistsError(f"another process made {target} meanwhile") from error
        raise


def _stand_in(original: Path, place: Path, copied: tuple[str, ...]) -> set[Path]:
    place.mkdir(parents=True)
    for kind in _KINDS:
        if (original / kind).is_dir():
            (place / kind).mkdir()
    if (original / tdb.GROUP_MARK).exists():
        (place / tdb.GROUP_MARK).touch()
    for kind in copied:
        for path in _files(original / kind):
            shutil.copyfile(path, place / kind / path.name)
    return {path.relative_to(place) for path in _files(place)}


def _files(folder: Path) -> list[Path]:
    return sorted(Path(base, name) for base, _, names in os.walk(folder) for name in names)


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    files.replace(path, target)
    files.sync_folder(target.parent)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
        folder.parent.rmdir()
    except OSError:
        return  # the lock is in there, or another writer's stand-in
