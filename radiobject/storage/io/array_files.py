"""The files of an array, on a local disk or in an object store: names, whole files, mappings."""

from __future__ import annotations

import errno
import mmap
import os
from io import BufferedReader
from pathlib import Path
from stat import S_ISBLK, S_ISCHR, S_ISDIR, S_ISFIFO, S_ISREG, S_ISSOCK
from typing import Protocol

from radiobject.addresses import is_remote, local_path
from radiobject.exceptions import IntegrityError, StorageError, StoreNotFoundError
from radiobject.storage.io import tiledb_names as tdb
from radiobject.storage.io.remote import RemoteFiles

_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_KINDS = (
    (S_ISREG, "a file"),
    (S_ISDIR, "a folder"),
    (S_ISFIFO, "a pipe"),
    (S_ISSOCK, "a socket"),
    (S_ISCHR, "a device"),
    (S_ISBLK, "a device"),
)
_LOADED = (
    tdb.GROUP,
    tdb.METADATA,
    tdb.SCHEMA,
    tdb.COMMITS,
    tdb.FRAGMENT_METADATA_FOLDER,
    tdb.LABELS,
)
_FOLDERS_INSIDE = (tdb.ENUMERATIONS,)


class ArrayFiles(Protocol):
    """What index building needs from where an array lies."""

    def names(self) -> set[str]:
        """Return the path of every file below the array, relative to it, with slashes."""

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file below the array."""

    def read(self, name: str, limit: int) -> bytes:
        """Return a whole file of at most `limit` bytes."""

    def map(self, name: str) -> memoryview:
        """Return a whole file without reading it; only where files are local."""


class LocalFiles:
    """The files of an array in a folder."""

    def __init__(self, uri: str) -> None:
        self._root = Path(local_path(uri))

    def names(self) -> set[str]:
        """Return the path of every file below the array, relative to it, with slashes."""
        found: set[str] = set()
        for folder, _, files in os.walk(self._root):
            below = os.path.relpath(folder, self._root).replace(os.sep, "/")
            found.update(files if below == "." else (f"{below}/{name}" for name in files))
        return found

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file below the array; what is no file has none."""
        found = {name: os.lstat(self._root / name) for name in self.names()}
        return {name: state.st_size for name, state in found.items() if S_ISREG(state.st_mode)}

    def read(self, name: str, limit: int) -> bytes:
        """Return a whole file of at most `limit` bytes."""
        path = self._root / name
        try:
            with open_regular(path) as file:
                size = os.fstat(file.fileno()).st_size
                if size > limit:
                    raise IntegrityError(f"{path} has {size} bytes, more than the {limit} expected")
                return file.read()
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from error

    def map(self, name: str) -> memoryview:
        """Return a whole file, mapped into memory."""
        return memoryview(map_file(self._root / name))


def open_regular(path: str | Path) -> BufferedReader:
    """Open a file for reading, and nothing else that may lie at its name.

    A pipe would keep its reader waiting for ever, and some devices have no end.

    Raises
    ------
    OSError
        If it cannot be opened.
    IntegrityError
        If it is a pipe, a socket, a device or a folder.
    """
    fd = os.open(path, os.O_RDONLY | _AT_ONCE)
    if S_ISREG(os.fstat(fd).st_mode):
        return open(fd, "rb")
    os.close(fd)
    raise strange(path)


def strange(path: str | os.PathLike[str]) -> IntegrityError:
    """Return the error that says that no file is at the name of one."""
    try:
        mode = os.stat(path).st_mode
        what = next((word for is_one, word in _KINDS if is_one(mode)), "something else")
    except OSError as error:
        what = f"a link that leads nowhere ({error.strerror})"
    return IntegrityError(
        f"{path} is {what}, where the data set has a file of its own or nothing; restore it from a "
        "copy, or remove it if the data set never had it"
    )


def refuse_strange(uri: str) -> None:
    """Raise an `IntegrityError` if an object has, where libtiledb looks, what would stop it.

    libtiledb opens whatever lies in the folders of an object whose files it reads whole: for a
    pipe it waits for ever, and a link that leads nowhere is an error that names nothing.
    """
    if is_remote(uri):
        return
    root = local_path(uri)
    for folder in (root, *(os.path.join(root, name) for name in _LOADED)):
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise strange(folder) from None
            raise StorageError(
                f"{folder} cannot be read: {error.strerror}; check its permissions"
            ) from error
        for entry in entries:
            inside = folder != root and entry.name not in _FOLDERS_INSIDE
            if _kind(entry) not in ((S_ISREG,) if inside else (S_ISREG, S_ISDIR)):
                raise strange(entry.path)


def _kind(entry: os.DirEntry[str]) -> object:
    """Return what tells the kind of a folder's entry, or of what it links to."""
    try:
        if entry.is_file():
            return S_ISREG
        return S_ISDIR if entry.is_dir() else None
    except OSError:
        return None  # a link to itself


def map_file(path: Path) -> mmap.mmap:
    """Map a file for reading; the mapping keeps the file open.

    Raises
    ------
    StoreNotFoundError
        If it does not exist.
    StorageError
        If it cannot be mapped.
    IntegrityError
        If it is empty.
    """
    try:
        with open_regular(path) as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise StoreNotFoundError(f"tile file {path} has vanished") from error
    except ValueError as error:
        raise IntegrityError(f"tile file {path} is empty") from error
    except OSError as error:
        raise StorageError(f"tile file {path} cannot be mapped: {error.strerror}") from error


def open_files(uri: str) -> ArrayFiles:
    """Return the files of the array at `uri`."""
    if is_remote(uri):
        return RemoteFiles(uri)
    return LocalFiles(uri)
