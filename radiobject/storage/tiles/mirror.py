"""A bounded local copy of remote tile files, never the only copy of anything.

Off unless ``RADIOBJECT_MIRROR`` names a folder; ``RADIOBJECT_MIRROR_MB`` bounds it (default
4096). A file holds the compressed tiles of one volume and carries the size and ETag of the object
in its name, so that a changed object is never confused with its old copy.
"""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress
from pathlib import Path

from radiobject.exceptions import ConfigurationError, IntegrityError, StorageError
from radiobject.storage.io import stats
from radiobject.storage.io.remote import RemoteFiles
from radiobject.storage.tiles.tile_index import TileIndex
from radiobject.system import files
from radiobject.system.processes import is_private

FOLDER_VARIABLE = "RADIOBJECT_MIRROR"
SIZE_VARIABLE = "RADIOBJECT_MIRROR_MB"
DEFAULT_MB = 4096
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def mirrored(uri: str, index: TileIndex) -> Path | None:
    """Return the local copy of a volume's tile file, fetched now if it is not there yet.

    Costs one request (for size and ETag) once per process and volume, and one more to fetch.

    Returns
    -------
    Path or None
        None when there is no mirror, or no room in it: tiles are then fetched one by one.

    Raises
    ------
    IntegrityError
        If the object has another size than the index says.
    ConfigurationError
        If the variables name no folder that can be used, or no size.
    StoreNotFoundError, StorageError
        If the object cannot be reached.
    """
    given = os.environ.get(FOLDER_VARIABLE)
    if not given:
        return None
    folder, limit = _folder(Path(given)), _limit()
    if folder is None or index.file_size > limit:
        return None
    remote = RemoteFiles(uri)
    size, tag = remote.tag(index.path)
    _check_size(uri, index, size)
    place = folder / _name(uri, index, tag)
    if _is_whole(place, size):
        stats.count(mirror_hits=1)
        return place
    content, tag = remote.read_tagged(index.path, limit)
    _check_size(uri, index, len(content))
    return _keep(folder / _name(uri, index, tag), content, limit)


def discard(place: Path) -> bool:
    """Remove a local copy that is not what was written; return False if it cannot be.

    Some systems remove no file that somebody has mapped.
    """
    if place.suffix == ".tiles":
        try:
            place.unlink(missing_ok=True)
        except OSError:
            return False
    return True


def _folder(folder: Path) -> Path | None:
    """Return the mirror's folder, made now if it is not there; None if the disk is full."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        if error.errno in _NO_ROOM:
            return None
        raise ConfigurationError(
            f"{FOLDER_VARIABLE}={str(folder)!r} cannot be used: {error.strerror}; name a folder of "
            "your own"
        ) from error
    if not is_private(status):
        raise IntegrityError(
            f"mirror {folder} can be used by others; expected a folder of your own with mode 0700"
        )
    return folder


def _limit() -> int:
    given = os.environ.get(SIZE_VARIABLE, str(DEFAULT_MB))
    if not given.isascii() or not given.isdigit():
        raise ConfigurationError(f"{SIZE_VARIABLE} is a number of megabytes, got {given!r}")
    return int(given) << 20


def _check_size(uri: str, index: TileIndex, size: int) -> None:
    if size != index.file_size:
        raise IntegrityError(
            f"object {uri}/{index.path} has {size} bytes, expected {index.file_size}"
        )


def _name(uri: str, index: TileIndex, tag: str) -> str:
    what = f"{uri}/{index.path}".encode()
    volume = hashlib.blake2b(what, digest_size=16).hexdigest()
    version = hashlib.blake2b(tag.encode(), digest_size=8).hexdigest()
    return f"{volume}-{index.file_size}-{version}.tiles"


def _is_whole(place: Path, size: int) -> bool:
    """Return whether a copy is there, and note that it is used now."""
    try:
        whole = place.stat().st_size == size
        if whole:
            os.utime(place)
    except OSError:
        return False
    return whole


def _keep(place: Path, content: bytes, limit: int) -> Path | None:
    """Store a file atomically; None when the disk has no room for it."""
    _make_room(place.parent, limit - len(content))
    try:
        # It may be lost, so it need not have reached the disk.
        with files.written_whole(place, durable=False) as part, files.create_private(part) as file:
            file.write(content)
    except (OSError, StorageError):
        return None
    stats.count(mirror_writes=1)
    return place


def _make_room(folder: Path, limit: int) -> None:
    """Remove the copies used longest ago, and what killed processes left half-written.

    A copy that a process has open stays readable for it.
    """
    files.remove_unfinished(folder)
    copies = []
    for entry in os.scandir(folder):
        with suppress(OSError):
            if entry.name.endswith(".tiles"):
                status = entry.stat()
                copies.append((status.st_mtime_ns, status.st_size, entry.path))
    total = sum(size for _, size, _ in copies)
    for _, size, path in sorted(copies):
        if total <= limit:
            return
        with suppress(OSError):
            os.unlink(path)
        total -= size
