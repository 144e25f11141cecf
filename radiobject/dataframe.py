"""A stored table as pandas sees it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tiledb

from radiobject.ctx import ignore_ctx
from radiobject.exceptions import AlignmentError, SchemaError, ViewError
from radiobject.indexing import Positions, positions_of_keys, shortened
from radiobject.lazy import lazy_property, pd
from radiobject.rows.expression import compile_filter
from radiobject.rows.pandas_io import (
    ComputedColumn,
    frame_rows,
    frame_schema,
    plain_rows,
    to_series,
)
from radiobject.storage.commits.head import Clock
from radiobject.storage.io import layout
from radiobject.storage.tables.columns import TEXT, storable_dtype
from radiobject.storage.tables.table import Table, check_column_name, create_table, stored_key

INDEX_COLUMNS = (layout.SUBJECT_ID, layout.OBS_ID)

Keys = dict[str, np.ndarray]
"""The key columns of a table, whole."""

Writer = Callable[[str], AbstractContextManager[Clock]]
"""Opens a commit for an operation and gives its clock."""


@dataclass(frozen=True)
class Belonging:
    """What a table's store says of it.

    Parameters
    ----------
    keys : callable
        Gives the key columns that the store has read already.
    protected : collection of str
        Columns that only the store changes.
    computed : mapping of str to ComputedColumn
        Columns that are made from stored ones when they are read.
    writer : callable, optional
        Opens a commit; a table without one cannot be changed.
    """

    keys: Callable[[], Keys]
    protected: Collection[str] = ()
    computed: Mapping[str, ComputedColumn] = field(default_factory=dict)
    writer: Writer | None = None


class Dataframe:
    """A table of rows keyed by identifiers, stored as a sparse TileDB array.

    Rows come in the lexicographic order of their keys; a view has the rows that were selected, in
    the order they were selected.

    Parameters
    ----------
    uri : str
        The table's array. Nothing is read until it is needed.
    ctx : tiledb.Ctx, optional
        Accepted for programs that pass one; settings come from `radiobject.configure`.
    """

    def __init__(self, uri: str, ctx: tiledb.Ctx | None = None) -> None:
        ignore_ctx(ctx)
        self._bind(Table(layout.normalise_uri(uri)), None, None)

    def _bind(self, table: Table, rows: Positions | None, belonging: Belonging | None) -> Dataframe:
        self._table = table
        self._rows = rows
        self._belonging = belonging
        self._computed = belonging.computed if belonging is not None else {}
        return self

    @classmethod
    def of_table(
        cls, table: Table, belonging: Belonging, rows: Positions | None = None
    ) -> Dataframe:
        """Return the dataframe over a store's table, or over selected rows of it."""
        return cls.__new__(cls)._bind(table, rows, belonging)

    @property
    def uri(self) -> str:
        """Where the table is."""
        return self._table.uri

    @property
    def is_view(self) -> bool:
        """Whether only some rows were selected."""
        return self._rows is not None

    @lazy_property
    def _schema(self) -> tuple[tuple[str, ...], dict[str, np.dtype]]:
        return self._table.schema()

    @lazy_property
    def _keys(self) -> Keys:
        if self._belonging is not None:
            return self._belonging.keys()
        table = self._table.read()
        return {name: table[name].values for name in self.index_columns}

    @property
    def index_columns(self) -> tuple[str, ...]:
        """Names of the key columns."""
        return self._schema[0]

    @property
    def dtypes(self) -> dict[str, np.dtype]:
        """Type of each stored value column; ``<U0`` for text."""
        return {name: dtype for name, dtype in self._schema[1].items() if name[0] != "_"}

    @property
    def columns(self) -> list[str]:
        """Names of the value columns."""
        return [*self.dtypes, *self._computed]

    @property
    def all_columns(self) -> list[str]:
        """Names of the key columns and the value columns."""
        return [*self.index_columns, *self.columns]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of value columns."""
        return len(self), len(self.columns)

    def __len__(self) -> int:
        if self._rows is not None:
            return len(self._rows)
        return len(next(iter(self._keys.values())))

    def read(
        self,
        columns: Sequence[str] | None = None,
        value_filter: str | None = None,
        include_index: bool = True,
    ) -> pd.DataFrame:
        """Return rows as a pandas DataFrame.

        Parameters
        ----------
        columns
            Value columns in the order wanted, all by default; names of key columns are ignored.
        value_filter
            Filter expression (`radiobject.rows.expression`) that the rows must satisfy.
        include_index
            Whether the key columns come first.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If the expression is not one.
        """
        wanted = [n for n in columns or self.columns if n not in self.index_columns]
        wanted = [] if columns is not None and not columns else wanted
        unknown = [n for n in wanted if n not in self._computed and n not in self._schema[1]]
        if unknown:
            raise KeyError(f"no column {unknown[0]!r} in {self.uri}; it has {self.all_columns}")
        sources = [
            s for n in wanted for s in (self._computed[n][0] if n in self._computed else (n,))
        ]
        table = self._table.read(list(dict.fromkeys(sources)))
        rows = self._rows if value_filter is None else self.matching(value_filter)
        chosen = table if rows is None else {n: c.take(rows) for n, c in table.items()}
        frame = pd.DataFrame({name: to_series(column) for name, column in chosen.items()})
        for name in wanted:
            if name in self._computed:
                frame[name] = self._computed[name][1](frame)
        return frame[[*(self.index_columns if include_index else ()), *wanted]]

    def matching(self, expression: str) -> Positions:
        """Return the positions, in the whole table, of this dataframe's rows that match."""
        condition = self._condition(expression)
        table = self._table.read(condition=condition)
        found = {name: table[name].values for name in self.index_columns}
        positions = positions_of_keys(self._keys, found)
        if self._rows is None:
            return positions
        return self._rows[np.isin(self._rows, positions)]

    def _condition(self, expression: str) -> str:
        keys = dict.fromkeys(self.index_columns, TEXT)
        stored = dict.fromkeys(self.index_columns, stored_key)
        columns = {**keys, **self._schema[1]}
        return compile_filter(expression, columns, stored, self._texts)

    def _texts(self, name: str) -> Iterable[str]:
        """Return the texts of a column, without what is missing."""
        if name in self.index_columns:
            return map(str, self._keys[name])
        listed = self._table.read([name])[name].to_list()
        return (value for value in listed if value is not None)

    def add_column(self, name: str, dtype: Any, fill: Any = None) -> None:
        """Add a column; with `fill`, every row gets that value, else it is missing.

        Raises
        ------
        SchemaError
            If the name is taken or cannot be a column's.
        """
        self._require_root("add_column")
        if name in self.index_columns:
            raise SchemaError(f"column {name!r} conflicts with index column")
        check_column_name(name, ())
        if name in self.columns or name.startswith("_"):
            raise SchemaError(f"column {name!r} already exists, or is kept by the store")
        column = {name: storable_dtype(dtype, name)}
        with self._commit(f"add column {name}") as (table, clock):
            table.evolve(add=column, tick=clock.tick)
            if fill is not None:
                rows = plain_rows(table.read(list(table.schema()[1])))
                rows[name] = [fill] * len(rows[name])
                table.write(rows, clock.tick())

    def drop_column(self, name: str) -> None:
        """Drop a column; SchemaError if it is a key or not there."""
        self._require_root("drop_column")
        if name in self.index_columns:
            raise SchemaError(f"Cannot drop index column {name!r}")
        if name not in self.dtypes:
            raise SchemaError(f"column {name!r} does not exist; the columns are {self.columns}")
        if self._belonging is not None and name in self._belonging.protected:
            raise SchemaError(f"column {name!r} of {self.uri} is kept by the store itself")
        with self._commit(f"drop column {name}") as (table, clock):
            table.evolve(drop=[name], tick=clock.tick)

    def update(self, df: pd.DataFrame) -> None:
        """Insert the rows of `df`, or replace the given columns of those whose keys exist.

        Columns that the store computes or keeps itself may be in `df`, unchanged.

        Raises
        ------
        ValueError
            If a key column is missing, a value column unknown, or a key given twice.
        AlignmentError
            If the table belongs to a data set and a key is not in it; nothing is written.
        SchemaError
            If a value does not fit its column, or one that the store keeps was changed.
        """
        self._require_root("update")
        missing = [name for name in self.index_columns if name not in df.columns]
        if missing:
            raise ValueError(f"the update must contain index column {missing[0]!r}")
        df = df.drop(columns=[name for name in self._computed if name in df.columns])
        unknown = [n for n in df.columns if n not in self.index_columns and n not in self.dtypes]
        if unknown:
            raise ValueError(f"unknown column {unknown[0]!r}; add it first with add_column")
        if df.duplicated(list(self.index_columns)).any():
            raise ValueError("the update has several rows for one key")
        if len(df) == 0:
            return
        with self._commit("update") as (table, clock):
            table.write(self._merged(table, df), clock.tick())

    def _merged(self, table: Table, df: pd.DataFrame) -> dict[str, Any]:
        """Return whole rows: what `df` gives, and what the table has in its other columns."""
        keys, columns = table.schema()
        before = plain_rows(table.read(list(columns)))
        position = {
            key: row for row, key in enumerate(zip(*(before[k] for k in keys), strict=True))
        }
        given = {str(name): df[name].tolist() for name in df.columns}
        old = [position.get(key) for key in zip(*(given[name] for name in keys), strict=True)]
        if self._belonging is not None and None in old:
            new = [given[keys[-1]][row] for row, place in enumerate(old) if place is None]
            raise AlignmentError(f"{self.uri} has no rows {shortened(new)}; append adds rows")
        rows: dict[str, Any] = {name: given[name] for name in keys}
        for name in columns:
            kept = [None if row is None else before[name][row] for row in old]
            if self._belonging is not None and name in self._belonging.protected:
                if name in given and not pd.Series(given[name]).equals(pd.Series(kept)):
                    raise SchemaError(f"column {name!r} of {self.uri} is kept by the store itself")
                rows[name] = kept
            else:
                rows[name] = given.get(name, kept)
        return rows

    def delete(self, cond: str) -> None:
        """Delete the rows that match a filter expression.

        Raises
        ------
        ViewError
            If the table belongs to a data set, whose `delete` keeps its other tables in step.
        """
        self._require_root("delete")
        if self._belonging is not None:
            raise ViewError(
                f"the rows of {self.uri} belong to a data set; delete subjects or volumes with "
                "RadiObject.delete or VolumeCollection.delete"
            )
        condition = self._condition(cond)
        with self._commit("delete") as (table, clock):
            table.delete(condition, clock.tick())

    def _require_root(self, verb: str) -> None:
        if self.is_view or (self._belonging is not None and self._belonging.writer is None):
            raise ViewError(f"{verb} needs the stored table, this dataframe is a view of it")

    @contextmanager
    def _commit(self, operation: str) -> Iterator[tuple[Table, Clock]]:
        """Give the table as it is under the lock, whatever was committed since it was opened."""
        latest = Table(self.uri)
        if self._belonging is not None and self._belonging.writer is not None:
            with self._belonging.writer(operation) as clock:
                yield latest, clock
            self._table = Table(self.uri, clock.now)
        else:
            yield latest, Clock()
        for name in ("_schema", "_keys"):
            self.__dict__.pop(name, None)

    @classmethod
    def create(
        cls,
        uri: str,
        schema: Mapping[str, Any],
        ctx: tiledb.Ctx | None = None,
        index_columns: Sequence[str] = INDEX_COLUMNS,
    ) -> Dataframe:
        """Create an empty table.

        Raises
        ------
        SchemaError
            If a column has the name of a key or holds a NUL.
        TypeError
            If a column has a type that cannot be stored.
        """
        ignore_ctx(ctx)
        columns = {name: storable_dtype(dtype, name) for name, dtype in schema.items()}
        location = layout.normalise_uri(uri)
        create_table(location, index_columns, columns)
        return cls(location)

    @classmethod
    def from_pandas(
        cls,
        uri: str,
        df: pd.DataFrame,
        ctx: tiledb.Ctx | None = None,
        index_columns: Sequence[str] = INDEX_COLUMNS,
    ) -> Dataframe:
        """Create a table with the rows of `df`; ValueError if a key column is missing."""
        ignore_ctx(ctx)
        missing = [name for name in index_columns if name not in df.columns]
        if missing:
            raise ValueError(f"the table must contain index column {missing[0]!r}")
        table = cls.create(uri, frame_schema(df, index_columns), index_columns=index_columns)
        table._table.write(frame_rows(df), Clock().tick())
        return table

    def __repr__(self) -> str:
        return f"Dataframe(uri={self.uri!r}, shape={self.shape}, columns={self.columns})"

    def _repr_html_(self) -> str:
        return str(self.read()._repr_html_())  # type: ignore[operator]
