"""One writer at a time, on a folder and on an object store.

A local lock is a POSIX record lock, which the kernel drops with its holder, on a file that says
who holds it. An object store has no such thing: there the lock is an object created on condition
that it does not exist, and a dead holder's is taken over on condition that it has not changed.
Either way the record is emptied by a clean release, so a record found on acquiring means that the
last writer died and that what it left must be rolled back.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path

from radiobject import process
from radiobject.exceptions import LockError, StorageError
from radiobject.storage.io import layout, sharing
from radiobject.storage.io.lock_record import ADVICE, LockRecord, StoreLock
from radiobject.storage.io.object_lock import ObjectLock
from radiobject.system import files, room

_RECORD_BYTES = 4096


def acquire(root: str, operation: str, *, break_lock: bool = False) -> StoreLock:
    """Take the writer's lock of the data set at `root`.

    Parameters
    ----------
    root : str
        Normalised URI of an existing data set.
    operation : str
        What the writer does, for the error that others get.
    break_lock : bool
        Take over a record of another machine too.

    Returns
    -------
    StoreLock
        Its `abandoned` says whether the last writer died and must be rolled back.

    Raises
    ------
    LockError
        If another writer holds it; the message names the holder, the host and the age.
    """
    if layout.is_local(root):
        if sharing.is_shared(root):
            sharing.refuse_private_umask(root)
        return _LocalLock(root, operation)
    return ObjectLock(root, operation, break_lock)


_held: set[Hashable] = set()
_held_guard = threading.Lock()


def _renew_in_child() -> None:
    """Give a forked child a guard of its own: it holds none of its parent's locks."""
    global _held_guard
    _held_guard = threading.Lock()
    _held.clear()


process.at_fork("writers", in_child=_renew_in_child)


def _identity(folder: str) -> Hashable:
    """Return what a folder is known by under each of its names.

    Two mounts may show it, and where case makes no difference it has many.
    """
    with suppress(OSError):
        state = os.stat(folder)
        if state.st_ino:
            return state.st_dev, state.st_ino
    return os.path.realpath(folder)


class _LocalLock:
    def __init__(self, root: str, operation: str) -> None:
        self._path = Path(os.path.realpath(root)) / layout.LOCK
        self._key = _identity(root)
        self._claim_in_process(root, operation)
        try:
            self._fd = self._open(root)
        except BaseException:
            self._forget()
            raise
        try:
            self.abandoned = os.fstat(self._fd).st_size > 0
            with room.writing(root):
                self._write(LockRecord.mine(operation).dump())
        except BaseException:
            self.abandon()
            raise

    def _open(self, root: str) -> int:
        """Open and lock the file that is at the path now, not one that was removed meanwhile."""
        while True:
            with room.writing(root):
                self._path.parent.mkdir(exist_ok=True)
                fd = self._open_file(root)
            try:
                locked = files.lock(fd)
                if locked and self._is_at_path(fd):
                    return fd
            except OSError as error:
                os.close(fd)
                raise StorageError(
                    f"{root} cannot be locked: {error.strerror}; it can be read, but a share "
                    "without locks is no place to write to: write on a local disk and take it "
                    "there with radiobject cp, or mount the share with locks"
                ) from error
            holder = None if locked else LockRecord.parse(files.read_at(fd, _RECORD_BYTES, 0))
            os.close(fd)
            if not locked:
                who = holder.describe() if holder else "another process"
                raise LockError(f"{root} is being written by {who}; {ADVICE}")

    def _open_file(self, root: str) -> int:
        try:
            return files.open_when_gone(self._path)
        except PermissionError as error:
            raise StorageError(
                f"{root} cannot be written: {self._path}: {error.strerror}; ask its owner for the "
                "permission (a data set that a group writes is made with shared=True), or work on "
                "a copy; where another program has that file open, close that program"
            ) from error

    def _is_at_path(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path, follow_symlinks=False))
        except (FileNotFoundError, PermissionError):  # Windows: it is gone once this one is closed
            return False

    def _claim_in_process(self, root: str, operation: str) -> None:
        # A record lock belongs to the process: a second one in it would be granted.
        with _held_guard:
            if self._key in _held:
                raise LockError(
                    f"{root} is being written by this process already, so it cannot start "
                    f"{operation}; finish the open writer first"
                )
            _held.add(self._key)

    def _forget(self) -> None:
        with _held_guard:
            _held.discard(self._key)

    def _write(self, raw: bytes) -> None:
        # Never empty in between: what a dead writer left is known by a record being there.
        try:
            files.write_at(self._fd, raw, 0)
        except OSError as error:
            if not room.is_full(error):
                raise
        # A full disk still takes the length: a file of nothing but zeros is a record, too, which
        # names nobody. So what makes room can be done under the lock.
        os.ftruncate(self._fd, len(raw))

    def is_held(self) -> bool:
        return True  # The kernel gives it to nobody else while this process lives.

    def release(self) -> None:
        try:
            self._write(b"")
        finally:
            self.abandon()

    def abandon(self) -> None:
        try:
            files.unlock(self._fd)
        finally:
            os.close(self._fd)
        self._forget()
