"""One change of a data set: locked, written, and then committed or undone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from radiobject.exceptions import StoreExistsError, StoreNotFoundError
from radiobject.storage.commits import compaction, recovery
from radiobject.storage.commits.head import (
    Clock,
    Commit,
    Head,
    group_description,
    is_ours,
    parse_head,
    read_head,
    what_lies_at,
    write_head,
)
from radiobject.storage.io import files, layout
from radiobject.storage.io.lock import acquire
from radiobject.storage.tables import groups


@dataclass
class Transaction:
    """An open commit: what is written at its clock's ticks appears when `commit` is called.

    `head` is the committed state before it, None while the data set is being created.
    """

    uri: str
    operation: str
    clock: Clock
    head: Head | None
    last: Commit | None = None
    n_commits: int = 0
    _emptied: bool = False

    @property
    def timestamp(self) -> int:
        """The timestamp that was last given out."""
        return self.clock.now

    @property
    def rollback_point(self) -> int:
        """The newest committed timestamp; 0 before the first commit."""
        return self.last.timestamp if self.last is not None else 0

    @property
    def locations(self) -> set[str]:
        """Where the collections of any committed state are."""
        before = self.head.locations if self.head is not None else set()
        return before | set(self.last.collections.values() if self.last is not None else ())

    def start_over(self) -> None:
        """Begin an empty state, after everything before was deleted."""
        self._emptied = True

    def counts(self) -> tuple[int, int]:
        """Return how many subjects and volumes the state has that this commit starts from."""
        if self.last is None or self._emptied:
            return 0, 0
        return self.last.n_subjects, self.last.n_volumes

    def commit(
        self,
        *,
        collections: Mapping[str, str] | None = None,
        n_subjects: int,
        n_volumes: int,
        forget: Sequence[Commit] = (),
    ) -> Commit:
        """Publish everything written so far; what follows belongs to the next commit."""
        self.last = Commit(
            timestamp=self.clock.tick(),
            operation="; ".join([self.operation, *self.clock.remarks]),
            written=datetime.now(UTC).isoformat(timespec="milliseconds"),
            collections=dict(collections or {}),
            n_subjects=n_subjects,
            n_volumes=n_volumes,
        )
        write_head(self.uri, self.last, forget)
        self.n_commits += 1
        self._emptied = False
        self.clock.remarks.clear()
        return self.last

    def compact_when_due(self) -> None:
        """Merge small files if enough commits have passed; everything must be committed."""
        before = len(self.head.commits) if self.head is not None else 0
        rounds = compaction.COMMITS_PER_ROUND
        if self.last is not None and before // rounds != (before + self.n_commits) // rounds:
            compaction.compact(self.uri, self.last.collections)


@contextmanager
def transaction(
    uri: str, operation: str, *, break_lock: bool = False, known: Head | None = None
) -> Iterator[Transaction]:
    """Write to the existing data set at `uri`: lock, roll back a dead writer, commit or undo.

    `known` is a head read earlier, the proof that a data set lies there; without it one is read
    before anything is written.

    Raises
    ------
    LockError
        If another writer is at work.
    """
    if known is None:
        read_head(uri)
    lock = acquire(uri, operation, break_lock=break_lock)
    finished = False
    try:
        head = read_head(uri)
        if lock.abandoned:
            recovery.roll_back(uri, head.last.timestamp, head.locations)
        opened = Transaction(uri, operation, Clock(head.last.timestamp), head, last=head.last)
        try:
            yield opened
        except BaseException:
            recovery.roll_back(uri, opened.rollback_point, opened.locations)
            finished = True
            raise
        opened.compact_when_due()
        finished = True
    finally:
        lock.release() if finished else lock.abandon()


@contextmanager
def creation(
    uri: str, kind: str, operation: str, *, name: str | None = None
) -> Iterator[Transaction]:
    """Create a data set at `uri`, or leave nothing there.

    What an earlier creation left unfinished is removed first.

    Raises
    ------
    StoreExistsError
        If a data set or anything else lies at `uri`.
    LockError
        If another process is creating it.
    """
    refuse_existing(uri)
    files.make_folder(uri)
    lock = acquire(uri, operation)
    finished = False
    try:
        refuse_existing(uri)
        recovery.remove_unfinished(uri)
        opened = Transaction(uri, operation, Clock(), None)
        try:
            groups.create(uri, group_description(kind, name=name), opened.timestamp)
            yield opened
        except BaseException:
            if opened.last is None:
                recovery.remove_unfinished(uri)
            else:
                recovery.roll_back(uri, opened.rollback_point, opened.locations)
            finished = True
            raise
        opened.compact_when_due()
        finished = True
    finally:
        lock.release() if finished else lock.abandon()
        if groups.object_kind(uri) is None:
            remove_leftovers(uri)


def remove_leftovers(uri: str) -> None:
    """Remove the lock file and the folder of a data set that is gone."""
    files.remove(layout.join(uri, layout.OWN_FOLDER))
    files.remove_folder_if_empty(uri)


def refuse_existing(uri: str) -> None:
    """Raise a `StoreExistsError` unless `uri` is free or holds an unfinished creation."""
    metadata = groups.read_metadata(uri)
    if metadata is not None and is_ours(metadata):
        try:
            head = parse_head(uri, metadata)
        except StoreNotFoundError:
            return
        raise StoreExistsError(
            f"{uri} already exists: a {head.kind} with {head.last.n_volumes} volumes; open or "
            "append to it, pass exists='resume' or 'replace' where offered, or choose another URI"
        )
    if _only_our_leftovers(uri):
        return
    raise StoreExistsError(
        f"{uri} already exists and is not a RadiObject data set: {what_lies_at(uri)} there; "
        "choose another URI"
    )


def _only_our_leftovers(uri: str) -> bool:
    names = {layout.base_name(entry) for entry in files.list_folder(uri)}
    if not names:
        return not files.is_something(uri)
    # Only a creation of ours leaves the lock; collections may be there to be linked.
    ours = {layout.OWN_FOLDER, layout.COLLECTIONS, *recovery.PARTS}
    return names <= ours and (layout.OWN_FOLDER in names or names == {layout.COLLECTIONS})
