"""A collection: volumes of one kind, one row of metadata each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import tiledb

from radiobject._types import BatchTransformFn, LabelSource, TransformFn
from radiobject.dataframe import Belonging, Dataframe
from radiobject.exceptions import ViewError
from radiobject.indexing import Groups, Index, Positions
from radiobject.lazy import lazy_property
from radiobject.rows.indexers import ILoc, Loc, first_positions, last_positions, listed, sampled
from radiobject.rows.pandas_io import GEOMETRY_TEXTS, to_series
from radiobject.storage.commits.head import Clock
from radiobject.storage.commits.transaction import transaction
from radiobject.storage.io import layout
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.schema import dataset
from radiobject.storage.schema.collection import CollectionStore
from radiobject.storage.schema.volume_rows import SYSTEM_COLUMNS, VolumeRows
from radiobject.transform.jobs import batch_job, in_batches, jobs_of, transform_job
from radiobject.transform.jobs import generate_obs_id as generate_obs_id
from radiobject.transform.query import EagerQuery, LazyQuery
from radiobject.volume import Volume

if TYPE_CHECKING:
    from radiobject.ml import VolumeCollectionDataset

Source = str | Path | VolumeLocator


class VolumeCollection:
    """Volumes of one kind, in the order of (subject id, volume id), or a selection of them.

    A selection keeps the order asked and its repeats, and everything reached from it (rows,
    volumes, datasets, writers) sees just what was selected.

    Parameters
    ----------
    uri : str
        The collection's group. Nothing is read until it is needed.
    ctx : tiledb.Ctx, optional
        Accepted for programs that pass one; settings come from `radiobject.configure`.
    """

    def __init__(self, uri: str, ctx: tiledb.Ctx | None = None) -> None:
        self.uri = layout.normalise_uri(uri)
        self._rows: Positions | None = None
        self._on_change: Callable[[], None] | None = None

    @classmethod
    def of_store(cls, store: CollectionStore, rows: Positions | None = None) -> VolumeCollection:
        """Return the collection over an opened store, or over selected rows of it."""
        found = cls.__new__(cls)
        found.uri = store.uri
        found._rows = rows
        found._on_change = None
        found.__dict__["_store"] = store
        return found

    @lazy_property
    def _store(self) -> CollectionStore:
        return dataset.open_collection(self.uri)

    @property
    def _all(self) -> VolumeRows:
        return self._store.rows

    @lazy_property
    def _positions(self) -> Positions:
        return np.arange(len(self._all), dtype=np.intp) if self._rows is None else self._rows

    def _view(self, chosen: Positions) -> VolumeCollection:
        return VolumeCollection.of_store(self._store, self._positions[chosen])

    def _volume(self, chosen: int) -> Volume:
        row = int(self._positions[chosen])
        locator = self._store.locators(np.asarray([row], dtype=np.intp))[0]
        return Volume.of_locator(locator, self._all.affines[row])

    # What it is

    @property
    def is_view(self) -> bool:
        """Whether only some volumes were selected."""
        return self._rows is not None

    @property
    def name(self) -> str | None:
        """The collection's name."""
        return self._store.name

    @property
    def shapes(self) -> npt.NDArray[np.int64]:
        """Shape of each volume, (n, 4); T is 0 for volumes without a time axis."""
        return self._all.shapes[self._positions]

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape that all volumes have; None if they differ or there are none."""
        rows = self._positions
        if not len(rows) or not (self.shapes == self._all.shapes[rows[0]]).all():
            return None
        return self._all.shape(int(rows[0]))

    @property
    def is_uniform(self) -> bool:
        """Whether all volumes have one shape."""
        return self.shape is not None

    @property
    def obs_ids(self) -> list[str]:
        """Ids of the volumes."""
        return self._all.obs_ids[self._positions].tolist()

    @property
    def subject_ids(self) -> list[str]:
        """Subject of each volume, as many as there are volumes."""
        return self._all.subject_ids[self._positions].tolist()

    @property
    def obs_subject_ids(self) -> list[str]:
        """Subject of each volume, as many as there are volumes."""
        return self.subject_ids

    @property
    def index(self) -> Index:
        """Index of the volume ids; a repeat in a selection counts once."""
        return Index.build(dict.fromkeys(self.obs_ids), layout.OBS_ID)

    @property
    def subjects(self) -> Index:
        """Index of the subjects in the order of their first volume."""
        return Index.build(dict.fromkeys(self.subject_ids), layout.SUBJECT_ID)

    @lazy_property
    def _position(self) -> Mapping[str, int]:
        if self._rows is None:
            return self._store.position
        return {obs_id: i for i, obs_id in reversed(list(enumerate(self.obs_ids)))}

    def locators(self) -> list[VolumeLocator]:
        """Return where the voxels of each volume are; what worker processes are given."""
        return self._store.locators(self._positions)

    def locate(self, obs_id: str) -> VolumeLocator:
        """Return where the voxels of one volume are; KeyError if it is not selected."""
        return self.loc[obs_id].locator  # type: ignore[union-attr]

    def affines(self) -> npt.NDArray[np.float64]:
        """Return the affine of each volume, voxel index to RAS+ mm, shape (n, 4, 4)."""
        return self._all.affines[self._positions]

    def subject_splits(self) -> dict[str, str]:
        """Return each subject's part in the data set's stored split; see `RadiObject.split`."""
        return self._store.subject_splits()

    def subject_rows(self) -> pd.DataFrame:
        """Return the data set's table of subjects; empty where the collection stands alone."""
        return pd.DataFrame({n: to_series(c) for n, c in self._store.subject_table().items()})

    # Rows

    @property
    def obs(self) -> Dataframe:
        """The rows of metadata of what is selected."""
        return self._dataframe(self._rows)

    def _dataframe(self, rows: Positions | None) -> Dataframe:
        belonging = Belonging(
            keys=lambda: self._all.keys,
            protected=SYSTEM_COLUMNS,
            computed=GEOMETRY_TEXTS if self._store.has_geometry else {},
            writer=self._commit_rows if rows is None else None,
        )
        return Dataframe.of_table(self._store.obs, belonging, rows)

    def to_obs(self) -> pd.DataFrame:
        """Return the rows of metadata as pandas has them."""
        return self.obs.read()

    def get_obs_row_by_obs_id(self, obs_id: str) -> pd.DataFrame:
        """Return the row of a volume, or no row."""
        place = self._position.get(obs_id)
        chosen = self._positions[:0] if place is None else self._positions[[place]]
        return self._dataframe(chosen).read()

    # Selection

    @property
    def iloc(self) -> ILoc[Volume, VolumeCollection]:
        """Volumes by position."""
        return ILoc(len(self), self._volume, self._view)

    @property
    def loc(self) -> Loc[Volume, VolumeCollection]:
        """Volumes by id."""
        return Loc(layout.OBS_ID, self._position, self._volume, self._view)

    def __getitem__(self, key: Any) -> Volume | VolumeCollection:
        if isinstance(key, str):
            return self.loc[key]
        if isinstance(key, list) and key and all(isinstance(item, str) for item in key):
            return self.loc[key]
        return self.iloc[key]

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[Volume]:
        for locator, affine in zip(self.locators(), self.affines(), strict=True):
            yield Volume.of_locator(locator, affine)

    def of_subjects(self, subjects: Sequence[str]) -> VolumeCollection:
        """Return the volumes of `subjects`, in the order of the subjects given."""
        groups = self._store.subjects if self._rows is None else Groups(self.subject_ids)
        return self._view(groups.positions(subjects))

    def sel(self, *, subject: str | Sequence[str]) -> Volume | VolumeCollection:
        """Return a subject's volume if it has exactly one, else a view; KeyError if unknown."""
        wanted = listed(subject)
        missing = sorted(set(wanted) - set(self.subject_ids))
        if missing:
            raise KeyError(f"subject {missing[0]!r} not found in {self!r}")
        found = self.of_subjects(wanted)
        return found._volume(0) if isinstance(subject, str) and len(found) == 1 else found

    def groupby_subject(self) -> Iterator[tuple[str, VolumeCollection]]:
        """Yield each subject with a view of its volumes."""
        grouped = self.of_subjects(list(self.subjects))
        owners = np.asarray(grouped.subject_ids, dtype=object)
        bounds = np.flatnonzero(owners[1:] != owners[:-1]) + 1
        for places in np.split(np.arange(len(owners), dtype=np.intp), bounds):
            if len(places):
                yield owners[places[0]], grouped._view(places)

    def filter(self, expr: str) -> VolumeCollection:
        """Return the volumes that an expression selects; see `radiobject.rows.expression`."""
        return VolumeCollection.of_store(self._store, self.obs.matching(expr))

    def head(self, n: int = 5) -> VolumeCollection:
        """Return the first volumes."""
        return self._view(first_positions(len(self), n))

    def tail(self, n: int = 5) -> VolumeCollection:
        """Return the last volumes."""
        return self._view(last_positions(len(self), n))

    def sample(self, n: int = 5, seed: int | None = None) -> VolumeCollection:
        """Return volumes chosen at random without replacement."""
        return self._view(sampled(len(self), n, seed))

    def copy(self) -> VolumeCollection:
        """Return another object over the same selection."""
        return VolumeCollection.of_store(self._store, self._rows)

    # Pipelines

    def lazy(self) -> LazyQuery:
        """Return a pipeline that streams."""
        return LazyQuery(self)

    def map(
        self, fn: TransformFn, *, executor: Executor | None = None, progress: bool = False
    ) -> EagerQuery:
        """Apply `fn(volume, obs_row)` to every volume and hold the results."""
        work: Callable[[Any], Any] = partial(transform_job, (fn,))
        return EagerQuery.run(self, work, jobs_of(self), executor, progress)

    def map_batches(
        self,
        fn: BatchTransformFn,
        batch_size: int = 8,
        *,
        executor: Executor | None = None,
        progress: bool = False,
    ) -> EagerQuery:
        """Apply `fn` to lists of (volume, obs_row) and hold the results."""
        batches = in_batches(jobs_of(self), batch_size)
        work: Callable[[Any], Any] = partial(batch_job, fn)
        return EagerQuery.run(self, work, batches, executor, progress)

    def write(
        self,
        uri: str | None = None,
        name: str | None = None,
        ctx: tiledb.Ctx | None = None,
        *,
        executor: Executor | None = None,
        progress: bool = False,
    ) -> VolumeCollection:
        """Copy what is selected to a new collection; see `LazyQuery.write`.

        Raises
        ------
        ValueError
            If nothing is selected.
        """
        if not len(self):
            raise ValueError("No volumes to write")
        if uri is None:
            beside = f"{self.uri}_written"
            uri = layout.join(layout.parent(self.uri), name) if name else beside
        return self.lazy().write(uri, name, executor=executor, progress=progress)

    def to_dataset(
        self,
        patch_size: Sequence[int] | None = None,
        labels: LabelSource = None,
        transform: Callable[..., Any] | None = None,
    ) -> VolumeCollectionDataset:
        """Return a PyTorch dataset of patches, or of whole volumes without `patch_size`."""
        from radiobject.ml import DatasetConfig, LoadingMode, VolumeCollectionDataset

        mode = LoadingMode.FULL_VOLUME if patch_size is None else LoadingMode.PATCH
        size = None if patch_size is None else tuple(patch_size)
        config = DatasetConfig(loading_mode=mode, patch_size=size)
        return VolumeCollectionDataset(self, config=config, labels=labels, transform=transform)

    # Changes

    def _require_root(self, verb: str) -> None:
        if self.is_view:
            raise ViewError(f"{verb} needs the stored collection, {self!r} is a view of it")
        self._store.refuse_change(verb)

    def _reopen(self) -> None:
        for cached in ("_store", "_positions", "_position"):
            self.__dict__.pop(cached, None)

    def _changed(self) -> None:
        self._reopen()
        if self._on_change is not None:
            self._on_change()

    @contextmanager
    def _commit_rows(self, operation: str) -> Iterator[Clock]:
        self._require_root(operation)
        with transaction(dataset.owner_of(self.uri), operation) as tx:
            yield tx.clock
            dataset.publish(tx)
        self._changed()

    def append(
        self,
        niftis: Sequence[tuple[str | Path, str]] | None = None,
        dicom_dirs: Sequence[tuple[str | Path, str]] | None = None,
        reorient: bool | None = None,
        progress: bool = False,
        *,
        executor: Executor | None = None,
    ) -> None:
        """Add volumes from files, all of them or none.

        Parameters
        ----------
        niftis, dicom_dirs : sequence of (path, subject id)
            One of the two.

        Raises
        ------
        ViewError
            On a view.
        ShapeError
            If the collection has one shape and a file has another.
        """
        from radiobject.ingest import entry

        self._require_root("append")
        entry.append_to_collection(
            self, niftis, dicom_dirs, reorient=reorient, progress=progress, executor=executor
        )
        self._changed()

    def delete(self, obs_ids: str | Sequence[str]) -> None:
        """Delete volumes; older states still have them until `vacuum`.

        Raises
        ------
        KeyError
            If a volume is not there; nothing is deleted.
        ViewError
            On a view.
        """
        from radiobject.edit.changes import delete_volumes

        self._require_root("delete")
        delete_volumes(self, listed(obs_ids))
        self._changed()

    def validate(self, *, checksums: bool = False) -> None:
        """Check that rows and stored volumes agree.

        Parameters
        ----------
        checksums : bool
            Decode every voxel too, and compare with what the store says of its tiles.

        Raises
        ------
        AlignmentError
            On an id or count mismatch, naming the volumes.
        ViewError
            On a view.
        """
        from radiobject.edit.check import validate_collection

        if self.is_view:
            raise ViewError(f"validate needs the stored collection, {self!r} is a view of it")
        validate_collection(self._store, checksums=checksums)

    # Creation

    @classmethod
    def from_niftis(
        cls,
        uri: str,
        niftis: Sequence[tuple[str | Path, str]],
        obs: pd.DataFrame | None = None,
        reorient: bool | None = None,
        validate_dimensions: bool = True,
        valid_subject_ids: Sequence[str] | None = None,
        name: str | None = None,
        ctx: tiledb.Ctx | None = None,
        progress: bool = False,
        **options: Any,
    ) -> VolumeCollection:
        """Create a collection from NIfTI files; see `ingest.entry.create_collection`."""
        from radiobject.ingest import entry

        options |= {"validate_dimensions": validate_dimensions, "progress": progress}
        return entry.create_collection(
            uri, niftis, entry.ImageFormat.NIFTI, obs, reorient, valid_subject_ids, name, **options
        )

    @classmethod
    def from_dicoms(
        cls,
        uri: str,
        dicom_dirs: Sequence[tuple[str | Path, str]],
        obs: pd.DataFrame | None = None,
        reorient: bool | None = None,
        validate_dimensions: bool = True,
        valid_subject_ids: Sequence[str] | None = None,
        name: str | None = None,
        ctx: tiledb.Ctx | None = None,
        progress: bool = False,
        **options: Any,
    ) -> VolumeCollection:
        """Create a collection from DICOM series; see `ingest.entry.create_collection`."""
        from radiobject.ingest import entry

        options |= {"validate_dimensions": validate_dimensions, "progress": progress}
        return entry.create_collection(
            uri, dicom_dirs, entry.ImageFormat.DICOM, obs, reorient, valid_subject_ids, name,
            **options,
        )  # fmt: skip

    @classmethod
    def from_numpy(
        cls,
        uri: str,
        volumes: Mapping[tuple[str, str], np.ndarray],
        name: str | None = None,
        *,
        affines: Mapping[tuple[str, str], npt.ArrayLike] | None = None,
        obs: pd.DataFrame | None = None,
    ) -> VolumeCollection:
        """Create a collection from arrays keyed by (subject id, volume id).

        `obs` has the columns ``obs_subject_id`` and ``obs_id``, and any others to keep.
        """
        from radiobject.writers import write_arrays

        write_arrays(uri, volumes, name, affines or {}, obs)
        return cls(uri)

    def __repr__(self) -> str:
        shape = self.shape
        shown = "heterogeneous" if shape is None else "x".join(str(side) for side in shape)
        view = ", view" if self.is_view else ""
        return f"VolumeCollection({self.name!r}, {len(self)} volumes, shape={shown}{view})"

    def _repr_html_(self) -> str:
        from radiobject.repr_html import collection_html

        return collection_html(self)
