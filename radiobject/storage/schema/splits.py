"""The stored split of a data set: a column of its table of subjects."""

from __future__ import annotations

from radiobject.storage.io import layout
from radiobject.storage.tables.columns import TEXT
from radiobject.storage.tables.table import Table

SPLIT = "split"
"""Column of obs_meta: the part that each subject belongs to."""


def subject_splits(obs_meta: Table) -> dict[str, str]:
    """Return the part of each subject that has one; empty if no split is stored."""
    if obs_meta.schema()[1].get(SPLIT) != TEXT:
        return {}
    table = obs_meta.read([SPLIT])
    pairs = zip(table[layout.SUBJECT_ID].values, table[SPLIT].to_list(), strict=True)
    return {subject: part for subject, part in pairs if part}
