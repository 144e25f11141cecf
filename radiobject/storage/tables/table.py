"""Sparse TileDB tables: rows keyed by string identifiers, read and written at a timestamp."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tiledb
import tiledb.libtiledb as lt

from radiobject.addresses import is_remote
from radiobject.ctx import get_tiledb_config, get_tiledb_ctx
from radiobject.exceptions import SchemaError
from radiobject.storage.io import files, layout
from radiobject.storage.io import tiledb_names as tdb
from radiobject.storage.io.atomic import atomic
from radiobject.storage.io.libtiledb import (
    FOREVER,
    changing_ctx,
    reading,
    rows_ctx,
    writing,
    writing_ctx,
)
from radiobject.storage.tables import digests
from radiobject.storage.tables.cells import read_cells
from radiobject.storage.tables.checked import checked
from radiobject.storage.tables.columns import (
    BLOB,
    TEXT,
    Column,
    attribute_of,
    column_dtype,
    set_attribute,
    set_variable,
    value_column,
)

_TILE_ROWS = 10_000
_FEW_ROWS = 1000
_SMALL_COLUMN = 1 << 20
"""Of characters, four bytes each at most: less than the smallest part that S3 takes."""
_MAX_FRAGMENTS = 24
_MUCH_LARGER = 4
_MERGE_BYTES = 256 << 20
"""What merging may take: libtiledb fills its buffers whatever the table's size, by default with
1.7 GB, which also takes it 20 times longer than merging a small table does."""
_ESCAPE = "\x7f"
_FRAGMENT = re.compile(tdb.STAMP)


@contextmanager
def own_context(changed: str | None = None) -> Iterator[tiledb.Ctx]:
    """Let calls of tiledb-py that take no context use the process's own, and forget it after.

    Where a table is `changed`, it is the one for that.

    They would make a default context, and keep it in a variable of the thread. A child that another
    thread forks frees what this thread held, and libtiledb's threads are not there to be ended.
    """
    with tiledb.scope_ctx(changing_ctx(changed) if changed else get_tiledb_ctx()) as ctx:
        yield ctx


def create_table(
    uri: str,
    keys: Sequence[str],
    columns: Mapping[str, np.dtype],
    *,
    tile_rows: int = _TILE_ROWS,
) -> None:
    """Create an empty table with string key columns and nullable value columns.

    Raises
    ------
    SchemaError
        If a column has a key's name, no name, or a NUL in it.
    """
    for name in columns:
        check_column_name(name, keys)
    with own_context(uri) as ctx:
        pack = tiledb.FilterList([tiledb.ZstdFilter(level=3)])
        domain = tiledb.Domain(
            *(
                tiledb.Dim(name=key, domain=(None, None), tile=None, dtype="ascii", filters=pack)
                for key in keys
            )
        )
        schema = tiledb.ArraySchema(
            domain=domain,
            attrs=[attribute_of(name, dtype) for name, dtype in columns.items()],
            sparse=True,
            allows_duplicates=False,
            capacity=tile_rows,
            offsets_filters=pack,
        )
        with writing(uri):
            tiledb.Array.create(uri, schema, ctx=ctx)
    digests.touch(uri)


def check_column_name(name: object, keys: Iterable[str]) -> None:
    """Refuse a column name that the table cannot have, with a `SchemaError`."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise SchemaError(f"a column name is a non-empty string without NUL, got {name!r}")
    if name in set(keys):
        raise SchemaError(f"column {name!r} conflicts with index column of the same name")


def stored_key(key: str) -> str:
    """Return a key as it is stored: in ASCII, and in the order of the keys themselves.

    TileDB compares the bytes of a string dimension as signed numbers in one place and as unsigned
    ones in another, so that rows with other bytes are found twice or not at all. Each byte of
    UTF-8 above 0x7e becomes 0x7f and two hexadecimal digits; plain ASCII stays as it is.
    """
    if key.isascii() and _ESCAPE not in key:
        return key
    return "".join(chr(byte) if byte < 0x7F else f"{_ESCAPE}{byte:02x}" for byte in key.encode())


def _key_of(stored: bytes) -> str:
    parts = stored.split(_ESCAPE.encode())
    if len(parts) == 1:
        return stored.decode()
    return b"".join(
        [parts[0], *(bytes.fromhex(part[:2].decode()) + part[2:] for part in parts[1:])]
    ).decode()


class Table:
    """A stored table as it was at `timestamp`, or as it is now.

    Nothing is kept open: a table is read whole or by column, once, and what was read is kept by
    whoever asked.
    """

    def __init__(self, uri: str, timestamp: int | None = None) -> None:
        self.uri = uri
        self.timestamp = timestamp
        self._known: tuple[tuple[str, ...], dict[str, np.dtype]] | None = None

    @contextmanager
    def _open(self, *, for_rows: bool = False) -> Iterator[tiledb.Array]:
        """Open the table after its files were compared with what the commits record of them."""
        ctx = get_tiledb_ctx()
        until = self.timestamp if self.timestamp is not None else FOREVER
        with (
            checked(self.uri, self.timestamp, for_rows=for_rows) as place,
            reading(f"the table at {self.uri}"),
            tiledb.open(place, "r", timestamp=(0, until), ctx=ctx) as array,
        ):
            yield array

    def schema(self) -> tuple[tuple[str, ...], dict[str, np.dtype]]:
        """Return the key columns, and the value columns with their types."""
        if self._known is not None:
            return self._known[0], dict(self._known[1])
        with self._open() as array:
            return self._schema_of(array)

    def _schema_of(self, array: tiledb.SparseArray) -> tuple[tuple[str, ...], dict[str, np.dtype]]:
        """Return the schema of the opened array, which a table at a timestamp keeps."""
        found = _described(array)
        if self.timestamp is not None:
            self._known = found
        return found[0], dict(found[1])

    def read(
        self,
        columns: Sequence[str] | None = (),
        *,
        condition: str | None = None,
        keys: Iterable[str] | None = None,
        of: str | None = None,
        if_there: bool = False,
    ) -> dict[str, Column]:
        """Return the key columns and `columns`, rows in the order of their keys.

        Parameters
        ----------
        columns
            Value columns to read beside the keys; None for all.
        condition
            A TileDB query condition; rows for which it does not hold are left out.
        keys
            Return only rows whose first key column is one of these, without a look at all others.
        of
            The key column that is meant, where it is not the first.
        if_there
            Leave out what the table has no column for.
        """
        # What the table of tile indexes lacks is made from the volume's own array.
        for_rows = layout.base_name(self.uri) != layout.TILE_INDEX
        with own_context(), self._open(for_rows=for_rows) as array:
            names, known = self._schema_of(array)
            columns = list(known) if columns is None else columns
            if if_there:
                columns = [name for name in columns if name in known]
            wanted = None if keys is None else sorted({stored_key(key).encode() for key in keys})
            found: Mapping[str, np.ndarray] = {}
            if wanted is None or wanted:
                place = 0 if of is None else names.index(of)
                asked = [*columns, *names]
                found = read_cells(array, asked, condition=condition, keys=wanted, place=place)
            empty = np.empty(0, dtype=object)
            table = {name: _key_column(found.get(name, empty)) for name in names}
            schema = array.schema
            for name in columns:
                table[name] = value_column(found.get(name, empty), schema.attr(name).dtype)
        return table

    def write(self, rows: Mapping[str, Sequence[Any] | np.ndarray], timestamp: int) -> str | None:
        """Insert rows, or replace those with the same keys; columns not given become missing.

        Returns the name of the fragment that holds them, None where there are no rows.
        """
        count = len(next(iter(rows.values())))
        if count == 0:
            return None
        # Threads that share the columns of a few rows cost more than they save, but for the
        # latency of an object store.
        if count > _FEW_ROWS or (is_remote(self.uri) and not _fit_one_request(rows)):
            ctx = changing_ctx(self.uri)
        else:
            ctx = rows_ctx() if is_remote(self.uri) else writing_ctx(self.uri)
        digests.touch(self.uri)
        with (
            writing(self.uri),
            tiledb.open(self.uri, "w", timestamp=timestamp, ctx=ctx) as array,
        ):
            keys, columns = _described(array)
            query = lt.Query(lt.Context(array.ctx), array.array, lt.QueryType.WRITE)
            query.layout = lt.LayoutType.UNORDERED
            alive: list[Any] = []
            for name in keys:
                set_variable(query, name, [stored_key(k) for k in rows[name]], None, alive)
            for name, dtype in columns.items():
                given = rows.get(name)
                values = [None] * count if given is None else given
                set_attribute(query, array.attr(name), dtype, values, alive)
            query._submit()
            query.finalize()
            return layout.base_name(str(query.fragment_uri(0)))

    def schema_now(self) -> tuple[tuple[str, ...], dict[str, np.dtype]]:
        """Return the schema whatever this table's timestamp: what a write has to fill."""
        return Table(self.uri).schema()

    def evolve(
        self,
        *,
        add: Mapping[str, np.dtype] | None = None,
        drop: Sequence[str] = (),
        tick: Callable[[], int],
    ) -> None:
        """Add or drop value columns from the next tick on; older states keep what they had."""
        self._evolve(add or {}, drop, tick)
        if add:
            self._forget_values(list(add), tick)

    def _evolve(
        self, add: Mapping[str, np.dtype], drop: Sequence[str], tick: Callable[[], int]
    ) -> None:
        evolution = tiledb.ArraySchemaEvolution(ctx=changing_ctx(self.uri))
        for name, dtype in add.items():
            evolution.add_attribute(attribute_of(name, dtype))
        for name in drop:
            evolution.drop_attribute(name)
        evolution.timestamp(tick())
        digests.touch(self.uri)
        with writing(self.uri), atomic(self.uri) as place:
            evolution.array_evolve(place)

    def retype(
        self,
        types: Mapping[str, np.dtype],
        convert: Callable[[Sequence[Any], np.dtype], Sequence[Any]],
        tick: Callable[[], int],
    ) -> None:
        """Give value columns other types from the next ticks on; older states keep theirs.

        Every row is written again: what older files hold under these names is of the old type,
        and no reader of the new state may need it.
        """
        latest = Table(self.uri)
        rows = {n: column.to_list() for n, column in latest.read(None).items()}
        self._evolve({}, list(types), tick)
        self._evolve(types, (), tick)
        latest.write(rows | {n: convert(rows[n], dtype) for n, dtype in types.items()}, tick())

    def _forget_values(self, names: Sequence[str], tick: Callable[[], int]) -> None:
        # A column that was dropped and added again would show the values it had before.
        if not self._had(names):
            return
        latest = Table(self.uri)
        found = latest.read(names)
        if any(bool(found[name].present.any()) for name in names):
            rows = latest.read(None)
            kept = {n: column.to_list() for n, column in rows.items() if n not in names}
            latest.write(kept, tick())

    def _had(self, names: Sequence[str]) -> bool:
        """Return whether any schema before the newest has a column of these names."""
        listed = files.list_folder(layout.join(self.uri, tdb.SCHEMA))
        spans = (tdb.span(layout.base_name(entry)) for entry in listed)
        times = sorted(span[1] for span in spans if span is not None)
        return any(set(names) & Table(self.uri, then).schema()[1].keys() for then in times[:-1])

    def delete(self, condition: str, timestamp: int) -> None:
        """Delete the rows for which the query condition holds, from `timestamp` on."""
        digests.touch(self.uri)
        with (
            writing(self.uri),
            own_context(self.uri) as ctx,
            tiledb.open(self.uri, "d", timestamp=timestamp, ctx=ctx) as array,
        ):
            array.query(cond=condition).submit()

    def delete_keys(self, key: str, values: Sequence[str], timestamp: int) -> None:
        """Delete the rows whose key column `key` has one of `values`."""
        batch = 1000
        for first in range(0, len(values), batch):
            wanted = [stored_key(value) for value in values[first : first + batch]]
            self.delete(f"{key} in {wanted!r}", timestamp)

    def has_many_fragments(self, *, force: bool = False) -> bool:
        """Return whether there is something to merge: many small fragments, or any with `force`."""
        return len(self.fragments()) > (1 if force else _MAX_FRAGMENTS)

    def fragments(self) -> list[str]:
        """Return the names of the fragments, committed or not."""
        listed = files.list_folder(layout.join(self.uri, tdb.FRAGMENTS))
        return [layout.base_name(entry) for entry in listed]

    def merged_before(self) -> tuple[set[str], set[str]]:
        """Return the fragments that an earlier merge replaced, and the notes that say so, by name.

        They are kept until the next merge, so that whoever listed the fragments a moment ago still
        finds them.
        """
        names: set[str] = set()
        notes: set[str] = set()
        for note in files.list_folder(layout.join(self.uri, tdb.COMMITS)):
            if note.endswith(tdb.REPLACED):
                names |= set(_FRAGMENT.findall(files.read_text(note)))
                notes.add(layout.base_name(note))
        return names, notes

    def consolidate(self, *, force: bool = False) -> bool:
        """Merge a table that belongs to no data set, and remove what the last merge replaced.

        With `force` even a few fragments, and what this merge replaces at once.
        """
        if not self.has_many_fragments(force=force):
            return False
        ctx = get_tiledb_ctx()
        tiledb.vacuum(self.uri, ctx=ctx)
        merged = self.merge(force=force)
        if merged and force:
            tiledb.vacuum(self.uri, ctx=ctx)
        return merged

    def merge(self, *, force: bool = False, among: Container[str] | None = None) -> bool:
        """Merge many small fragments into one, keeping every row's timestamp.

        Old states stay readable, and what was merged stays where it is. Without `force`, so do
        older fragments that are much larger, and in any case those that are not `among` some, where
        that is given. Returns whether anything was merged.
        """
        ctx = changing_ctx(self.uri)
        names = self._mergeable(ctx, force, among)
        if len(names) <= (1 if force else _MAX_FRAGMENTS):
            return False
        config = get_tiledb_config()
        config["sm.mem.total_budget"] = str(_MERGE_BYTES)
        with writing(self.uri):
            tiledb.consolidate(self.uri, config=config, ctx=ctx, fragment_uris=names)
        return True

    def _mergeable(self, ctx: tiledb.Ctx, force: bool, among: Container[str] | None) -> list[str]:
        """Return the newest fragments that have no column but those of the schema now.

        Merging writes the columns of the newest schema alone: a column that was dropped would be
        lost to the older states that still have it. And merging a column of variable length that
        none of the fragments has divides by zero, which kills the process: then there is nothing
        to merge until a row has been written since the column was added.
        """
        fragments = tiledb.array_fragments(self.uri, ctx=ctx)
        now = self.schema_now()[1].items()
        whole: dict[str, bool] = {}
        held: set[str] = set()
        names: list[str] = []
        parts = (fragments.timestamp_range, fragments.uri, fragments.array_schema_name)
        described = sorted(zip(*parts, fragments.cell_num, strict=True), reverse=True)
        if among is not None:
            described = [known for known in described if layout.base_name(known[1]) in among]
        count = len(described) if force else worth_merging([rows for *_, rows in described])
        for _, uri, schema, _ in described[:count]:
            if schema not in whole:
                made = int(schema.split("_")[2])
                then = Table(self.uri, made).schema()[1]
                whole[schema] = then.items() <= now
                held |= then.keys() if whole[schema] else set()
            if not whole[schema]:
                break
            names.append(layout.base_name(uri))
        variable = {name for name, dtype in now if dtype in (TEXT, BLOB)}
        return names[::-1] if variable <= held else []


def worth_merging(rows: Sequence[int]) -> int:
    """Return how many of some fragments to merge, told by their rows, the newest first.

    One that has many times the rows of all newer ones together is left alone, and what is older:
    with a million rows, each round would write all of them for a few. The fragments that stay are
    few, as each is many times larger than the next.
    """
    taken = 0
    for number, count in enumerate(rows):
        if number and count > _MUCH_LARGER * taken:
            return number
        taken += count
    return len(rows)


def _fit_one_request(rows: Mapping[str, Sequence[Any] | np.ndarray]) -> bool:
    """Return whether each column is so small that its files need no upload in parts."""
    return all(
        sum(len(value) for value in values if isinstance(value, str | bytes)) <= _SMALL_COLUMN
        for values in rows.values()
    )


def _described(array: tiledb.SparseArray) -> tuple[tuple[str, ...], dict[str, np.dtype]]:
    schema = array.schema  # tiledb-py makes it anew each time it is asked
    keys = tuple(schema.domain.dim(i).name for i in range(schema.domain.ndim))
    columns = [schema.attr(i) for i in range(schema.nattr)]
    return keys, {column.name: column_dtype(column) for column in columns}


def _key_column(found: np.ndarray) -> Column:
    values = np.empty(len(found), dtype=object)
    values[:] = [_key_of(item) if isinstance(item, bytes) else str(item) for item in found]
    return Column(values)
