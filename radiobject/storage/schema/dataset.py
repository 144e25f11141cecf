"""A stored data set: its subjects, its collections, and the changes that keep them in step."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from radiobject.exceptions import (
    AlignmentError,
    IntegrityError,
    StorageError,
    StoreNotFoundError,
    ViewError,
)
from radiobject.lazy import LazyModule, lazy_property
from radiobject.storage.commits.head import ROOT, Clock, Head, is_ours, parse_head, read_head
from radiobject.storage.commits.head import owner_of as owner_of
from radiobject.storage.commits.transaction import Transaction, transaction
from radiobject.storage.io import files, layout
from radiobject.storage.schema import collection
from radiobject.storage.schema.collection import CollectionStore, fitted_columns
from radiobject.storage.schema.subjects import Subjects
from radiobject.storage.tables import groups
from radiobject.storage.tables.columns import TEXT
from radiobject.storage.tables.table import Table, create_table
from radiobject.texts import Lookup, Texts

if TYPE_CHECKING:
    from radiobject.storage.schema import legacy
else:
    legacy = LazyModule("radiobject.storage.schema.legacy")

META_KEYS = (layout.SUBJECT_ID,)


class DatasetStore:
    """A data set as it was at a committed state.

    Parameters
    ----------
    uri : str
        The root group.
    at : int or datetime, optional
        Which state; the last by default.
    head : Head, optional
        What its group says, where that was read already.
    """

    def __init__(self, uri: str, at: Any = None, *, head: Head | None = None) -> None:
        self.uri = uri
        self.head: Head = read_head(uri) if head is None else head
        if self.head.kind != ROOT:
            raise StorageError(
                f"{uri} is a {self.head.kind}, not a data set; open it with VolumeCollection"
            )
        self.state = self.head.at(at)
        self._collections: dict[str, CollectionStore] = {}
        self._counts: dict[str, int] = {}

    @property
    def root(self) -> Head:
        """What guards its changes: its own head."""
        return self.head

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the collections, sorted."""
        return tuple(sorted(self.state.collections))

    @lazy_property
    def subjects(self) -> Subjects:
        """The table of subjects at this state, and what was read of it."""
        return Subjects(Table(layout.join(self.uri, layout.OBS_META), self.state.timestamp))

    @property
    def obs_meta(self) -> Table:
        """The table of subjects at this state."""
        return self.subjects.table

    @property
    def subject_texts(self) -> Texts:
        """Subject ids in the order of their rows; one table read, on first use."""
        self._check_subjects(len(self.subjects.texts))
        return self.subjects.texts

    @property
    def subject_ids(self) -> np.ndarray:
        """Subject ids in the order of their rows, an array of objects made anew."""
        self._check_subjects(len(self.subjects.texts))
        return self.subjects.ids

    def _check_subjects(self, found: int) -> None:
        if found != self.state.n_subjects:
            raise self._other_counts("subjects", self.state.n_subjects, found)

    def _other_counts(self, what: str, committed: int, found: int) -> IntegrityError:
        return IntegrityError(
            f"{self.uri} was committed with {committed} {what}, its tables have {found}: history "
            "or tables were altered, or are of two copies; restore both from one copy"
        )

    def _count(self, name: str, found: int) -> None:
        """Compare the volumes of all collections, once each was read, with what was committed."""
        self._counts[name] = found
        total, committed = sum(self._counts.values()), self.state.n_volumes
        if total > committed or (len(self._counts) == len(self.names) and total != committed):
            raise self._other_counts("volumes", committed, total)

    @lazy_property
    def position(self) -> Mapping[str, int]:
        """Row of each subject id."""
        return Lookup(self.subject_texts)

    def some_subjects(self, wanted: Collection[str]) -> Subjects:
        """Return what has the rows of some subjects: of few of very many, those alone."""
        return self.subjects.some(wanted, self.state.n_subjects)

    @property
    def splits(self) -> dict[str, str]:
        """Part of each subject in the stored split; empty if there is none."""
        return self.subjects.splits

    def at_head(self, head: Head | None) -> DatasetStore:
        """Return the newest state that `head` has: this one, with what it has read, if it is it."""
        if head is None or head.last == self.state:
            return self
        return DatasetStore(self.uri, head=head)

    def collection(self, name: str) -> CollectionStore:
        """Return the collection called `name`, opened once; KeyError if there is none."""
        if name not in self._collections:
            uri = layout.located(self.uri, self.state.collections[name])
            self._collections[name] = CollectionStore(
                uri,
                self.state.timestamp,
                name,
                newest=self.state is self.head.last,
                root=self.head,
                subjects_of_owner=self.subjects,
                count=self._count,
            )
        return self._collections[name]

    def take_over(self, name: str, store: CollectionStore) -> None:
        """Have the collection called `name` as it is opened, with all that it has read."""
        if store.subjects_of_owner is not None:
            self.__dict__["subjects"] = store.subjects_of_owner
        self._collections[name] = store

    def refuse_change(self, verb: str) -> None:
        """Raise a `ViewError` unless this is the newest state."""
        if self.state is not self.head.last:
            raise ViewError(f"{verb} needs the newest state, {self.uri} was opened at an older one")


@contextmanager
def changing(
    store: DatasetStore, operation: str, *, break_lock: bool = False
) -> Iterator[tuple[Transaction, DatasetStore]]:
    """Open a commit of a data set, with its state under the lock.

    That is `store` itself, with all that it has read, if nothing was committed in between.
    """
    with transaction(store.uri, operation, break_lock=break_lock, known=store.head) as tx:
        yield tx, store.at_head(tx.head)


@contextmanager
def changing_collection(
    store: CollectionStore, operation: str
) -> Iterator[tuple[Transaction, CollectionStore, DatasetStore | None]]:
    """Open a commit of a collection, with its state and that of its data set under the lock.

    That is `store` itself, with all that it has read, if nothing was committed in between; the
    data set is None for a collection of its own.

    Raises
    ------
    StoreNotFoundError
        If its data set does not have it any more.
    """
    root = store.root
    with transaction(root.uri, operation, known=root) as tx:
        now = root if tx.head is None else tx.head
        same = now.last == root.last
        if root.uri == store.uri:
            alone = CollectionStore(store.uri, now.last.timestamp, now.name, root=now)
            yield tx, store if same else alone, None
            return
        data = DatasetStore(root.uri, head=now)
        places = now.last.collections.items()
        named = (name for name, place in places if layout.located(root.uri, place) == store.uri)
        name = next(named, None)
        if name is None:
            raise StoreNotFoundError(
                f"the data set at {root.uri} has no collection at {store.uri} any more"
            )
        if same:
            data.take_over(name, store)
        yield tx, data.collection(name), data


def open_dataset(uri: str, at: Any = None) -> DatasetStore | legacy.LegacyDatasetStore:
    """Open the data set at `uri`; see `commits.head.read_head` for the errors."""
    metadata = groups.read_metadata(uri)
    if metadata is not None and not is_ours(metadata) and legacy.is_legacy_dataset(uri):
        return legacy.LegacyDatasetStore(uri, at)
    return DatasetStore(uri, at, head=None if metadata is None else parse_head(uri, metadata))


def open_collection(uri: str, at: Any = None) -> CollectionStore:
    """Open the collection at `uri`, of this version or of 0.1.x."""
    metadata = groups.read_metadata(uri)
    if metadata is not None and not is_ours(metadata) and legacy.is_legacy_collection(uri):
        return legacy.LegacyCollectionStore(uri)
    return collection.open_collection(uri, at, metadata=metadata)


def is_dataset(uri: str) -> bool:
    """Return whether a finished data set lies at `uri`."""
    try:
        return read_head(uri).kind == ROOT
    except StoreNotFoundError:
        return False


def create_obs_meta(uri: str, columns: Mapping[str, np.dtype], clock: Clock) -> None:
    """Create the table of subjects below the root group at `uri`."""
    own = {name: dtype for name, dtype in columns.items() if name != layout.OBS_IDS}
    create_table(layout.join(uri, layout.OBS_META), META_KEYS, {**own, layout.OBS_IDS: TEXT})
    groups.add_arrays(uri, [layout.OBS_META], clock.tick())


def add_subjects(uri: str, rows: Mapping[str, Sequence[Any]], clock: Clock) -> None:
    """Add rows of subjects; `obs_ids` starts empty.

    A column that the table lacks is added, one too narrow for the values is widened.
    """
    table = Table(layout.join(uri, layout.OBS_META))
    count = len(rows[layout.SUBJECT_ID])
    for subject in rows[layout.SUBJECT_ID]:
        layout.checked_id(subject, layout.SUBJECT_ID)
    complete = {layout.OBS_IDS: ["[]"] * count, **rows}
    table.write(fitted_columns(table, complete, clock), clock.tick())


def update_subjects(tx: Transaction, rows: Mapping[str, Sequence[Any]]) -> int:
    """Set values of subjects that have a row; missing ones in `rows` leave what is stored.

    Returns
    -------
    int
        How many values are not what they were.
    """
    table = Table(layout.join(tx.uri, layout.OBS_META), tx.timestamp)
    names = [name for name in rows if name not in (layout.SUBJECT_ID, layout.OBS_IDS)]
    _, columns = table.schema_now()
    before = table.read(list(columns))
    position = {subject: row for row, subject in enumerate(before[layout.SUBJECT_ID].values)}
    chosen = np.asarray([position[subject] for subject in rows[layout.SUBJECT_ID]], dtype=np.intp)
    after = {name: column.take(chosen).to_list() for name, column in before.items()}
    changed = 0
    for name in names:
        old = after.get(name, [None] * len(chosen))
        new = [was if value is None else value for was, value in zip(old, rows[name], strict=True)]
        changed += sum(was != value for was, value in zip(old, new, strict=True))
        after[name] = new
    if changed:
        now = Table(layout.join(tx.uri, layout.OBS_META))
        now.write(fitted_columns(now, after, tx.clock), tx.clock.tick())
    return changed


def change_obs_ids(
    tx: Transaction,
    added: Iterable[tuple[str, str]] = (),
    removed: Iterable[tuple[str, str]] = (),
) -> None:
    """Keep `obs_ids` of obs_meta in step with volumes that came and went.

    Parameters
    ----------
    tx : Transaction
        The open commit.
    added, removed : iterable of (subject id, volume id)
        What changed.

    Raises
    ------
    AlignmentError
        If a subject has no row.
    """
    change_subjects(tx, {}, added, removed)


def change_subjects(
    tx: Transaction,
    new: Mapping[str, Sequence[Any]],
    added: Iterable[tuple[str, str]] = (),
    removed: Iterable[tuple[str, str]] = (),
    before: Subjects | None = None,
) -> None:
    """Add rows of subjects, and keep `obs_ids` in step with volumes, in one write.

    Parameters
    ----------
    tx : Transaction
        The open commit.
    new : mapping of str to sequence
        Columns of the rows to add; none by default.
    added, removed : iterable of (subject id, volume id)
        Volumes that came and went.
    before : Subjects, optional
        Of the table as the commit found it at least the rows of all these, where nothing was
        written to it since.

    Raises
    ------
    AlignmentError
        If the subject of a volume has no row.
    """
    arrived = [layout.checked_id(s, layout.SUBJECT_ID) for s in new.get(layout.SUBJECT_ID, ())]
    change: dict[str, tuple[set[str], set[str]]] = {}
    for side, pairs in enumerate((added, removed)):
        for subject, obs_id in pairs:
            change.setdefault(subject, (set(), set()))[side].add(obs_id)
    if not change and not arrived:
        return
    if before is None:
        now = Subjects(Table(layout.join(tx.uri, layout.OBS_META), tx.timestamp))
        before = now.some({*change, *arrived}, tx.counts()[0])
    stored = before.rows
    position = {subject: row for row, subject in enumerate(stored[layout.SUBJECT_ID].values)}
    unknown = sorted(set(change) - set(position) - set(arrived))
    if unknown:
        raise AlignmentError(
            f"subject {unknown[0]!r} has no row in obs_meta; add it with RadiObject.append"
        )
    changed = [subject for subject in change if subject in position]
    chosen = np.asarray([position[subject] for subject in changed], dtype=np.intp)
    rows = {name: column.take(chosen).to_list() for name, column in stored.items()}
    for name in dict.fromkeys([*rows, *new]):
        kept = rows.get(name, [None] * len(changed))
        rows[name] = [*kept, *new.get(name, [None] * len(arrived))]
    rows[layout.OBS_IDS] = [
        _listed(old, *change.get(subject, (set(), set())))
        for subject, old in zip([*changed, *arrived], rows[layout.OBS_IDS], strict=True)
    ]
    table = before.table
    fitted: Mapping[str, Sequence[Any]] = rows
    if arrived:
        fitted = fitted_columns(table, rows, tx.clock, known=table.schema())
    table.write(fitted, tx.clock.tick())


def _listed(old: str | None, new: set[str], gone: set[str]) -> str:
    return json.dumps(sorted((set(json.loads(old or "[]")) | new) - gone))


def volume_ids(tx: Transaction) -> dict[str, list[str]]:
    """Return the volume ids of each collection of the last state, by the collection's URI."""
    places = tx.last.collections.values() if tx.last is not None else ()
    found = {}
    for place in places:
        uri = layout.located(tx.uri, place)
        found[uri] = CollectionStore(uri, tx.rollback_point).read()[layout.OBS_ID].values.tolist()
    return found


def publish(
    tx: Transaction,
    *,
    collections: Mapping[str, str] | None = None,
    subjects: int = 0,
    volumes: int = 0,
) -> None:
    """Commit with `subjects` and `volumes` more (or fewer) than the last state had."""
    n_subjects, n_volumes = tx.counts()
    places = tx.last.collections if tx.last is not None else {}
    tx.commit(
        collections=places if collections is None else collections,
        n_subjects=n_subjects + subjects,
        n_volumes=n_volumes + volumes,
    )


def new_collection_location(tx: Transaction, name: str) -> str:
    """Return where a new collection called `name` goes, relative to the root."""
    taken = {layout.base_name(place) for place in tx.locations}
    taken |= {
        layout.base_name(folder)
        for folder in files.list_folder(layout.join(tx.uri, layout.COLLECTIONS))
    }
    return f"{layout.COLLECTIONS}/{layout.collection_directory(name, taken)}"
