"""Values of subjects set from a table, in one commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from radiobject.exceptions import SchemaError
from radiobject.indexing import shortened
from radiobject.storage.io import layout
from radiobject.storage.schema import dataset
from radiobject.storage.schema.dataset import DatasetStore
from radiobject.storage.schema.splits import SPLIT
from radiobject.storage.tables.columns import BLOB
from radiobject.storage.tables.widening import common_dtype, widened

_KEPT = (layout.OBS_IDS, SPLIT)


@dataclass(frozen=True)
class ValuesSet:
    """What setting values changes.

    Attributes
    ----------
    subjects : int
        Subjects of the table that the data set has.
    unmatched : list of str
        Ids of the table that it has not; their rows are left out.
    values : int
        Values that are not what they were.
    added : dict
        Type of each new column.
    wider : dict
        Type before and after, of each column that the values do not fit.
    """

    subjects: int
    unmatched: list[str]
    values: int
    added: dict[str, str] = field(default_factory=dict)
    wider: dict[str, tuple[str, str]] = field(default_factory=dict)


def set_values(
    data: DatasetStore,
    rows: Mapping[str, Sequence[Any]],
    *,
    widen: bool = False,
    dry_run: bool = False,
) -> ValuesSet:
    """Set values of subjects, add columns that are not there, and leave what is missing as it is.

    Parameters
    ----------
    data : DatasetStore
    rows : mapping of str to sequence
        Plain values by column, with the ids of the subjects.
    widen : bool
        Whether a column becomes as wide as its values need; otherwise such values are refused.
    dry_run : bool
        Say what would change, and write nothing.

    Raises
    ------
    SchemaError
        If a column is kept by the store, an id is given twice, or a value does not fit its column;
        nothing is written.
    """
    kept = [name for name in rows if name in _KEPT]
    if kept:
        raise SchemaError(f"column {kept[0]!r} is kept by the store itself; leave it out")
    ids = list(rows[layout.SUBJECT_ID])
    twice = sorted(subject for subject, count in Counter(ids).items() if count > 1)
    if twice:
        raise SchemaError(f"the table has several rows for {shortened(twice)}")
    if dry_run:
        return _planned(data, rows, widen)[0]
    with dataset.changing(data, "set metadata") as (tx, before):
        done, matched = _planned(before, rows, widen)
        if done.values:
            dataset.update_subjects(tx, matched)
            dataset.publish(tx)
    return done


def _planned(
    data: DatasetStore, rows: Mapping[str, Sequence[Any]], widen: bool
) -> tuple[ValuesSet, dict[str, list[Any]]]:
    """Return what changes, and the rows of subjects that are there."""
    ids = [str(subject) for subject in rows[layout.SUBJECT_ID]]
    known = [place for place, subject in enumerate(ids) if subject in data.position]
    matched = {name: [values[place] for place in known] for name, values in rows.items()}
    matched[layout.SUBJECT_ID] = [ids[place] for place in known]
    unmatched = [subject for subject in ids if subject not in data.position]
    columns = data.obs_meta.schema()[1]
    names = [name for name in rows if name != layout.SUBJECT_ID]
    new = [name for name in names if name not in columns]
    added = {name: _word(common_dtype(matched[name], name)) for name in new}
    wider = {}
    for name in (name for name in names if name in columns):
        after = widened(columns[name], matched[name], name)
        if after != columns[name]:
            wider[name] = (_word(columns[name]), _word(after))
            if not widen:
                raise _does_not_fit(name, columns[name], matched)
    changed = _count_changed(data, matched, names)
    return ValuesSet(len(known), unmatched, changed, added, wider), matched


def _does_not_fit(name: str, dtype: np.dtype, rows: Mapping[str, list[Any]]) -> SchemaError:
    pairs = zip(rows[layout.SUBJECT_ID], rows[name], strict=True)
    offending = [pair for pair in pairs if widened(dtype, [pair[1]], name) != dtype]
    # One word makes a column of numbers text: that word is the fault.
    subject, value = next((pair for pair in offending if not _is_number(pair[1])), offending[0])
    return SchemaError(
        f"column {name!r} holds {_word(dtype)}, subject {subject!r} has {value!r}; correct the "
        "table, or pass widen=True to widen the column"
    )


def _count_changed(data: DatasetStore, rows: Mapping[str, list[Any]], names: Sequence[str]) -> int:
    stored = data.obs_meta.read([name for name in names if name in data.obs_meta.schema()[1]])
    chosen = np.asarray([data.position[s] for s in rows[layout.SUBJECT_ID]], np.intp)
    changed = 0
    for name in names:
        new = rows[name]
        old = stored[name].take(chosen).to_list() if name in stored else [None] * len(new)
        changed += sum(b is not None and a != b for a, b in zip(old, new, strict=True))
    return changed


def _word(dtype: np.dtype) -> str:
    kinds = {"b": "booleans", "i": "integers", "u": "integers", "f": "numbers", "M": "times"}
    return "bytes" if dtype == BLOB else kinds.get(dtype.kind, "text")


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
