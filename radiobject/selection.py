"""What verbs are given: a store and the rows of it that were selected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from radiobject.dataframe import Belonging, Dataframe, Writer
from radiobject.indexing import Groups, Positions
from radiobject.lazy import lazy_property
from radiobject.rows.pandas_io import GEOMETRY_TEXTS
from radiobject.storage.io import layout
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.schema.collection import CollectionStore
from radiobject.storage.schema.dataset import DatasetStore
from radiobject.storage.schema.volume_rows import SYSTEM_COLUMNS

if TYPE_CHECKING:
    from radiobject.storage.schema.legacy import LegacyDatasetStore


def _first_of_each(ids: Sequence[str]) -> dict[str, int]:
    return {one: row for row, one in reversed(list(enumerate(ids)))}


@dataclass(frozen=True, eq=False)
class VolumeSelection:
    """Volumes of a stored collection, in the order asked and with their repeats.

    Parameters
    ----------
    store : CollectionStore
        The collection at one state.
    rows : ndarray of intp, optional
        Rows of the store; all of them by default.
    """

    store: CollectionStore
    rows: Positions | None = None

    @property
    def is_view(self) -> bool:
        """Whether only some volumes were selected."""
        return self.rows is not None

    @lazy_property
    def positions(self) -> Positions:
        """The rows of the store that are selected."""
        if self.rows is not None:
            return self.rows
        return np.arange(len(self.store.rows), dtype=np.intp)

    @property
    def obs_ids(self) -> list[str]:
        """Ids of the volumes."""
        return self.store.rows.ids.take(self.positions).tolist()

    @property
    def subject_ids(self) -> list[str]:
        """Subject of each volume."""
        return self.store.rows.subjects.take(self.positions).tolist()

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape that all volumes have; None if they differ or there are none."""
        known, rows = self.store.rows, self.positions
        if not len(rows) or not (known.sides[rows] == known.sides[rows[0]]).all():
            return None
        return known.shape(int(rows[0]))

    @lazy_property
    def position(self) -> Mapping[str, int]:
        """Place in the selection of each volume id; the first where it is repeated."""
        return self.store.position if self.rows is None else _first_of_each(self.obs_ids)

    def take(self, chosen: Positions) -> VolumeSelection:
        """Return the volumes at these places of the selection."""
        return VolumeSelection(self.store, self.positions[chosen])

    def of_subjects(self, subjects: Sequence[str]) -> VolumeSelection:
        """Return the volumes of `subjects`, in the order of the subjects given."""
        groups = self.store.subjects if self.rows is None else Groups(self.subject_ids)
        return self.take(groups.positions(subjects))

    def matching(self, expression: str) -> VolumeSelection:
        """Return the volumes that a filter expression selects."""
        return VolumeSelection(self.store, self.obs().matching(expression))

    def locators(self) -> Sequence[VolumeLocator]:
        """Return where the voxels of each volume are: a list, or what makes each when asked."""
        return self.store.locators(self.positions)

    def affines(self) -> npt.NDArray[np.float64]:
        """Return the affine of each volume, voxel index to RAS+ mm, shape (n, 4, 4)."""
        return self.store.rows.affines_of(self.positions)

    def obs(self, writer: Writer | None = None) -> Dataframe:
        """Return the volumes' rows of metadata; `writer` lets the whole table be changed."""
        belonging = Belonging(
            keys=lambda: self.store.rows.keys,
            protected=SYSTEM_COLUMNS,
            computed=GEOMETRY_TEXTS if self.store.has_geometry else {},
            writer=writer,
        )
        return Dataframe.of_table(self.store.obs, belonging, self.rows)


@dataclass(frozen=True, eq=False)
class SubjectSelection:
    """Subjects of a stored data set, and collections of it.

    Parameters
    ----------
    store : DatasetStore
        The data set at one state.
    rows : ndarray of intp, optional
        Rows of its table of subjects, in the order asked and with repeats; all by default.
    names : tuple of str, optional
        Names of collections; all by default.
    """

    store: DatasetStore | LegacyDatasetStore
    rows: Positions | None = None
    names: tuple[str, ...] | None = None

    @property
    def is_view(self) -> bool:
        """Whether only some subjects or collections were selected."""
        return self.rows is not None or self.names is not None

    @lazy_property
    def positions(self) -> Positions:
        """The rows of the table of subjects that are selected."""
        if self.rows is not None:
            return self.rows
        return np.arange(len(self.store.subject_texts), dtype=np.intp)

    @property
    def collection_names(self) -> tuple[str, ...]:
        """Names of the collections, sorted."""
        return self.store.names if self.names is None else self.names

    @property
    def subject_ids(self) -> list[str]:
        """Ids of the subjects."""
        return self.store.subject_texts.take(self.positions).tolist()

    @lazy_property
    def position(self) -> Mapping[str, int]:
        """Place in the selection of each subject; the first where it is repeated."""
        return self.store.position if self.rows is None else _first_of_each(self.subject_ids)

    def take(self, chosen: Positions) -> SubjectSelection:
        """Return the subjects at these places of the selection."""
        return SubjectSelection(self.store, self.positions[chosen], self.names)

    def matching(self, expression: str) -> SubjectSelection:
        """Return the subjects that a filter expression selects."""
        return SubjectSelection(self.store, self.obs_meta().matching(expression), self.names)

    def once(self) -> SubjectSelection:
        """Return the selection without repeats of a subject."""
        if self.rows is None:
            return self
        firsts = np.asarray(sorted(self.position.values()), dtype=np.intp)
        return self.take(firsts)

    def collection(self, name: str) -> VolumeSelection:
        """Return a collection's volumes of the selected subjects; KeyError if unknown."""
        if name not in self.collection_names:
            raise KeyError(
                f"collection {name!r} not found in {self.store.uri}; there are "
                f"{list(self.collection_names)}"
            )
        whole = VolumeSelection(self.store.collection(name))
        return whole if self.rows is None else whole.of_subjects(self.subject_ids)

    def obs_meta(self, writer: Writer | None = None) -> Dataframe:
        """Return the subjects' rows of metadata; `writer` lets the whole table be changed."""
        belonging = Belonging(
            keys=lambda: {layout.SUBJECT_ID: self.store.subject_ids},
            protected=(layout.OBS_IDS,),
            writer=writer,
        )
        return Dataframe.of_table(self.store.obs_meta, belonging, self.rows)
