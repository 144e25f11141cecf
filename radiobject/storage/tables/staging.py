"""Compared copies of the files of a remote table, kept for the next read of the same state.

libtiledb opens these copies: what was compared is what is read. A table's files never change, so of
a newer state only those are fetched that an older one did not have.
"""

from __future__ import annotations

import atexit
import os
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from radiobject import process
from radiobject.exceptions import IntegrityError, StorageError
from radiobject.storage.io.array_files import open_files
from radiobject.storage.io.checksum import digest
from radiobject.storage.tables import packs
from radiobject.system import files, temporary

Files = dict[str, tuple[int, str]]
"""Path of each file below the table: its size and digest."""

_FETCHES = 16
_KEPT_BYTES = 256 << 20
_WRITTEN_BYTES = 32 << 20
"""Files that this process has just written, and will read next."""
_PREFIX = "radiobject-tables-"
_HELD = "held"
_GRACE_S = 60.0
"""A folder so young may belong to a process that has not locked it yet."""


class _Copy:
    """A folder with exactly the recorded files of a table at one state."""

    def __init__(self, folder: Path, recorded: Files) -> None:
        self.folder = folder
        self.recorded = recorded
        self.size = sum(size for size, _ in recorded.values())
        self.users = 0


_copies: OrderedDict[str, _Copy] = OrderedDict()
_lock = threading.Lock()
_base: Path | None = None


_written: dict[tuple[str, str, int, str], bytes] = {}


def keep_content(table_uri: str, path: str, entry: tuple[int, str], content: bytes) -> None:
    """Keep a file that this process has just written, and compared, for its next read."""
    if len(content) > _WRITTEN_BYTES // 8:
        return
    if sum(map(len, tuple(_written.values()))) + len(content) > _WRITTEN_BYTES:
        _written.clear()
    _written[table_uri, path, *entry] = content


@contextmanager
def staged(table_uri: str, recorded: Files) -> Iterator[str]:
    """Give a folder with the recorded files of a table, each compared with its record.

    Raises
    ------
    StorageError
        If a file cannot be fetched.
    IntegrityError
        If it is not what was written, twice.
    """
    copy = _leased(table_uri, recorded)
    try:
        yield str(copy.folder)
    finally:
        with _lock:
            copy.users -= 1
        _drop_unused(copy)


def _leased(table_uri: str, recorded: Files) -> _Copy:
    with _lock:
        known = _copies.get(table_uri)
        if known is not None:
            known.users += 1
            if known.recorded == recorded:
                _copies.move_to_end(table_uri)
                return known
    try:
        with temporary.keeping(f"the table {table_uri}"):
            made = _Copy(Path(tempfile.mkdtemp(dir=_folder())), recorded)
            made.users = 1
            try:
                _fill(made, table_uri, known)
            except BaseException:
                files.discard_tree(made.folder)
                raise
    finally:
        if known is not None:
            with _lock:
                known.users -= 1
    with _lock:
        dropped = [old for old in [_copies.pop(table_uri, None)] if old is not None]
        _copies[table_uri] = made
        while sum(copy.size for copy in _copies.values()) > _KEPT_BYTES and len(_copies) > 1:
            dropped.append(_copies.popitem(last=False)[1])
    for old in dropped:
        _drop_unused(old)
    return made


def _drop_unused(copy: _Copy) -> None:
    """Remove a copy that nobody reads any more and that is not kept."""
    with _lock:
        if copy.users or any(kept is copy for kept in _copies.values()):
            return
    files.discard_tree(copy.folder)


def _fill(copy: _Copy, table_uri: str, known: _Copy | None) -> None:
    """Bring every recorded file into the folder: from an older copy, from packs, one by one."""
    wanted = {p: entry for p, entry in copy.recorded.items() if not packs.is_pack(p)}
    for parent in {str(Path(path).parent) for path in wanted}:
        (copy.folder / parent).mkdir(parents=True, exist_ok=True)
    if known is not None:
        for path in [p for p, entry in wanted.items() if known.recorded.get(p) == entry]:
            with suppress(OSError):
                files.hard_link(known.folder / path, copy.folder / path)
                del wanted[path]
    for path in tuple(wanted):
        content = _written.get((table_uri, path, *wanted[path]))
        if content is not None:
            (copy.folder / path).write_bytes(content)
            del wanted[path]
    source = open_files(table_uri)

    def fetch_pack(path: str) -> Mapping[str, bytes]:
        with suppress(StorageError):
            return packs.unpacked(source.read(path, copy.recorded[path][0]))
        return {}

    def fetch(path: str) -> None:
        size, expected = wanted[path]
        for attempt in range(2):  # altered on its way, perhaps
            content = source.read(path, size) if size else b""
            if len(content) == size and digest(content) == expected:
                break
            if attempt:
                raise altered(f"{table_uri}/{path}", "is not the file that was written")
        (copy.folder / path).write_bytes(content)

    new = [p for p in copy.recorded if packs.is_pack(p)]
    if known is not None:
        new = [p for p in new if p not in known.recorded]
    with process.new_threads("digest", _FETCHES) as threads:
        for found in threads.map(fetch_pack, new if wanted else ()):
            for path, content in found.items():
                if wanted.get(path) == (len(content), digest(content)):
                    (copy.folder / path).write_bytes(content)
                    del wanted[path]
        list(threads.map(fetch, tuple(wanted)))


def altered(where: str, what: str) -> IntegrityError:
    """Return the error that says that a file of a table is not what a commit recorded."""
    return IntegrityError(
        f"the table file {where} {what}; restore it from a copy of the data set, or open an older "
        "state with at= if that does not need it"
    )


def _folder() -> Path:
    """Return this process's folder for copies, made now if it has none; what the dead left goes."""
    global _base
    with _lock:
        if _base is not None and _base.is_dir():
            return _base
        _remove_dead()
        base = Path(tempfile.mkdtemp(prefix=_PREFIX))
        # Held until the process ends, however it ends. Where there are no locks, nobody removes
        # what it leaves when it is killed: who cannot lock cannot tell.
        held = files.open_private(base / _HELD)
        with suppress(OSError):
            files.lock(held)
        _base = base
        atexit.register(_remove_own, _base, held, os.getpid())
        return _base


def _remove_own(base: Path, held: int, pid: int) -> None:
    if os.getpid() == pid:
        os.close(held)  # some systems delete no file that is open
        files.discard_tree(base)


def _remove_dead() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime < _GRACE_S:
                continue
            fd = files.open_private(folder / _HELD, create=False)
            try:
                dead = files.lock(fd)
            finally:
                os.close(fd)
            if dead:
                files.discard_tree(folder)


def clear() -> None:
    """Forget every copy; the next read of a table fetches it anew."""
    with _lock:
        dropped = list(_copies.values())
        _copies.clear()
        _written.clear()
    for copy in dropped:
        _drop_unused(copy)


def _restart_in_child() -> None:
    """Leave to the parent what is the parent's."""
    global _lock, _base
    _lock = threading.Lock()
    _base = None
    _copies.clear()


process.at_fork("table copies", in_child=_restart_in_child)
