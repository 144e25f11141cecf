"""The table of subjects at one state, read once for a data set and for its collections."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from radiobject.lazy import lazy_property
from radiobject.storage.io import layout
from radiobject.storage.schema.splits import subject_splits
from radiobject.storage.tables.columns import Column
from radiobject.storage.tables.table import Table
from radiobject.texts import Texts

MANY = 4096
"""A table of so many rows is read whole as fast as some of it."""
_FEW = 1024
"""Each takes a search of its own in the table."""


class Subjects:
    """What a state's table of subjects holds; each part is read on first use, and kept.

    Parameters
    ----------
    table : Table
        obs_meta at that state.
    only : collection of str, optional
        The subjects meant; all of them by default.
    """

    def __init__(self, table: Table, only: Collection[str] | None = None) -> None:
        self.table = table
        self._only = only
        self._some: Subjects | None = None

    @property
    def is_whole(self) -> bool:
        """Whether these are all subjects of the table."""
        return self._only is None

    def some(self, wanted: Collection[str], count: int) -> Subjects:
        """Return what has the rows of some subjects, of the `count` that there are.

        That is all of them, but where these are very many and those are few.
        """
        if count <= MANY or len(wanted) > _FEW:
            return self
        if self._some is None or set(self._some._only or ()) != set(wanted):
            self._some = Subjects(self.table, wanted)
        return self._some

    @lazy_property
    def rows(self) -> dict[str, Column]:
        """Every column of every subject."""
        return self.table.read(None, keys=self._only)

    @lazy_property
    def texts(self) -> Texts:
        """Subject ids in the order of their rows."""
        rows = self.__dict__.get("rows")
        found = self.table.read(keys=self._only) if rows is None else rows
        return Texts(found[layout.SUBJECT_ID].values)

    @property
    def ids(self) -> np.ndarray:
        """Subject ids in the order of their rows, an array of objects made anew."""
        return self.texts.to_array()

    @lazy_property
    def splits(self) -> dict[str, str]:
        """Part of each subject in the stored split; empty if there is none."""
        return subject_splits(self.table)
