"""Data sets written by the published 0.1.x, read as they are.

Their arrays are numbered in the order of writing, which is not the order of the rows: a volume is
found by the id in its own array's metadata. They have no commits and no tile index, and are never
changed here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from radiobject import process
from radiobject.ctx import get_radiobject_config
from radiobject.exceptions import AlignmentError, StorageError, StoreNotFoundError
from radiobject.lazy import lazy_property
from radiobject.storage.commits.head import ROOT, Commit, Head
from radiobject.storage.io import files, layout
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.schema.collection import CollectionStore
from radiobject.storage.schema.description import VolumeDescription, describe_volume
from radiobject.storage.schema.volume_rows import VolumeRows
from radiobject.storage.tables import groups
from radiobject.storage.tables.columns import BLOB, TEXT, Column
from radiobject.storage.tables.table import Table
from radiobject.texts import Lookup, Texts

WRITTEN_BY = "0.1"
_ABSENT = "absent"


class LegacyTable(Table):
    """A table of 0.1.x, whose text columns may be bytes."""

    def schema(self) -> tuple[tuple[str, ...], dict[str, np.dtype]]:
        """Return the key columns, and the value columns with their types."""
        keys, columns = super().schema()
        return keys, {name: TEXT if d == BLOB else d for name, d in columns.items()}

    def read(
        self,
        columns: Sequence[str] | None = (),
        *,
        condition: str | None = None,
        keys: Iterable[str] | None = None,
        of: str | None = None,
        if_there: bool = False,
    ) -> dict[str, Column]:
        """Return the key columns and `columns`; see `Table.read`."""
        table = super().read(columns, condition=condition, keys=keys, of=of, if_there=if_there)
        return {name: _as_text(column) for name, column in table.items()}


def _as_text(column: Column) -> Column:
    if not any(isinstance(value, bytes) for value in column.values):
        return column
    values = np.empty(len(column.values), dtype=object)
    values[:] = [v.decode() if isinstance(v, bytes) else v for v in column.values]
    return Column(values, column.valid)


class LegacySubjects(LegacyTable):
    """The table of subjects of 0.1.x, in the form of this version.

    0.1.1 gave its rows a second key, by default the subject's id again, and kept no list of the
    subject's volumes; later ones have one key and the list.

    Parameters
    ----------
    uri : str
        The table.
    volume_ids : callable
        Returns the ids of every subject's volumes, by subject.
    """

    def __init__(self, uri: str, volume_ids: Callable[[], Mapping[str, list[str]]]) -> None:
        super().__init__(uri)
        self._volume_ids = volume_ids

    @lazy_property
    def _has_other_ids(self) -> bool:
        """Whether the second key says something that the first does not."""
        keys = super().read()
        return layout.OBS_ID in keys and bool(
            (keys[layout.OBS_ID].values != keys[layout.SUBJECT_ID].values).any()
        )

    def schema(self) -> tuple[tuple[str, ...], dict[str, np.dtype]]:
        """Return the key column, and the value columns with their types."""
        keys, columns = super().schema()
        second = {layout.OBS_ID: TEXT} if self._has_other_ids else {}
        return keys[:1], {**second, **columns, layout.OBS_IDS: TEXT}

    def read(
        self,
        columns: Sequence[str] | None = (),
        *,
        condition: str | None = None,
        keys: Iterable[str] | None = None,
        of: str | None = None,
        if_there: bool = False,
    ) -> dict[str, Column]:
        """Return the key column and `columns`; see `Table.read`."""
        stored = super().schema()[1]
        columns = list(self.schema()[1]) if columns is None else columns
        if if_there:
            columns = [name for name in columns if name in stored or name == layout.OBS_IDS]
        own = [n for n in columns if n in stored]
        found = super().read(own, condition=condition, keys=keys, of=of)
        if layout.OBS_IDS in columns and layout.OBS_IDS not in found:
            volumes = self._volume_ids()
            subjects = found[layout.SUBJECT_ID].values
            texts = [json.dumps(sorted(volumes.get(subject, ()))) for subject in subjects]
            found[layout.OBS_IDS] = Column(_objects(texts))
        return {name: found[name] for name in (layout.SUBJECT_ID, *columns)}


class LegacyCollectionStore(CollectionStore):
    """A collection of 0.1.x; its rows come from one look at every array, taken once."""

    has_geometry = False

    def __init__(self, uri: str) -> None:
        super().__init__(uri, 0, layout.base_name(uri))

    @property
    def obs(self) -> Table:
        """The table of volumes."""
        return LegacyTable(layout.join(self.uri, layout.OBS))

    @lazy_property
    def arrays(self) -> list[VolumeDescription]:
        """What each array says of itself, in the order of their names."""
        found = files.list_folder(layout.join(self.uri, layout.VOLUMES))
        places = [place for place in found if not layout.base_name(place).startswith("__")]
        with process.new_threads("legacy", get_radiobject_config().read.max_workers) as threads:
            return list(threads.map(describe_volume, places))

    @lazy_property
    def rows(self) -> VolumeRows:
        """The volumes in the order of the table.

        Raises
        ------
        AlignmentError
            If two arrays have the same id.
        """
        by_id: dict[str, VolumeDescription] = {}
        for array in self.arrays:
            if array.obs_id is not None and by_id.setdefault(array.obs_id, array) is not array:
                raise AlignmentError(
                    f"{array.uri} and {by_id[array.obs_id].uri} both say they are "
                    f"{array.obs_id!r}; remove the one that is wrong"
                )
        table = self.obs.read()
        ids = table[layout.OBS_ID].values
        found = [by_id.get(obs_id) for obs_id in ids]
        eye = np.eye(4)
        return VolumeRows(
            folder=layout.join(self.uri, layout.VOLUMES),
            subjects=Texts(table[layout.SUBJECT_ID].values),
            ids=Texts(ids),
            names=Texts([_ABSENT if a is None else layout.base_name(a.uri) for a in found]),
            dtypes=_objects(["uint8" if a is None else a.dtype.name for a in found]),
            sides=np.asarray([_sides(array) for array in found], np.int32).reshape(-1, 4),
            grids=np.asarray(
                [eye if a is None or a.affine is None else a.affine for a in found]
            ).reshape(-1, 4, 4)[:, :3],
            rescales=np.full((len(found), 2), np.nan),
        )

    def locators(self, rows: npt.NDArray[np.intp]) -> Sequence[VolumeLocator]:
        """Return where the voxels of `rows` are.

        Raises
        ------
        StoreNotFoundError
            If one of them has no array.
        """
        absent = self.rows.ids.take(rows)[self.rows.names.take(rows) == _ABSENT]
        if len(absent):
            raise StoreNotFoundError(f"{self.uri} has no volume for its row {absent[0]!r}")
        return super().locators(rows)

    def refuse_change(self, verb: str) -> None:
        """Raise a `StorageError`: old stores are read only."""
        _refuse(self.uri, verb)

    def subject_splits(self) -> dict[str, str]:
        """Return an empty mapping: 0.1.x stored no split."""
        return {}

    def _fetch_indexes(self, rows: npt.NDArray[np.intp]) -> None:
        """Do nothing: the reader takes the tile index from the array."""


class LegacyDatasetStore:
    """A data set of 0.1.x, in the form of `radiobject.storage.schema.dataset.DatasetStore`."""

    splits: dict[str, str] = {}  # noqa: RUF012  (never changed: there is none)

    def __init__(self, uri: str, at: Any = None) -> None:
        if at is not None:
            raise StorageError(f"{uri} was written by RadiObject 0.1, which kept no older states")
        self.uri = uri
        found = files.list_folder(layout.join(uri, layout.COLLECTIONS))
        folders = [folder for folder in found if groups.object_kind(folder) == "group"]
        self._collections = {layout.base_name(f): LegacyCollectionStore(f) for f in folders}
        places = {n: layout.join(layout.COLLECTIONS, n) for n in self._collections}
        self.state = Commit(0, f"written by radiobject {WRITTEN_BY}", "", places)
        self.head = Head(uri, ROOT, None, None, (self.state,))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the collections, sorted."""
        return tuple(sorted(self._collections))

    @property
    def obs_meta(self) -> Table:
        """The table of subjects."""
        return LegacySubjects(layout.join(self.uri, layout.OBS_META), self._volume_ids)

    def _volume_ids(self) -> dict[str, list[str]]:
        volumes: dict[str, list[str]] = {}
        for store in self._collections.values():
            table = store.obs.read()
            pairs = zip(table[layout.SUBJECT_ID].values, table[layout.OBS_ID].values, strict=True)
            for subject, obs_id in pairs:
                volumes.setdefault(subject, []).append(obs_id)
        return volumes

    @lazy_property
    def subject_ids(self) -> np.ndarray:
        """Subject ids in the order of their rows."""
        return self.obs_meta.read()[layout.SUBJECT_ID].values

    @lazy_property
    def subject_texts(self) -> Texts:
        """The same, compact."""
        return Texts(self.subject_ids)

    @lazy_property
    def position(self) -> Mapping[str, int]:
        """Row of each subject id."""
        return Lookup(self.subject_texts)

    def collection(self, name: str) -> LegacyCollectionStore:
        """Return the collection called `name`; KeyError if there is none."""
        return self._collections[name]

    def refuse_change(self, verb: str) -> None:
        """Raise a `StorageError`: old stores are read only."""
        _refuse(self.uri, verb)


def _objects(values: list[str]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _sides(array: VolumeDescription | None) -> tuple[int, ...]:
    if array is None:
        return (0, 0, 0, 0)
    return array.shape if len(array.shape) == 4 else (*array.shape, 0)


def _refuse(uri: str, verb: str) -> None:
    raise StorageError(
        f"{verb}: {uri} was written by RadiObject {WRITTEN_BY} and is only read here; write the "
        "new form with RadiObject.upgrade(new_uri), which leaves this one as it is"
    )


def is_legacy_dataset(uri: str) -> bool:
    """Return whether the group at `uri` has the layout of a 0.1.x data set."""
    parts = {layout.OBS_META: "array", layout.COLLECTIONS: "group"}
    return all(groups.object_kind(layout.join(uri, name)) == kind for name, kind in parts.items())


def is_legacy_collection(uri: str) -> bool:
    """Return whether the group at `uri` has the layout of a 0.1.x collection."""
    parts = {layout.OBS: "array", layout.VOLUMES: "group"}
    return all(groups.object_kind(layout.join(uri, name)) == kind for name, kind in parts.items())
