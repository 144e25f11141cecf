"""One writer at a time, on a folder and on an object store.

A local lock is a POSIX record lock, which the kernel drops with its holder, on a file that says
who holds it. An object store has no such thing: there the lock is an object created on condition
that it does not exist, and a dead holder's is taken over on condition that it has not changed.
Either way the record is emptied by a clean release, so a record found on acquiring means that the
last writer died and that what it left must be rolled back.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from radiobject import process
from radiobject.exceptions import LockError, StorageError
from radiobject.storage.io import layout, object_store
from radiobject.system import files
from radiobject.system.processes import pid_space

_ADVICE = "wait for it to finish, or run repair(break_lock=True) if it is gone for good"
_RECORD_BYTES = 4096
_log = logging.getLogger(__name__)
_OPERATION_LENGTH = 200
"""An operation may name a collection of any length; the record is read in one piece."""


@dataclass(frozen=True)
class LockRecord:
    """Who holds a store, since when, and for which commit."""

    host: str
    pid: int
    pid_space: str
    process_started: float
    acquired: float
    token: str
    operation: str

    @classmethod
    def mine(cls, operation: str) -> LockRecord:
        """Return a new record of this process."""
        process = psutil.Process()
        return cls(
            host=socket.gethostname(),
            pid=process.pid,
            pid_space=pid_space(),
            process_started=process.create_time(),
            acquired=time.time(),
            token=uuid.uuid4().hex,
            operation=operation[:_OPERATION_LENGTH],
        )

    @classmethod
    def parse(cls, raw: bytes) -> LockRecord | None:
        """Return the record in `raw`; None if there is none or it was cut off while written."""
        try:
            fields = json.loads(raw)
            return cls(**fields)
        except (ValueError, TypeError):
            return None

    def dump(self) -> bytes:
        """Return the record as bytes."""
        return json.dumps(asdict(self)).encode()

    def is_dead(self) -> bool:
        """Return whether the holder ran on this machine and does not any more.

        Only where process ids mean the same: two containers, or two machines, may have one name.
        """
        if (self.host, self.pid_space) != (socket.gethostname(), pid_space()):
            return False
        try:
            started = psutil.Process(self.pid).create_time()
        except psutil.NoSuchProcess:
            return True
        return abs(started - self.process_started) > 1.0

    def describe(self) -> str:
        """Return holder, host and age for an error message."""
        age = max(0.0, time.time() - self.acquired)
        return f"process {self.pid} on {self.host!r}, {self.operation}, for {age:.0f} s"


class StoreLock(Protocol):
    """A held lock."""

    abandoned: bool

    def release(self) -> None:
        """Give the lock back after a clean end."""

    def abandon(self) -> None:
        """Give the lock back but leave the record, so that the next writer rolls back."""


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
        Its `abandoned` tells whether the last writer died and must be rolled back.

    Raises
    ------
    LockError
        If another writer holds it; the message names the holder, the host and the age.
    """
    if layout.is_local(root):
        return _LocalLock(root, operation)
    return _ObjectLock(root, operation, break_lock)


_held: set[str] = set()
_held_guard = threading.Lock()


def _renew_in_child() -> None:
    """Give a forked child a guard of its own: it holds none of its parent's locks."""
    global _held_guard
    _held_guard = threading.Lock()
    _held.clear()


process.at_fork("writers", in_child=_renew_in_child)


class _LocalLock:
    def __init__(self, root: str, operation: str) -> None:
        self._path = Path(os.path.realpath(root)) / layout.LOCK
        self._key = str(self._path)
        self._claim_in_process(root, operation)
        try:
            self._fd = self._open(root)
        except BaseException:
            self._forget()
            raise
        try:
            self.abandoned = os.fstat(self._fd).st_size > 0
            self._write(LockRecord.mine(operation).dump())
        except BaseException:
            self.abandon()
            raise

    def _open(self, root: str) -> int:
        """Open and lock the file that is at the path now, not one that was removed meanwhile."""
        while True:
            try:
                self._path.parent.mkdir(exist_ok=True)
                fd = files.open_private(self._path)
            except OSError as error:
                raise StorageError(
                    f"cannot write to {root}: {error.strerror}; check the folder's permissions"
                ) from error
            try:
                locked = files.lock(fd)
                if locked and self._is_at_path(fd):
                    return fd
            except OSError as error:
                os.close(fd)
                raise StorageError(
                    f"{root} cannot be locked: {error.strerror}; a share without locks is no place "
                    "to write to: write on a local disk and copy, or mount it with locks"
                ) from error
            holder = None if locked else LockRecord.parse(files.read_at(fd, _RECORD_BYTES, 0))
            os.close(fd)
            if not locked:
                who = holder.describe() if holder else "another process"
                raise LockError(f"{root} is being written by {who}; {_ADVICE}")

    def _is_at_path(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path, follow_symlinks=False))
        except FileNotFoundError:
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
        files.write_at(self._fd, raw, 0)
        os.ftruncate(self._fd, len(raw))

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


class _ObjectLock:
    """A lock that is an object, made on condition that it is not there.

    Some servers ignore conditions and let everybody make it. So whoever took it proves at once
    that it cannot be made again.
    """

    def __init__(self, root: str, operation: str, break_lock: bool) -> None:
        self._root = root
        self._store = _object_store(root)
        self._record = LockRecord.mine(operation)
        self.abandoned = False
        if not self._create():
            self._take_over(break_lock)
        self._prove()

    def _create(self) -> bool:
        from obstore.exceptions import AlreadyExistsError, BaseError

        try:
            self._store.put(layout.LOCK, self._record.dump(), mode="create")
        except AlreadyExistsError:
            return False
        except (BaseError, OSError) as error:
            if _says_unsupported(error):
                raise self._without_conditions("refuses") from None
            raise StorageError(
                f"cannot write to {self._root} ({type(error).__name__}); check the bucket, the "
                "credentials and what they permit"
            ) from None
        return True

    def _prove(self) -> None:
        """Refuse a server on which the object that is there now could be made once more."""
        if self._create():
            self._delete()
            raise self._without_conditions("ignores")

    def _without_conditions(self, verb: str) -> StorageError:
        return StorageError(
            f"the server of {self._root} {verb} conditional writes (If-None-Match), without which "
            "two writers would destroy each other's work; write to a server that has them (AWS, "
            "SeaweedFS), or write to a disk and copy the data set"
        )

    def _take_over(self, break_lock: bool) -> None:
        etag, raw = self._read()
        # A lock file that was copied from a disk, where releasing empties it.
        released = not raw.strip()
        holder = LockRecord.parse(raw)
        if not (released or break_lock or (holder is not None and holder.is_dead())):
            who = holder.describe() if holder else "a writer of another version"
            raise LockError(f"{self._root} is being written by {who}; {_ADVICE}")
        self.abandoned = not released
        if break_lock:
            self._delete(holder.token if holder is not None else None)
            if self._create():
                return
        elif self._replace(etag, raw):
            return
        raise LockError(f"another writer took over {self._root} at the same moment; {_ADVICE}")

    def _read(self) -> tuple[str, bytes]:
        try:
            found = self._store.get(layout.LOCK)
            return str(found.meta["e_tag"]), bytes(found.bytes())
        except FileNotFoundError:
            raise LockError(f"{self._root} was just released by its writer; try again") from None

    def _replace(self, etag: str, raw: bytes) -> bool:
        """Put this writer's record in the place of `raw`, if nobody else did."""
        from obstore.exceptions import BaseError

        # Ceph 16 compares the condition with the tag without its quotes.
        for tag in (etag, etag.strip('"')):
            try:
                self._store.put(layout.LOCK, self._record.dump(), mode={"e_tag": tag})
            except (BaseError, OSError) as error:
                if _says_unsupported(error):
                    raise self._without_conditions("refuses") from None
                if self._read() != (etag, raw):
                    return False
            else:
                return True
        return False

    def release(self) -> None:
        """Give the lock back; what was committed is committed, even if that does not succeed."""
        for wait in (0.1, 0.5, 2.0, None):
            try:
                self._delete()
            except StorageError as error:
                if wait is not None:
                    time.sleep(wait)
                    continue
                _log.warning(
                    "%s was written and its lock could not be given back (%s); the next writer on "
                    "this machine takes it over, others with repair(break_lock=True)",
                    self._root, error,
                )  # fmt: skip
            return

    def _delete(self, broken: str | None = None) -> None:
        """Remove this writer's lock, or the `broken` one, and not that of another."""
        from obstore.exceptions import BaseError

        try:
            raw = bytes(self._store.get(layout.LOCK).bytes())
            holder = LockRecord.parse(raw)
            if holder is None or holder.token in (self._record.token, broken):
                self._store.delete(layout.LOCK)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            reason = str(error).partition("\n")[0][:200]
            raise StorageError(f"the lock of {self._root} cannot be removed: {reason}") from error

    def abandon(self) -> None:
        """Leave the object where it is: its record is what tells the next writer."""


def _says_unsupported(error: BaseException) -> bool:
    return "NotSupported" in type(error).__name__ or "501" in str(error)[:400]


def _object_store(root: str) -> Any:
    if not object_store.usable():
        raise StorageError(
            f"{root} cannot be written by this process: it was forked from one that had used the "
            "network; start it by spawn or forkserver"
        )
    return object_store.open_store(*object_store.split_s3(root))
