"""The writer's lock on an object store: an object that is made on condition that it is not there.

Some servers ignore conditions, and let everybody make it: so whoever took it proves at once that it
cannot be made again. An answer may be lost on its way: what is there then has this writer's token.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from radiobject.exceptions import LockError, StorageError
from radiobject.storage.io import layout, object_store
from radiobject.storage.io.lock_record import ADVICE, LockRecord

T = TypeVar("T")

_RELEASE_PATIENCE_S = 3.0
"""At least so long a release is tried, however little patience is asked for."""
_log = logging.getLogger(__name__)


class ObjectLock:
    """The held lock of the data set at `root`; see `lock.acquire` for parameters and errors."""

    def __init__(self, root: str, operation: str, break_lock: bool) -> None:
        if not object_store.usable():
            raise StorageError(
                f"{root} cannot be written by this process: it was forked from one that had used "
                "the network; start it by spawn or forkserver"
            )
        self._root = root
        # Which failures are worth another try is said here: a missing feature is none.
        self._store = object_store.open_store(*object_store.split(root), retries=False)
        self._record = LockRecord.mine(operation)
        self.abandoned = False
        if not self._create():
            self._take_over(break_lock)
        self._prove()

    def _create(self) -> bool:
        """Make the object, and return whether it was not there before."""
        from obstore.exceptions import AlreadyExistsError

        try:
            self._put("create")
        except AlreadyExistsError:
            return False
        return True

    def _put(self, mode: Any) -> None:
        """Write this writer's record on a condition, whose failure is left to the caller."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            self._ask(lambda: self._store.put(layout.LOCK, self._record.dump(), mode=mode))
        except (AlreadyExistsError, PreconditionError):
            raise
        except (BaseError, OSError) as error:
            if object_store.says_unsupported(error):
                raise self._without_conditions("refuses") from None
            raise StorageError(
                f"cannot write to {self._root}: {object_store.said(error)}; check the bucket, the "
                "credentials and what they permit"
            ) from None

    def _ask(self, request: Callable[[], T], least_s: float = 0.0) -> T:
        return object_store.patiently(request, least_s=least_s)

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
        condition, raw = self._read()
        # A lock file that was copied from a disk, where releasing empties it.
        released = not raw.strip()
        holder = LockRecord.parse(raw)
        if holder is not None and holder.token == self._record.token:
            return  # made by this writer, whose answer was lost
        if not (released or break_lock or (holder is not None and holder.is_dead())):
            who = holder.describe() if holder else "a writer of another version"
            raise LockError(f"{self._root} is being written by {who}; {ADVICE}")
        self.abandoned = not released
        if break_lock:
            self._delete(holder.token if holder is not None else None)
            if self._create():
                return
        elif self._replace(condition, raw):
            return
        raise LockError(f"another writer took over {self._root} at the same moment; {ADVICE}")

    def _read(self) -> tuple[dict[str, str], bytes]:
        try:
            return self._found()
        except FileNotFoundError:
            raise LockError(f"{self._root} was just released by its writer; try again") from None

    def _found(self) -> tuple[dict[str, str], bytes]:
        """Return tag, version and content of the object; FileNotFoundError if there is none."""
        from obstore.exceptions import BaseError

        def ask() -> tuple[dict[str, str], bytes]:
            found = self._store.get(layout.LOCK)
            # Google compares versions, the others tags.
            known = {name: found.meta.get(name) for name in ("e_tag", "version")}
            return {n: str(v) for n, v in known.items() if v}, bytes(found.bytes())

        try:
            return self._ask(ask)
        except FileNotFoundError:
            raise
        except (BaseError, OSError) as error:
            raise StorageError(
                f"the lock of {self._root} cannot be read: {object_store.said(error)}; check what "
                "the credentials permit"
            ) from None

    def _replace(self, condition: dict[str, str], raw: bytes) -> bool:
        """Put this writer's record in the place of `raw`, if nobody else did."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        # Ceph 16 compares the condition with the tag without its quotes.
        tag = condition.get("e_tag", "")
        for form in dict.fromkeys((tag, tag.strip('"'))):
            try:
                self._put(condition | {"e_tag": form} if form else condition)
            except (AlreadyExistsError, PreconditionError):
                found = self._read()
                if found != (condition, raw):
                    return found[1] == self._record.dump()
            else:
                return True
        return False

    def is_held(self) -> bool:
        """Return whether the lock is still this writer's: a person may have broken it meanwhile."""
        try:
            holder = LockRecord.parse(self._found()[1])
        except FileNotFoundError:
            return False
        return holder is not None and holder.token == self._record.token

    def release(self) -> None:
        """Give the lock back; what was committed is committed, even if that does not succeed."""
        try:
            self._delete(least_s=_RELEASE_PATIENCE_S)
        except StorageError as error:
            _log.warning(
                "%s was written and its lock could not be given back (%s); the next writer on this "
                "machine takes it over, others with repair(break_lock=True)",
                self._root, error,
            )  # fmt: skip

    def _delete(self, broken: str | None = None, least_s: float = 0.0) -> None:
        """Remove this writer's lock, or the `broken` one, and not that of another."""
        from obstore.exceptions import BaseError

        def give_up() -> None:
            # Looked at before each attempt: one whose answer was lost may have removed it, and
            # what is there then is the lock of the next writer.
            holder = LockRecord.parse(bytes(self._store.get(layout.LOCK).bytes()))
            if holder is None or holder.token in (self._record.token, broken):
                self._store.delete(layout.LOCK)

        try:
            self._ask(give_up, least_s)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise StorageError(
                f"the lock of {self._root} cannot be removed: {object_store.said(error)}"
            ) from None

    def abandon(self) -> None:
        """Leave the object where it is: its record is what tells the next writer."""
