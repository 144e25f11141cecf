"""The commit protocol: rows and volumes first, the head last.

Every write of a commit carries one timestamp T. The last write records the commit and sets the
head to T, in one metadata file and so all at once. Readers open every table at the head, so what
an unfinished commit wrote is invisible; the next writer removes it
(`radiobject.storage.commits.recovery`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from radiobject.exceptions import IntegrityError, StorageError, StoreNotFoundError
from radiobject.storage.commits import recovery
from radiobject.storage.io import files, layout
from radiobject.storage.io import tiledb_names as tdb
from radiobject.storage.io.checksum import digest
from radiobject.storage.tables import digests, groups
from radiobject.storage.tables.digests import Manifest

ROOT = "radiobject"
COLLECTION = "collection"

_KIND = "radiobject.kind"
_VERSION = digests.VERSION
_HEAD = digests.HEAD
_COMMIT = digests.COMMIT
_STRANGE = "the TileDB group there was written by something else"
_MAX_COMMIT_LENGTH = 16 << 20
_TOO_MANY = 1 << 53
"""More subjects, volumes or milliseconds than there are."""
NAME = "name"
OWNER = digests.OWNER


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

    @classmethod
    def parse(cls, stored: object) -> Commit:
        """Return the commit that one entry of a group's metadata describes.

        Raises
        ------
        ValueError, TypeError
            If a field is missing, unknown, or not what a commit writes there.
        """
        if not isinstance(stored, str) or len(stored) > _MAX_COMMIT_LENGTH:
            raise ValueError(f"a commit is a text of up to {_MAX_COMMIT_LENGTH} characters")
        found = cls(**json.loads(stored))
        for name in ("timestamp", "n_subjects", "n_volumes"):
            value = getattr(found, name)
            if type(value) is not int or not 0 <= value < _TOO_MANY:
                raise ValueError(f"{name} is {str(value)[:40]!r}, expected a number of a commit")
        texts = [found.operation, found.written]
        if isinstance(found.collections, dict):
            texts += [*found.collections, *found.collections.values()]
        if not isinstance(found.collections, dict) or not all(isinstance(t, str) for t in texts):
            raise TypeError("operation, time and collections are not the texts of a commit")
        return found


@dataclass(frozen=True)
class Head:
    """What a data set's group says of itself."""

    uri: str
    kind: str
    name: str | None
    owner: str | None
    commits: tuple[Commit, ...]
    timestamp: int = 0
    """Everything up to here is published: the last commit, and merges of files after it."""

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
            f"no RadiObject data set at {uri}: {what_lies_at(uri)} there; "
            "check the URI, or create one with RadiObject.from_images"
        )
    return parse_head(uri, metadata)


def parse_head(uri: str, metadata: Mapping[str, Any]) -> Head:
    """Return the head that a group's `metadata` describes; see `read_head` for the errors."""
    version = metadata.get(_VERSION)
    if version is None:
        incomplete = _incomplete(uri)
        what = f"{incomplete} there" if incomplete else _STRANGE
        raise StoreNotFoundError(f"no RadiObject data set at {uri}: {what}")
    if not str(version).isdecimal() or int(version) > layout.FORMAT_VERSION:
        raise StorageError(
            f"{uri} has format version {version}, this library reads up to "
            f"{layout.FORMAT_VERSION}; install a newer radiobject"
        )
    commits = _committed(uri, metadata)
    digests.remember(uri, metadata)
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
        timestamp=int(metadata[_HEAD]),
    )


def _committed(uri: str, metadata: Mapping[str, Any]) -> list[Commit]:
    """Return the states up to the head, oldest first."""
    try:
        head = int(metadata.get(_HEAD, 0))
        stored = {key: value for key, value in metadata.items() if key.startswith(_COMMIT)}
        found = {key: Commit.parse(value) for key, value in stored.items()}
        moved = [key for key, commit in found.items() if key != _commit_key(commit)]
        if moved:
            raise ValueError(f"{moved[0]} has the timestamp {found[moved[0]].timestamp}")
    except (ValueError, TypeError, RecursionError) as error:
        raise IntegrityError(
            f"the history of {uri} is damaged ({str(error)[:300]}); restore the folder "
            f"{tdb.METADATA} from a backup"
        ) from error
    commits = list(found.values())
    commits.sort(key=lambda commit: commit.timestamp)
    return [commit for commit in commits if commit.timestamp <= head]


class Clock:
    """Timestamps in milliseconds that only rise, whatever the machine's clock does.

    Rows of one timestamp have no order among each other, and neither have two schemas of a table.
    So every step of a commit that must come after another ticks once more, and the head is set to
    the last tick.

    `remarks` is what happened on the way that the commit shall say beside its operation.
    """

    def __init__(self, after: int = 0) -> None:
        self.now = after
        self.remarks: list[str] = []
        self.tick()

    @classmethod
    def later_than_all_at(cls, uri: str) -> Clock:
        """Return a clock for an array or a group that no commit orders the writes to."""
        return cls(recovery.latest_at(uri))

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


def write_head(
    uri: str,
    commit: Commit,
    forget: Sequence[Commit] = (),
    record: Mapping[str, bytes] | None = None,
    whole: str | None = None,
) -> None:
    """Record `commit` and make it the head: the one write that publishes everything before it.

    The states `forget` leave the history in that same write, and `record` enters the record of
    table files, which is then the one that `whole` is the digest of.
    """
    values: dict[str, Any] = {_commit_key(old): None for old in forget}
    values[_VERSION] = layout.FORMAT_VERSION
    values[_HEAD] = commit.timestamp
    values[_commit_key(commit)] = json.dumps(asdict(commit), separators=(",", ":"))
    values |= record or {}
    if whole is not None:
        values[digests.RECORDED] = whole
    groups.write_metadata(uri, values, commit.timestamp)


def write_manifest(uri: str, manifest: Manifest, timestamp: int) -> Manifest:
    """Replace the record of table files by `manifest`, and publish what was merged till now."""
    packed = {record_key(timestamp): digests.pack(manifest.tables)}
    keys = {key: digest(value) for key, value in packed.items()}
    values: dict[str, Any] = dict.fromkeys(manifest.keys)
    values |= {_HEAD: timestamp, digests.RECORDED: digests.sum_of(keys), **packed}
    groups.write_metadata(uri, values, timestamp)
    return digests.keep(uri, replace(manifest, head=timestamp, keys=keys))


def record_key(timestamp: int) -> str:
    """Return the metadata key of what the commit at `timestamp` records of table files."""
    return f"{digests.KEY}{timestamp:015d}"


def withdraw(uri: str) -> None:
    """Make the data set at `uri` an unfinished one, which is not opened and may be removed."""
    head = int((groups.read_metadata(uri) or {}).get(_HEAD, 0))
    groups.write_metadata(uri, {_HEAD: 0}, Clock(head).tick())


def is_ours(metadata: Mapping[str, Any]) -> bool:
    """Return whether a group with this metadata is a data set of ours, finished or not."""
    return _VERSION in metadata


def what_lies_at(uri: str) -> str:
    """Return in words what an address holds that is no data set of ours."""
    if incomplete := _incomplete(uri):
        return incomplete
    kind = groups.object_kind(uri)
    if kind is not None:
        return f"a TileDB {kind} lies"
    return "other files lie" if files.is_something(uri) else "nothing lies"


_TABLES = {layout.OBS_META, layout.OBS, layout.TILE_INDEX, layout.VOLUMES, layout.COLLECTIONS}
_OF_A_GROUP = (tdb.GROUP, tdb.METADATA, tdb.GROUP_MARK)


def _incomplete(uri: str) -> str:
    """Return what a folder lacks that has parts of a data set, as a copy that was broken off."""
    there = {layout.base_name(entry) for entry in files.list_folder(uri)}
    lost = [name for name in _OF_A_GROUP if name not in there]
    if not lost or not there & _TABLES:
        return ""
    return f"an incomplete copy of one, without {', '.join(lost)} (copy it again), lies"


def owner_of(collection_uri: str) -> str:
    """Return the data set whose lock and head guard the collection: its owner, or itself."""
    metadata = groups.read_metadata(collection_uri) or {}
    owner = metadata.get(OWNER)
    if owner:
        root = layout.owning_root(collection_uri, owner)
        if groups.read_metadata(root) is not None:
            return root
    return collection_uri


def _commit_key(commit: Commit) -> str:
    return f"{_COMMIT}{commit.timestamp:015d}"
