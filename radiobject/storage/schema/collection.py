"""A stored collection: its table of volumes, its tile index, and the one way to add to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from radiobject.exceptions import SchemaError, StorageError, StoreNotFoundError, ViewError
from radiobject.indexing import Groups
from radiobject.lazy import lazy_property
from radiobject.sampling.label_names import LabelNames
from radiobject.storage.commits.head import (
    COLLECTION,
    OWNER,
    Clock,
    Head,
    group_description,
    owner_of,
    parse_head,
    read_head,
)
from radiobject.storage.io import files, layout
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.schema import volume_rows
from radiobject.storage.schema.label_names import read_label_names
from radiobject.storage.schema.subjects import Subjects
from radiobject.storage.schema.volume_rows import (
    SYSTEM_COLUMNS,
    Locators,
    VolumeRecord,
    VolumeRows,
)
from radiobject.storage.tables import groups
from radiobject.storage.tables.columns import BLOB, TEXT, Column, storable_dtype
from radiobject.storage.tables.table import Table, check_column_name, create_table
from radiobject.storage.tables.widening import common_dtype, converted, widened
from radiobject.texts import Lookup

OBS_KEYS = (layout.SUBJECT_ID, layout.OBS_ID)
INDEX_KEY = "array_name"
INDEX_COLUMN = "tile_index"
Schema = tuple[tuple[str, ...], dict[str, np.dtype]]
"""Key columns of a table, and its value columns with their types."""
_FEW_IDS = 1024
"""Each takes a search of its own in the table."""
_INDEX_TILE_ROWS = 64
_WHOLE_INDEX_ROWS = 65_536
"""Selections up to this size carry their tile indexes along, about 3 KB a volume; of larger ones
each worker reads a volume's index from its array on first touch."""
_FEW_INDEX_ROWS = 4096
"""In collections up to this size, the first access fetches every tile index."""
_INDEX_BLOCK = 64
"""In a larger one it fetches those of so many neighbours, and each further access twice as many as
the one before: a read takes some 20 ms, however little it fetches."""
_LARGEST_INDEX_BLOCK = 4096
_INDEX_BYTES = 256 << 20
"""So much of them is kept; from there on they are fetched anew."""


class CollectionStore:
    """A collection as it was at a committed state.

    `has_geometry` tells that its table has the system columns, from which text forms are made.

    Parameters
    ----------
    uri : str
        The collection's group.
    timestamp : int
        The head to read at.
    name : str, optional
        What it is called.
    newest : bool
        Whether this is the newest state, which can be changed.
    root : Head, optional
        What guards its changes, where that was read already; found from its address otherwise.
    subjects_of_owner : Subjects, optional
        The table of subjects of its data set; found from its address when not given.
    count : callable, optional
        Takes its name and its number of volumes once its rows were read, and refuses a wrong one.
    """

    has_geometry = True

    def __init__(
        self,
        uri: str,
        timestamp: int,
        name: str | None = None,
        *,
        newest: bool = True,
        root: Head | None = None,
        subjects_of_owner: Subjects | None = None,
        count: Callable[[str, int], None] | None = None,
    ) -> None:
        self.uri = uri
        self.timestamp = timestamp
        self.name = name
        self._newest = newest
        self._count = count
        self._packed: dict[str, bytes | None] = {}
        self._packed_bytes = 0
        self._index_block = _INDEX_BLOCK
        if root is not None:
            self.__dict__["root"] = root
        if subjects_of_owner is not None:
            self.__dict__["subjects_of_owner"] = subjects_of_owner

    def refuse_change(self, verb: str) -> None:
        """Raise a `ViewError` unless this is the newest state."""
        if not self._newest:
            raise ViewError(f"{verb} needs the newest state, {self.uri} was opened at an older one")

    @lazy_property
    def obs(self) -> Table:
        """The table of volumes at this state."""
        return Table(layout.join(self.uri, layout.OBS), self.timestamp)

    @lazy_property
    def rows(self) -> VolumeRows:
        """The volumes; one table read, on first use."""
        table = self.obs.read(volume_rows.PLAN_COLUMNS)
        rows = VolumeRows.from_columns(layout.join(self.uri, layout.VOLUMES), table)
        if self._count is not None:
            self._count(str(self.name), len(rows))
        return rows

    @lazy_property
    def position(self) -> Mapping[str, int]:
        """Row of each volume id."""
        return Lookup(self.rows.ids)

    @lazy_property
    def subjects(self) -> Groups:
        """The volumes of each subject."""
        return Groups(self.rows.subjects)

    @lazy_property
    def columns(self) -> dict[str, np.dtype]:
        """Type of every stored column, the keys first."""
        keys, columns = self.obs.schema()
        return {**dict.fromkeys(keys, TEXT), **columns}

    @lazy_property
    def root(self) -> Head:
        """What guards its changes: the head of its data set, or its own where it has none."""
        return read_head(owner_of(self.uri))

    @lazy_property
    def subjects_of_owner(self) -> Subjects | None:
        """The table of subjects of the owning data set at this state, None without one."""
        root = self.root.uri
        if root == self.uri:
            return None
        return Subjects(Table(layout.join(root, layout.OBS_META), self.timestamp))

    @lazy_property
    def label_names(self) -> LabelNames:
        """What the labels are called at this state; the group's metadata, read on first use."""
        return read_label_names(self.uri, self.timestamp)

    def subject_splits(self) -> dict[str, str]:
        """Return the part of each subject in the stored split of the owning data set."""
        return {} if self.subjects_of_owner is None else self.subjects_of_owner.splits

    def subject_table(self) -> dict[str, Column]:
        """Return the table of subjects of the owning data set at this state, {} without one."""
        rows = {} if self.subjects_of_owner is None else self.subjects_of_owner.rows
        return {name: column for name, column in rows.items() if not name.startswith("_")}

    def read(self, columns: Sequence[str] = (), condition: str | None = None) -> dict[str, Column]:
        """Return the key columns and `columns` of every volume, or of those that match."""
        return self.obs.read(columns, condition=condition)

    def present(self, obs_ids: Collection[str]) -> set[str]:
        """Return those of some volume ids that it has; few take no look at all others."""
        if "position" in self.__dict__:
            return {obs_id for obs_id in obs_ids if obs_id in self.position}
        few = obs_ids if len(obs_ids) <= _FEW_IDS else None
        found = self.obs.read(keys=few, of=layout.OBS_ID)[layout.OBS_ID].values
        return set(found.tolist()).intersection(obs_ids)

    def read_if_there(
        self, columns: Sequence[str], subjects: Collection[str] | None = None
    ) -> dict[str, Column]:
        """Return the key columns, and those of `columns` that the table has; one read.

        Of few `subjects` alone where these are given, without a look at all others.
        """
        few = None if subjects is None or len(subjects) > _FEW_IDS else subjects
        return self.obs.read(columns, keys=few, if_there=True)

    def locators(self, rows: npt.NDArray[np.intp]) -> Sequence[VolumeLocator]:
        """Return where the voxels of `rows` are, with tile indexes unless they are very many."""
        if len(rows) <= _WHOLE_INDEX_ROWS:
            self._fetch_indexes(rows)
            names, packed = self.rows.names, self._packed
            return [self.rows.locator(row, packed.get(names[row])) for row in rows.tolist()]
        return Locators(self.rows, rows)

    def _fetch_indexes(self, rows: npt.NDArray[np.intp]) -> None:
        """Have the tile indexes of `rows` at hand, by at most one read of their table."""
        missing = [row for row in rows.tolist() if self.rows.names[row] not in self._packed]
        if not missing:
            return
        every = len(self.rows) <= max(_FEW_INDEX_ROWS, 2 * len(missing))
        wanted = None if every else self._blocks_of(missing)
        table = Table(layout.join(self.uri, layout.TILE_INDEX), self.timestamp)
        found = table.read([INDEX_COLUMN], keys=wanted)
        stored = dict(zip(found[INDEX_KEY].values, found[INDEX_COLUMN].values, strict=True))
        fetched = {array: stored.get(array) for array in wanted or self.rows.names}
        size = sum(len(index) for index in fetched.values() if index is not None)
        self._packed_bytes += size
        if self._packed_bytes > _INDEX_BYTES:
            self._packed, self._packed_bytes = {}, size
        self._packed.update(fetched)

    def _blocks_of(self, rows: Sequence[int]) -> list[str]:
        """Return the arrays whose indexes are fetched together with those of `rows`.

        A block is what lies together in the order of the arrays' names, as the table has it.
        """
        order, place = self._index_order
        size = self._index_block
        self._index_block = min(2 * size, _LARGEST_INDEX_BLOCK)
        blocks = np.unique(place[list(rows)] // size).tolist()
        names = self.rows.names
        return [names[row] for n in blocks for row in order[n * size : (n + 1) * size].tolist()]

    @lazy_property
    def _index_order(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """The rows in the order of their arrays' names, and the place of each row in it."""
        order = np.argsort(self.rows.arrays.astype(bytes), kind="stable").astype(np.int32)
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        return order, place


def create_collection(
    uri: str, clock: Clock, columns: Mapping[str, Any] | None = None, *, name: str
) -> None:
    """Create an empty collection inside a data set, as part of an open commit."""
    create_group(uri, clock, name=name)
    create_tables(uri, clock, columns)


def create_group(uri: str, clock: Clock, *, name: str) -> None:
    """Create the group of a data set's collection, which gets its tables by `create_tables`."""
    description = group_description(COLLECTION, name=name, owner=layout.TO_ROOT)
    files.make_folder(layout.parent(uri))
    groups.create(uri, description, clock.tick())


def create_tables(uri: str, clock: Clock, columns: Mapping[str, Any] | None = None) -> Schema:
    """Create the tables of the collection whose group is at `uri`; return that of the volumes."""
    declared = {name: storable_dtype(dtype, name) for name, dtype in (columns or {}).items()}
    check_user_columns(declared)
    everything = {**SYSTEM_COLUMNS, **declared}
    create_table(layout.join(uri, layout.OBS), OBS_KEYS, everything)
    create_table(
        layout.join(uri, layout.TILE_INDEX),
        [INDEX_KEY],
        {INDEX_COLUMN: BLOB},
        tile_rows=_INDEX_TILE_ROWS,
    )
    files.make_folder(layout.join(uri, layout.VOLUMES))
    groups.add_arrays(uri, [layout.OBS, layout.TILE_INDEX], clock.tick())
    return OBS_KEYS, everything


def check_user_columns(columns: Mapping[str, Any]) -> None:
    """Refuse columns that would shadow a key or a system column, with a `SchemaError`."""
    for name in columns:
        check_column_name(name, OBS_KEYS)
        if name in SYSTEM_COLUMNS or name.startswith("_"):
            raise SchemaError(
                f"column {name!r} would collide with a column that the store keeps itself; "
                "rename it"
            )


def append_records(
    uri: str,
    records: Sequence[VolumeRecord],
    clock: Clock,
    *,
    mixed: bool = True,
    fixed: bool = False,
    known: Schema | None = None,
) -> None:
    """Add written volumes to the tables of the collection at `uri`.

    Columns that the table lacks are added; volumes written before have no value in them. A column
    whose type cannot hold the new values gets one that can; see `fitted_columns` for the options.
    """
    if not records:
        return
    table = Table(layout.join(uri, layout.OBS))
    rows = fitted_columns(
        table, volume_rows.columns_of(records), clock, mixed=mixed, fixed=fixed, known=known
    )
    table.write(rows, clock.tick())
    indexed = [record for record in records if record.locator.index is not None]
    if indexed:
        Table(layout.join(uri, layout.TILE_INDEX)).write(
            {
                INDEX_KEY: [record.array for record in indexed],
                INDEX_COLUMN: [record.locator.index for record in indexed],
            },
            clock.tick(),
        )


def fitted_columns(
    table: Table,
    rows: Mapping[str, Sequence[Any]],
    clock: Clock,
    *,
    mixed: bool = True,
    fixed: bool = False,
    known: Schema | None = None,
) -> dict[str, Sequence[Any]]:
    """Make `table` fit for `rows`, and return these as it takes them.

    Columns that it lacks are added, but for ones without any value. Columns too narrow for the new
    values get a wider type, which the commit then says, unless the types are `fixed`. `known` is
    the table's schema, where that was read already.

    Raises
    ------
    SchemaError
        If text meets numbers in one column and not `mixed`: a program that writes both errs, files
        of many scanners do not.
    """
    keys, columns = table.schema_now() if known is None else known
    if not mixed:
        _refuse_mixed(columns, rows)
    new = {
        name: inferred_dtype(values, name)
        for name, values in rows.items()
        if name not in columns and name not in keys and any(value is not None for value in values)
    }
    for name in new:
        check_column_name(name, keys)
    if new:
        table.evolve(add=new, tick=clock.tick)
    own = {n: d for n, d in columns.items() if n in rows and n not in SYSTEM_COLUMNS}
    wider = {} if fixed else {n: widened(d, rows[n], n) for n, d in own.items()}
    wider = {name: dtype for name, dtype in wider.items() if dtype != columns[name]}
    integers = [n for n, d in wider.items() if d.kind == "f" and columns[n].kind in "iu"]
    for name, column in (table.read(integers) if integers else {}).items():
        if name in integers:  # what was there may be too large for a float
            wider[name] = widened(wider[name], [*column.to_list(), *rows[name]], name)
    if wider:
        table.retype(wider, converted, clock.tick)
        inside = layout.base_name(table.uri) == layout.OBS
        where = layout.base_name(layout.parent(table.uri)) if inside else "subjects"
        clock.remarks += [
            f"{where}: column {name} widened from {_words(columns[name])} to {_words(dtype)}"
            for name, dtype in wider.items()
        ]
    types = {**columns, **new, **wider}
    texts = {name for name in rows if types.get(name) == TEXT}
    return {n: converted(v, types[n]) if n in texts else v for n, v in rows.items()}


def _refuse_mixed(columns: Mapping[str, np.dtype], rows: Mapping[str, Sequence[Any]]) -> None:
    for name, values in rows.items():
        kinds = {type(value).__name__ for value in values if value is not None}
        if name in columns and kinds:
            kinds.add("str" if columns[name] == TEXT else columns[name].name)
        if "str" in kinds and kinds - {"str", "str_"}:
            raise SchemaError(
                f"column {name!r} mixes values of different kinds, {', '.join(sorted(kinds))}; "
                "convert them first"
            )


def _words(dtype: np.dtype) -> str:
    return "text" if dtype == TEXT else dtype.name


def inferred_dtype(values: Sequence[Any], name: str) -> np.dtype:
    """Return the stored type for values of one column, None among them meaning missing."""
    return common_dtype(values, name)


def open_collection(
    uri: str, at: Any = None, *, metadata: Mapping[str, Any] | None = None
) -> CollectionStore:
    """Open the collection at `uri`, alone or as its data set's head has it.

    `metadata` is its group's, where that was read already.

    Raises
    ------
    StoreNotFoundError
        If there is none, or its data set has no committed state with it.
    """
    metadata = groups.read_metadata(uri) if metadata is None else metadata
    owner = (metadata or {}).get(OWNER)
    if owner:
        root = layout.owning_root(uri, owner)
        location = f"{layout.COLLECTIONS}/{layout.base_name(uri)}"
        owning = groups.read_metadata(root)
        if owning is not None:
            head = parse_head(root, owning)
            state = head.at(at)
            for name, place in state.collections.items():
                if place == location:
                    newest = state is head.last
                    return CollectionStore(uri, state.timestamp, name, newest=newest, root=head)
            raise StoreNotFoundError(f"no committed state of {root} has the collection at {uri}")
    head = read_head(uri) if metadata is None else parse_head(uri, metadata)
    if head.kind != COLLECTION:
        raise StorageError(f"{uri} is a {head.kind}, not a collection; open it with RadiObject")
    state = head.at(at)
    newest = state is head.last
    return CollectionStore(uri, state.timestamp, head.name, newest=newest, root=head)
