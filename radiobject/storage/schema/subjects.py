"""The table of subjects at one state, read once for a data set and for its collections."""

from __future__ import annotations

import numpy as np

from radiobject.lazy import lazy_property
from radiobject.storage.io import layout
from radiobject.storage.schema.splits import subject_splits
from radiobject.storage.tables.columns import Column
from radiobject.storage.tables.table import Table
from radiobject.texts import Texts


class Subjects:
    """What a state's table of subjects holds; each part is read on first use, and kept.

    Parameters
    ----------
    table : Table
        obs_meta at that state.
    """

    def __init__(self, table: Table) -> None:
        self.table = table

    @lazy_property
    def rows(self) -> dict[str, Column]:
        """Every column of every subject."""
        return self.table.read(None)

    @lazy_property
    def texts(self) -> Texts:
        """Subject ids in the order of their rows."""
        rows = self.__dict__.get("rows")
        return Texts((self.table.read() if rows is None else rows)[layout.SUBJECT_ID].values)

    @property
    def ids(self) -> np.ndarray:
        """Subject ids in the order of their rows, an array of objects made anew."""
        return self.texts.to_array()

    @lazy_property
    def splits(self) -> dict[str, str]:
        """Part of each subject in the stored split; empty if there is none."""
        return subject_splits(self.table)
