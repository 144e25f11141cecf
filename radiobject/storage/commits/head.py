"""The commit protocol: rows and volumes first, the head last.

Every write of a commit carries one timestamp T. The last write records the commit and sets the
head to T, in one metadata file and so all at once. Readers open every table at the head, so what
an unfinished commit wrote is invisible; the next writer removes it (`radiobject.storage.commits.recovery`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from radiobject.exceptions import StorageError, StoreExistsError, StoreNotFoundError
from radiobject.storage.commits import compaction, recovery
from radiobject.storage.io import files, layout
from radiobject.storage.io.lock import acquire
from radiobject.storage.tables import groups

ROOT = "radiobject"
COLLECTION = "collection"

_KIND = "radiobject.kind"
_VERSION = "radiobject.format_version"
_HEAD = "head"
_COMMIT = "commit:"
NAME = "name"
OWNER = "owner"


@dataclass(frozen=True)
class Commit:
    """One committed state of a data set.

    Parameters
    ----------
    timestamp : int
        Milliseconds since 1970, strictly rising; every row of the commit carries it.
    operation : str
        What was done.
    written : str
        ISO 8601 time, UTC.
    collections : dict of str to str
        Name of each collection and its location, relative to the root or absolute.
    n_subjects, n_volumes : int
        Size of the data set in this state.
    """

    timestamp: int
    operation: str
    written: str
    collections: dict[str, str] = field(default_factory=dict)
    n_subjects: int = 0
    n_volumes: int = 0


@dataclass(frozen=True)
class Head:
    """What a data set's group says of itself."""

    uri: str
    kind: str
    name: str | None
    owner: str | None
    commits: tuple[Commit, ...]

    @property
    def last(self) -> Commit:
        """The committed state that readers see."""
        return self.commits[-1]

    @property
    def locations(self) -> set[str]:
        """Where the collections of any state are."""
        return {place for commit in self.commits for place in commit.collections.values()}

    def at(self, when: int | datetime | None) -> Commit:
        """Return the state at a timestamp (ms), at a time, or `when` < 0 commits from the end.

        Raises
        ------
        StorageError
            If there was no commit by then.
        """
        if when is None:
            return self.last
        if isinstance(when, datetime):
            when = int(when.timestamp() * 1000)
        if when < 0:
            found = [self.commits[when]] if -when <= len(self.commits) else []
        else:
            found = [commit for commit in self.commits if commit.timestamp <= when][-1:]
        if not found:
            first = self.commits[0]
            raise StorageError(
                f"{self.uri} has no commit at {when}; its oldest is {first.timestamp} "
                f"({first.written}), see history()"
            )
        return found[0]


def read_head(uri: str) -> Head:
    """Return the head of the data set at `uri`.

    Raises
    ------
    StoreNotFoundError
        If nothing is there, or something else, or a data set whose creation never finished.
    StorageError
        If it is of a newer format.
    """
    metadata = groups.read_metadata(uri)
    if metadata is None:
        raise StoreNotFoundError(
            f"no RadiObject data set at {uri}: {_what_lies_at(uri)} there; "
            "check the URI, or create one with RadiObject.from_images"
        )
    return parse_head(uri, metadata)


def parse_head(uri: str, metadata: Mapping[str, Any]) -> Head:
    """Return the head that a group's `metadata` describes; see `read_head` for the errors."""
    version = metadata.get(_VERSION)
    if version is None:
        raise StoreNotFoundError(
            f"no RadiObject data set at {uri}: the TileDB group there was written by something else"
        )
    if not str(version).isdigit() or int(version) > layout.FORMAT_VERSION:
        raise StorageError(
            f"{uri} has format version {version}, this library reads up to "
            f"{layout.FORMAT_VERSION}; install a newer radiobject"
        )
    commits = _committed(uri, metadata)
    if not commits:
        raise StoreNotFoundError(
            f"the data set at {uri} was never finished; run the command that creates it again"
        )
    return Head(
        uri=uri,
        kind=str(metadata.get(_KIND)),
        name=metadata.get(NAME),
        owner=metadata.get(OWNER) or None,
        commits=tuple(commits),
    )


def _committed(uri: str, metadata: Mapping[str, Any]) -> list[Commit]:
    """Return the states up to the head, oldest first."""
    try:
        head = int(metadata.get(_HEAD, 0))
        stored = [json.loads(value) for key, value in metadata.items() if key.startswith(_COMMIT)]
        commits = [Commit(**fields) for fields in stored]
    except (ValueError, TypeError) as error:
        raise StorageError(
            f"the history of {uri} is damaged ({error}); restore the folder __meta from a backup"
        ) from error
    commits.sort(key=lambda commit: commit.timestamp)
    return [commit for commit in commits if commit.timestamp <= head]


class Clock:
    """Timestamps in milliseconds that only rise, whatever the machine's clock does.

    Rows of one timestamp have no order among each other, and neither have two schemas of a table.
    So every step of a commit that must come after another ticks once more, and the head is set to
    the last tick.
    """

    def __init__(self, after: int = 0) -> None:
        self.now = after
        self.tick()

    def tick(self) -> int:
        """Return a timestamp later than every earlier one, and than what was created by now."""
        self.now = max(int(time.time() * 1000) + 1, self.now + 1)
        return self.now


def group_description(kind: str, *, name: str | None = None, owner: str | None = None) -> dict:
    """Return the metadata that a new data set's group starts with."""
    described = {_KIND: kind, _VERSION: layout.FORMAT_VERSION, NAME: name, OWNER: owner}
    if owner is None and kind == COLLECTION:
        described[recovery.STANDALONE] = 1
    return {key: value for key, value in described.items() if value is not None}


def write_head(uri: str, commit: Commit, forget: Sequence[Commit] = ()) -> None:
    """Record `commit` and make it the head: the one write that publishes everything before it.

    The states `forget` leave the history in that same write.
    """
    values: dict[str, Any] = {_commit_key(old): None for old in forget}
    values[_HEAD] = commit.timestamp
    values[_commit_key(commit)] = json.dumps(asdict(commit), separators=(",", ":"))
    groups.write_metadata(uri, values, commit.timestamp)


def withdraw(uri: str) -> None:
    """Make the data set at `uri` an unfinished one, which is not opened and may be removed."""
    head = int((groups.read_metadata(uri) or {}).get(_HEAD, 0))
    groups.write_metadata(uri, {_HEAD: 0}, Clock(head).tick())


def is_ours(metadata: Mapping[str, Any]) -> bool:
    """Tell whether a group with this metadata is a data set of ours, finished or not."""
    return _VERSION in metadata


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
            operation=self.operation,
            written=datetime.now(UTC).isoformat(timespec="milliseconds"),
            collections=dict(collections or {}),
            n_subjects=n_subjects,
            n_volumes=n_volumes,
        )
        write_head(self.uri, self.last, forget)
        self.n_commits += 1
        self._emptied = False
        return self.last

    def compact_when_due(self) -> None:
        """Merge small files if enough commits have passed; everything must be committed."""
        before = len(self.head.commits) if self.head is not None else 0
        rounds = compaction.COMMITS_PER_ROUND
        if self.last is not None and before // rounds != (before + self.n_commits) // rounds:
            compaction.compact(self.uri, self.last.collections)


@contextmanager
def transaction(uri: str, operation: str, *, break_lock: bool = False) -> Iterator[Transaction]:
    """Write to the existing data set at `uri`: lock, roll back a dead writer, commit or undo.

    Raises
    ------
    LockError
        If another writer is at work.
    """
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
        f"{uri} already exists and is not a RadiObject data set: {_what_lies_at(uri)} there; "
        "choose another URI"
    )


def _only_our_leftovers(uri: str) -> bool:
    names = {layout.base_name(entry) for entry in files.list_folder(uri)}
    if not names:
        return not files.is_something(uri)
    # Only a creation of ours leaves the lock; collections may be there to be linked.
    ours = {layout.OWN_FOLDER, layout.COLLECTIONS, *recovery.PARTS}
    return names <= ours and (layout.OWN_FOLDER in names or names == {layout.COLLECTIONS})


def _what_lies_at(uri: str) -> str:
    kind = groups.object_kind(uri)
    if kind is not None:
        return f"a TileDB {kind} lies"
    return "other files lie" if files.is_something(uri) else "nothing lies"


def owner_of(collection_uri: str) -> str:
    """Return the data set whose lock and head guard the collection: its owner, or itself."""
    metadata = groups.read_metadata(collection_uri) or {}
    owner = metadata.get(OWNER)
    if owner:
        root = layout.resolve(collection_uri, str(owner))
        if groups.read_metadata(root) is not None:
            return root
    return collection_uri


def _commit_key(commit: Commit) -> str:
    return f"{_COMMIT}{commit.timestamp:015d}"
