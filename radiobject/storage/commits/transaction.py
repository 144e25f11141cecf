"""One change of a data set: locked, written, and then committed or undone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from radiobject.ctx import get_radiobject_config
from radiobject.exceptions import (
    LockError,
    StorageError,
    StoreExistsError,
    StoreNotFoundError,
)
from radiobject.storage.commits import compaction, recovery
from radiobject.storage.commits.head import (
    Clock,
    Commit,
    Head,
    group_description,
    is_ours,
    parse_head,
    read_head,
    record_key,
    what_lies_at,
    write_head,
    write_manifest,
)
from radiobject.storage.io import files, layout, owned, sharing
from radiobject.storage.io import tiledb_names as tdb
from radiobject.storage.io.checksum import digest
from radiobject.storage.io.lock import acquire
from radiobject.storage.io.lock_record import StoreLock
from radiobject.storage.tables import digests, groups
from radiobject.storage.tables.digests import Files, Manifest


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
    published: int = 0
    manifest: Manifest | None = None
    lock: StoreLock | None = None
    _emptied: bool = False

    def __post_init__(self) -> None:
        self.started = self.clock.now

    @property
    def timestamp(self) -> int:
        """The timestamp that was last given out."""
        return self.clock.now

    @property
    def rollback_point(self) -> int:
        """The newest published timestamp; 0 before the first commit."""
        return self.published

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
        made = Commit(
            timestamp=self.clock.tick(),
            operation="; ".join([self.operation, *self.clock.remarks]),
            written=datetime.now(UTC).isoformat(timespec="milliseconds"),
            collections=dict(collections or {}),
            n_subjects=n_subjects,
            n_volumes=n_volumes,
        )
        recorded = self._record(made.timestamp)
        new = self._new_files(self.manifest, recorded)
        packed = {record_key(made.timestamp): digests.pack(new)} if new else {}
        keys = {**recorded.keys, **{key: digest(value) for key, value in packed.items()}}
        self._refuse_broken_lock()
        # Only what was published is kept here: without room for it, the caller may try once more.
        write_head(self.uri, made, forget, packed, digests.sum_of(keys))
        recorded = replace(recorded, keys=keys, states=self._states(made, forget))
        self.last, self.manifest = made, digests.keep(self.uri, recorded)
        self.published = self.last.timestamp
        self.n_commits += 1
        self._emptied = False
        self.clock.remarks.clear()
        return self.last

    def _refuse_broken_lock(self) -> None:
        """Publish nothing over the work of who broke the lock, taking this writer for dead."""
        if self.is_fenced_out():
            raise LockError(
                f"the lock of {self.uri} was broken while {self.operation} was at work, and others "
                "may have changed the data set since: the rest of it is not committed; open the "
                "data set anew and repeat what is missing"
            )

    def is_fenced_out(self) -> bool:
        """Return whether somebody else has, or had, the lock since this change began."""
        return self.lock is not None and not self.lock.is_held()

    def roll_back(self) -> None:
        """Undo what was not committed; nothing where the lock was broken, for it is others' now.

        Readers take the files that commits record alone, and the next writer removes the others.
        """
        if not self.is_fenced_out():
            recovery.roll_back(self.uri, self.rollback_point, self.locations, self.manifest)

    def _states(self, made: Commit, forget: Sequence[Commit]) -> frozenset[int]:
        """Return the timestamps in the history once `made` is in it: objects of this process that
        were opened at another one learn by it that their state is gone."""
        before = self.head.commits if self.head is not None else ()
        states = frozenset(state.timestamp for state in before)
        if self.manifest is not None:
            states = self.manifest.states
        return states - {state.timestamp for state in forget} | {made.timestamp}

    def _record(self, timestamp: int) -> Manifest:
        """Return the record of table files with those that were written since the last commit."""
        before = self.manifest
        touched = digests.take_touched(self.uri)
        if before is None and self.head is not None:
            # Of a data set of an older format, every table is recorded now.
            touched |= set(compaction.tables_of(self.uri, self.locations))
        tables = {} if before is None else dict(before.tables)
        for uri in sorted(touched):
            place = uri.removeprefix(f"{self.uri}/")
            known = tables.get(place, {})
            found = digests.new_files(uri, known, self._wrote if known else None)
            if found or known:
                tables[place] = {**known, **found}
        return Manifest(timestamp, tables, {} if before is None else before.keys)

    def _wrote(self, path: str) -> bool:
        """Return whether a table's file is of this change, told by the time in its path.

        Others that no commit records came with a copy made by another program, or are what a dead
        writer left.
        """
        spans = (tdb.span(part) for part in path.split("/"))
        return any(span[0] >= self.started for span in spans if span is not None)

    @staticmethod
    def _new_files(before: Manifest | None, after: Manifest) -> dict[str, Files]:
        known = {} if before is None else before.tables
        new = {}
        for place, recorded in after.tables.items():
            old = known.get(place, {})
            if recorded is not old:
                new[place] = {path: entry for path, entry in recorded.items() if path not in old}
        return {place: recorded for place, recorded in new.items() if recorded}

    def record_merge(self, tables: Mapping[str, Files]) -> None:
        """Publish the record of tables whose files were merged; all else stays as it is."""
        if self.manifest is not None:
            self._refuse_broken_lock()
            merged = replace(self.manifest, tables={**self.manifest.tables, **tables})
            self.published = self.clock.tick()
            self.manifest = write_manifest(self.uri, merged, self.published)

    def compact_when_due(self) -> None:
        """Merge small files if enough commits have passed; everything must be committed."""
        before = len(self.head.commits) if self.head is not None else 0
        rounds = compaction.COMMITS_PER_ROUND
        if self.last is not None and before // rounds != (before + self.n_commits) // rounds:
            compaction.compact(self, self.last.collections)


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
        for place in head.locations:
            layout.located(uri, place)  # refuses what lies elsewhere before anything is written
        committed = (uri, head.timestamp, head.locations, digests.known(uri))
        if lock.abandoned or recovery.holds_more(*committed):
            recovery.roll_back(*committed)
        digests.take_touched(uri)
        opened = Transaction(
            uri,
            operation,
            Clock(head.timestamp),
            head,
            last=head.last,
            published=head.timestamp,
            manifest=digests.known(uri),
            lock=lock,
        )
        try:
            yield opened
        except BaseException:
            opened.roll_back()
            finished = True
            raise
        opened.compact_when_due()
        finished = True
    finally:
        lock.release() if finished else lock.abandon()


@contextmanager
def creation(
    uri: str, kind: str, operation: str, *, name: str | None = None, shared: bool | None = None
) -> Iterator[Transaction]:
    """Create a data set at `uri`, or leave nothing there.

    What an earlier creation left unfinished is removed first. The users of its group may change it
    if it is `shared`; the settings say so where this is None.

    Raises
    ------
    StoreExistsError
        If a data set or anything else lies at `uri`.
    LockError
        If another process is creating it.
    ConfigurationError, StorageError
        If it cannot be shared; see `sharing.refuse_unshareable`.
    """
    layout.refuse_long(uri)
    refuse_existing(uri)
    if shared is None:
        shared = get_radiobject_config().write.shared and layout.is_local(uri)
    if shared:
        sharing.refuse_unshareable(uri)
    files.make_folder(uri)
    lock = _new_lock(uri, operation, shared)
    finished = False
    try:
        refuse_existing(uri)
        recovery.remove_unfinished(uri)
        digests.take_touched(uri)
        opened = Transaction(uri, operation, Clock(), None)
        try:
            groups.create(uri, group_description(kind, name=name), opened.timestamp)
            yield opened
        except BaseException:
            if opened.last is None:
                recovery.remove_unfinished(uri)
            else:
                recovery.roll_back(uri, opened.rollback_point, opened.locations, opened.manifest)
            finished = True
            raise
        opened.compact_when_due()
        finished = True
    finally:
        lock.release() if finished else lock.abandon()
        # An empty folder that some object stores keep looks like a group.
        if not is_ours(groups.read_metadata(uri) or {}):
            remove_leftovers(uri)


def _new_lock(uri: str, operation: str, shared: bool) -> StoreLock:
    """Take the lock of a data set that is to be made; leave nothing where none can be had."""
    try:
        if shared:
            sharing.mark(uri)
        return acquire(uri, operation)
    except LockError:
        raise  # it is another process's
    except StorageError:
        remove_leftovers(uri)
        raise


def remove_leftovers(uri: str) -> None:
    """Remove the lock file and the folder of a data set that is gone."""
    owned.remove(uri, owned.OWN_FOLDER, folder=layout.OWN_FOLDER if layout.is_local(uri) else "")
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
    # Tables and volumes without a head are a copy that was broken off: a creation begins with the
    # group, and a removal ends with it.
    if any(files.has_files(layout.join(uri, name)) for name in names & set(recovery.WITH_CONTENT)):
        return False
    ours = {layout.OWN_FOLDER, layout.COLLECTIONS, *recovery.PARTS}
    return names <= ours and (layout.OWN_FOLDER in names or names == {layout.COLLECTIONS})
