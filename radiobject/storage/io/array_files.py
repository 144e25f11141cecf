"""The files of an array, on a local disk or in an object store: names, whole files, mappings."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from stat import S_ISREG
from typing import Protocol

from radiobject.addresses import is_remote, local_path
from radiobject.exceptions import IntegrityError, StorageError, StoreNotFoundError
from radiobject.storage.io.remote import RemoteFiles


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
            size = path.stat().st_size
            if size > limit:
                raise IntegrityError(f"{path} has {size} bytes, more than the {limit} expected")
            return path.read_bytes()
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from error

    def map(self, name: str) -> memoryview:
        """Return a whole file, mapped into memory."""
        return memoryview(map_file(self._root / name))


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
        with open(path, "rb") as file:
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
