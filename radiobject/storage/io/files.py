"""Files and folders of a data set, on a disk or an object store, through TileDB's own VFS."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import tiledb

from radiobject.ctx import get_tiledb_ctx
from radiobject.exceptions import StorageError
from radiobject.storage.io import layout, owned
from radiobject.storage.io import tiledb_names as tdb
from radiobject.system import files as system_files
from radiobject.system import room
from radiobject.system.files import written_whole

_PIECE_BYTES = 16 << 20
_WRITTEN_BY_THEN_MS = 24 * 3_600_000
"""No reader takes so long to write a few rows, and few clocks are so wrong."""
_STAMPED_FOLDERS = (
    tdb.COMMITS,
    tdb.SCHEMA,
    tdb.METADATA,
    tdb.FRAGMENT_METADATA_FOLDER,
    tdb.FRAGMENTS,
    tdb.GROUP,
    layout.DIGESTS,
)


@contextmanager
def _reaching(uri: str) -> Iterator[tiledb.VFS]:
    """Give libtiledb's file system; what it raises names `uri` and is an error of ours."""
    try:
        yield tiledb.VFS(ctx=get_tiledb_ctx())
    except tiledb.TileDBError as error:
        reason = str(error).partition("\n")[0][:300]
        raise StorageError(
            f"{uri} cannot be reached: {reason}; check address, endpoint and credentials"
        ) from error


def is_link(uri: str) -> bool:
    """Return whether `uri` is a symbolic link, which nothing here follows to delete."""
    return layout.is_local(uri) and system_files.is_link(uri)


def list_folder(uri: str) -> list[str]:
    """Return the URIs directly below `uri`, sorted; empty if there is nothing."""
    if layout.is_local(uri):
        if not os.path.isdir(uri):
            return []
        return [layout.join(uri, name) for name in sorted(_names(uri))]
    with _reaching(uri) as vfs:
        return sorted(entry.rstrip("/") for entry in vfs.ls(uri) if entry.rstrip("/") != uri)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []  # removed meanwhile
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be read: {error.strerror}; check its permissions"
        ) from error


def own_entries(uri: str) -> list[str]:
    """Return the URIs directly below the folder `uri` that no link leads to."""
    if is_link(uri):
        return []
    return [entry for entry in list_folder(uri) if not is_link(entry)]


def is_something(uri: str) -> bool:
    """Return whether a file or a non-empty folder lies at `uri`."""
    if layout.is_local(uri):
        return os.path.lexists(uri) and (not os.path.isdir(uri) or bool(_names(uri)))
    if list_folder(uri):
        return True
    is_bucket = uri.count("/") <= 2  # which some servers say is an object
    with _reaching(uri) as vfs:
        return not is_bucket and bool(vfs.is_file(uri))


def links_below(uri: str) -> list[str]:
    """Return the paths of the symbolic links below a local folder, none of which is followed."""
    if not layout.is_local(uri):
        return []
    found = (
        os.path.join(folder, name)
        for folder, folders, names in os.walk(uri)
        for name in (*folders, *names)
        if system_files.is_link(os.path.join(folder, name))
    )
    return sorted(os.path.relpath(path, uri).replace(os.sep, "/") for path in found)


def has_files(uri: str) -> bool:
    """Return whether a file lies anywhere below `uri`."""
    if layout.is_local(uri):
        return any(names for _, _, names in os.walk(uri))
    with _reaching(uri) as vfs:
        return any(not entry.endswith("/") for entry in vfs.ls_recursive(f"{uri}/"))


def _remove_stamped(entry: str) -> bool:
    """Remove what has exactly a name that TileDB gives by time, a file or a fragment's folder."""
    name = layout.base_name(entry)
    if tdb.STAMPED.fullmatch(name) is None or is_link(entry):
        return False
    folder = layout.parent(entry)
    if layout.base_name(folder) == tdb.FRAGMENTS:
        owned.remove(layout.parent(folder), owned.ARRAY, folder=f"{tdb.FRAGMENTS}/{name}")
    else:
        remove_file(entry)
    return True


def remove_file(uri: str) -> None:
    """Remove one file; nothing happens if it is not there, and a link or a folder stays."""
    if not layout.is_local(uri):
        with _reaching(uri) as vfs:
            if vfs.is_file(uri):
                vfs.remove_file(uri)
    elif os.path.isfile(uri) and not system_files.is_link(uri):
        try:
            system_files.remove_file(uri)
        except OSError as error:
            raise StorageError(f"{uri} cannot be removed: {error.strerror}") from error


def read_text(uri: str) -> str:
    """Return a small file of plain text."""
    with _reaching(uri) as vfs, vfs.open(uri, "rb") as file:
        return bytes(file.read()).decode("ascii", "replace")


def write_small(uri: str, content: bytes) -> None:
    """Write a small file, whole or not at all."""
    if not layout.is_local(uri):
        with _reaching(uri) as vfs, vfs.open(uri, "wb") as file:
            file.write(content)
        return
    path = Path(uri)
    with room.writing(uri):
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path, durable=False) as part:
            part.write_bytes(content)


def copy_file(source: str, target: str) -> None:
    """Copy one file, from and to a disk or an object store.

    Raises
    ------
    OSError, StorageError
        If it cannot be read or written.
    """
    if layout.is_local(target):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        if layout.is_local(source):
            shutil.copyfile(source, target)
            return
        with (
            _reaching(source) as vfs,
            vfs.open(source, "rb") as reading,
            open(target, "wb") as writing,
        ):
            shutil.copyfileobj(reading, writing, _PIECE_BYTES)
        return
    with (
        _reaching(f"{source} or {target}") as vfs,
        vfs.open(source, "rb") as reading,
        vfs.open(target, "wb") as writing,
    ):
        shutil.copyfileobj(reading, writing, _PIECE_BYTES)


def make_folder(uri: str) -> None:
    """Make a local folder with its parents; an object store has none to make.

    Raises
    ------
    StorageError
        If the system has no such name, no room, or forbids it.
    """
    if not layout.is_local(uri):
        return
    with room.writing(uri):
        try:
            Path(uri).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if room.is_full(error):
                raise
            raise StorageError(f"the folder {uri} cannot be made: {error.strerror}") from error


def remove_folder_if_empty(uri: str) -> None:
    """Remove a local folder that holds nothing."""
    if layout.is_local(uri) and os.path.isdir(uri) and not os.listdir(uri):
        os.rmdir(uri)


def has_schema(uri: str) -> bool:
    """Return whether the array at `uri` has a schema; TileDB takes an empty folder for one."""
    entries = own_entries(layout.join(uri, tdb.SCHEMA))
    return any(tdb.span(layout.base_name(entry)) is not None for entry in entries)


def remove_uncommitted(uri: str) -> None:
    """Remove fragments of the array at `uri` that have no commit marker: no reader sees them.

    Of what readers write without the lock, only those that none of them can be writing any more.
    """
    markers = own_entries(layout.join(uri, tdb.COMMITS))
    fragments = own_entries(layout.join(uri, tdb.FRAGMENTS))
    if any(marker.endswith(tdb.CONSOLIDATED) for marker in markers):
        return
    committed = {layout.base_name(marker).rpartition(".")[0] for marker in markers}
    of_readers = layout.base_name(uri) in layout.DERIVED
    for entry in fragments:
        name = layout.base_name(entry)
        if name not in committed and not (of_readers and _is_being_written(name)):
            _remove_stamped(entry)


def _is_being_written(fragment: str) -> bool:
    """Return whether a process may be writing a fragment: no merge, and begun not long ago."""
    first, last = tdb.span(fragment) or (0, 0)
    return first == last and last > int(time.time() * 1000) - _WRITTEN_BY_THEN_MS


def remove_merged(folder: str) -> None:
    """Remove the files in `folder` whose span of time a merged file there covers."""
    names = {entry: layout.base_name(entry) for entry in own_entries(folder)}
    spans = {e: span for e, name in names.items() if (span := tdb.span(name)) is not None}
    merged = {span for span in spans.values() if span[0] < span[1]}
    covered = [
        entry
        for entry, (first, last) in spans.items()
        if any(a <= first and last <= b and (a, b) != (first, last) for a, b in merged)
    ]
    for entry in covered:
        _remove_stamped(entry)


def remove_after(uri: str, timestamp: int) -> None:
    """Remove what was written to the array or group at `uri` after `timestamp`.

    Commit markers go first, so that a fragment is never visible without its marker's removal
    having failed loudly.
    """
    for folder in _STAMPED_FOLDERS:
        for entry in own_entries(layout.join(uri, folder)):
            span = tdb.span(layout.base_name(entry))
            if span is not None and span[0] > timestamp:
                _remove_stamped(entry)


def remove_written(uri: str, fragments: Iterable[str], marks: Sequence[str]) -> None:
    """Remove fragments of the array at `uri`, and marks of its commits, by name.

    Conditions that delete rows go last: without them the rows would be seen again.
    """
    conditions = [mark for mark in marks if mark.endswith(tdb.DELETED)]
    for mark in marks:
        if mark not in conditions:
            _remove_stamped(layout.join(uri, tdb.COMMITS, mark))
    for name in fragments:
        _remove_stamped(layout.join(uri, tdb.FRAGMENTS, name))
    for mark in conditions:
        _remove_stamped(layout.join(uri, tdb.COMMITS, mark))


def remove_unrecorded(uri: str, recorded: Container[str]) -> None:
    """Remove fragments of the array at `uri`, with their markers and packs, not `recorded`."""
    unseen = [
        entry
        for entry in own_entries(layout.join(uri, tdb.COMMITS))
        if f"{tdb.COMMITS}/{layout.base_name(entry)}" not in recorded
    ]
    for entry in own_entries(layout.join(uri, tdb.FRAGMENTS)):
        if f"{tdb.FRAGMENTS}/{layout.base_name(entry)}/{tdb.FRAGMENT_METADATA}" not in recorded:
            unseen.append(entry)
    for entry in own_entries(layout.join(uri, layout.DIGESTS)):
        path = f"{layout.DIGESTS}/{layout.base_name(entry)}"
        if entry.endswith(".pack") and path not in recorded:
            unseen.append(entry)
    for entry in unseen:
        _remove_stamped(entry)
