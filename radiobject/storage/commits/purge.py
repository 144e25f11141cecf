"""Removing from tables what only forgotten states had.

A row that is deleted or replaced stays in the table's files, as older states read it, and so do the
values of a column that was dropped. Once those states are forgotten, the rows that are left are
written anew and the old files go: what a data set no longer says of a patient is in none of them.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tiledb

from radiobject.ctx import get_tiledb_ctx
from radiobject.exceptions import StorageError
from radiobject.storage.commits.compaction import Merging, parts_of, place_of, undo
from radiobject.storage.io import files, layout
from radiobject.storage.io import tiledb_names as tdb
from radiobject.storage.tables.digests import new_files, seal, take_touched, unseal
from radiobject.storage.tables.table import Table, stored_key

ROWS_AT_ONCE = 50_000
"""How many rows are held in memory while a table is written anew."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Old:
    """What was written to a table until some time: names of fragments, and of marks of commits."""

    fragments: frozenset[str]
    marks: tuple[str, ...]
    cells: int

    @property
    def has_deletions(self) -> bool:
        return any(mark.endswith(tdb.DELETED) for mark in self.marks)


def purge(
    tx: Merging, location: str, until: int, needed: tuple[str, Container[str]] | None = None
) -> None:
    """Remove from a table what no state from `until` on reads.

    A table is left as it is, and the log says why, where it is a link or records no files, where
    its files hold rows of kept states beside older ones, where its columns changed after `until`,
    and where there was no room; the next call takes it up again.

    Parameters
    ----------
    tx : Merging
        The transaction; everything in it must be committed.
    location : str
        The table.
    until : int
        Timestamp of the oldest state that is kept.
    needed : (str, container of str), optional
        A key column and its values of the rows that kept states need; every row by default.
    """
    try:
        why = _purge(tx, location, until, needed)
    except (tiledb.TileDBError, StorageError) as error:
        why = str(error)
        undo(tx, location)
    if why:
        _log.warning(
            "the table at %s may still hold what older states had of it: %s; a later vacuum() "
            "removes it", location, why,
        )  # fmt: skip


def _purge(
    tx: Merging, location: str, until: int, needed: tuple[str, Container[str]] | None
) -> str:
    """Do that; return why it cannot be done, empty if nothing is left to remove."""
    derived = layout.base_name(location) in layout.DERIVED
    recorded = None if tx.manifest is None else tx.manifest.tables.get(place_of(tx, location))
    if not Table(location).fragments():
        return ""
    if files.is_link(location):
        return "it is a symbolic link, and nothing is removed behind one"
    if derived:
        # Readers write these at any time, and every state reads the newest.
        until = max(span[1] for name in Table(location).fragments() if (span := tdb.span(name)))
    elif recorded is None:
        return "no commit records its files yet"
    old = _written_until(location, until)
    table = Table(location, until)
    if old is None:
        return "its files hold rows of states that are kept"
    if table.schema() != Table(location).schema():
        return "its columns changed after the oldest state that is kept"
    rows = _rows(table, needed)
    if len(rows) == old.cells and not old.has_deletions and not _dropped(location, old):
        return ""
    written = (Table(location).write(part, until) for part in _parts(table, rows))
    made = {fragment for fragment in written if fragment is not None}
    names = old.fragments | {mark.partition(".")[0] for mark in old.marks}
    if derived:
        for fragment in made:
            seal(location, fragment)
    elif recorded is not None:
        kept = {path: entry for path, entry in recorded.items() if not names & set(parts_of(path))}
        new = new_files(location, recorded, lambda path: not made.isdisjoint(parts_of(path)))
        tx.record_merge({place_of(tx, location): {**kept, **new}})
        take_touched(tx.uri)
    unseal(location, old.fragments)
    files.remove_written(location, old.fragments, old.marks)
    return ""


def _written_until(location: str, until: int) -> _Old | None:
    """Return what was written until then; None if files hold what was written later as well."""
    marks, names = [], set()
    for entry in files.own_entries(layout.join(location, tdb.COMMITS)):
        name = layout.base_name(entry)
        span = tdb.span(name)
        if span is None or name.endswith(tdb.CONSOLIDATED) or span[0] <= until < span[1]:
            return None
        if span[1] <= until:
            marks.append(name)
            names.add(name.partition(".")[0])
    found = tiledb.array_fragments(location, ctx=get_tiledb_ctx())
    counts = {layout.base_name(uri): n for uri, n in zip(found.uri, found.cell_num, strict=True)}
    fragments = frozenset(name for name in Table(location).fragments() if name in names)
    return _Old(fragments, tuple(marks), sum(counts.get(name, 0) for name in fragments))


def _dropped(location: str, old: _Old) -> bool:
    """Return whether a file holds values of a column that the table no longer has."""
    now = Table(location).schema()[1].items()
    found = tiledb.array_fragments(location, ctx=get_tiledb_ctx())
    schemas = {
        schema
        for uri, schema in zip(found.uri, found.array_schema_name, strict=True)
        if layout.base_name(uri) in old.fragments
    }
    made = [span[0] for schema in schemas if (span := tdb.span(schema)) is not None]
    return any(not Table(location, when).schema()[1].items() <= now for when in made)


def _rows(table: Table, needed: tuple[str, Container[str]] | None) -> np.ndarray:
    """Return the first key of each row that is needed, as it is stored, in rising order."""
    keys = table.read(())
    first = next(iter(keys))
    values = keys[first].values.tolist()
    if needed is not None:
        column, wanted = needed
        chosen = keys[column].values.tolist()
        values = [value for value, key in zip(values, chosen, strict=True) if key in wanted]
    return np.array(sorted(stored_key(value).encode() for value in values), dtype=object)


def _parts(table: Table, rows: np.ndarray) -> Iterator[dict[str, Sequence[Any]]]:
    """Yield whole rows with these first keys, no more of them at once than memory should hold."""
    first = table.schema()[0][0]
    wanted = set(rows.tolist())
    start = 0
    while start < len(rows):
        stop = min(start + ROWS_AT_ONCE, len(rows))
        while stop < len(rows) and rows[stop] == rows[stop - 1]:
            stop += 1
        low, high = rows[start].decode(), rows[stop - 1].decode()
        found = table.read(None, condition=f"{first} >= {low!r} and {first} <= {high!r}")
        keys = found[first].values.tolist()
        there = np.flatnonzero([stored_key(key).encode() in wanted for key in keys])
        yield {name: column.take(there).to_list() for name, column in found.items()}
        start = stop
