"""A collection: volumes of one kind, one row of metadata each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tiledb

from radiobject._types import BatchTransformFn, LabelSource, TransformFn
from radiobject.ctx import ignore_ctx
from radiobject.dataframe import Dataframe
from radiobject.edit.changeable import Changeable
from radiobject.exceptions import ViewError
from radiobject.executors import ExecutorLike
from radiobject.indexing import Index, Positions
from radiobject.lazy import LazyModule, lazy_property, pd
from radiobject.rows.indexers import ILoc, Loc, first_positions, last_positions, listed, sampled
from radiobject.rows.pandas_io import to_series
from radiobject.sampling.label_names import LabelNames
from radiobject.selection import VolumeSelection
from radiobject.storage.ids import generate_obs_id as generate_obs_id
from radiobject.storage.io import layout
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.schema import dataset
from radiobject.storage.schema.collection import CollectionStore
from radiobject.volume import Volume

if TYPE_CHECKING:
    from radiobject import ml, repr_html
    from radiobject.edit import changes, check, compose
    from radiobject.formats import discovery
    from radiobject.ingest import entry
    from radiobject.transform import jobs, query
    from radiobject.transform.query import EagerQuery, LazyQuery
else:
    # Verbs: reading patches takes none of them.
    changes = LazyModule("radiobject.edit.changes")
    check = LazyModule("radiobject.edit.check")
    compose = LazyModule("radiobject.edit.compose")
    discovery = LazyModule("radiobject.formats.discovery")
    entry = LazyModule("radiobject.ingest.entry")
    jobs = LazyModule("radiobject.transform.jobs")
    ml = LazyModule("radiobject.ml", "a dataset for PyTorch", "ml")
    query = LazyModule("radiobject.transform.query")
    repr_html = LazyModule("radiobject.repr_html")


class VolumeCollection(Changeable):
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

    _kind = "collection"

    def __init__(self, uri: str, ctx: tiledb.Ctx | None = None) -> None:
        ignore_ctx(ctx)
        self.uri = layout.normalise_uri(uri)
        self._on_change: Callable[[], None] | None = None

    @classmethod
    def of_selection(cls, selection: VolumeSelection) -> VolumeCollection:
        """Return the collection over an opened store, or over selected rows of it."""
        found = cls(selection.store.uri)
        found.__dict__["_selection"] = selection
        return found

    @lazy_property
    def _selection(self) -> VolumeSelection:
        return VolumeSelection(dataset.open_collection(self.uri))

    @property
    def _store(self) -> CollectionStore:
        return self._selection.store

    def _opened(self, uri: str) -> VolumeCollection:
        return VolumeCollection(uri)

    def _view(self, chosen: Positions) -> VolumeCollection:
        return VolumeCollection.of_selection(self._selection.take(chosen))

    def _volume(self, chosen: int) -> Volume:
        one = self._selection.take(np.asarray([chosen], dtype=np.intp))
        return Volume.of_locator(one.locators()[0], one.affines()[0])

    # What it is

    @property
    def is_view(self) -> bool:
        """Whether only some volumes were selected."""
        opened = self.__dict__.get("_selection")
        return opened is not None and opened.is_view

    @property
    def name(self) -> str | None:
        """The collection's name."""
        return self._store.name

    @property
    def shapes(self) -> npt.NDArray[np.int64]:
        """Shape of each volume, (n, 4); T is 0 for volumes without a time axis."""
        return self._store.rows.sides[self._selection.positions].astype(np.int64)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape that all volumes have; None if they differ or there are none."""
        return self._selection.shape

    @property
    def is_uniform(self) -> bool:
        """Whether all volumes have one shape."""
        return self.shape is not None

    @property
    def obs_ids(self) -> list[str]:
        """Ids of the volumes."""
        return self._selection.obs_ids

    @property
    def subject_ids(self) -> list[str]:
        """Subject of each volume, as many as there are volumes."""
        return self._selection.subject_ids

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

    def locators(self) -> Sequence[VolumeLocator]:
        """Return where the voxels of each volume are; what worker processes are given."""
        return self._selection.locators()

    def locate(self, obs_id: str) -> VolumeLocator:
        """Return where the voxels of one volume are; KeyError if it is not selected."""
        return self.loc[obs_id].locator  # type: ignore[union-attr]

    def affines(self) -> npt.NDArray[np.float64]:
        """Return the affine of each volume, voxel index to RAS+ mm, shape (n, 4, 4)."""
        return self._selection.affines()

    def subject_splits(self) -> dict[str, str]:
        """Return each subject's part in the data set's stored split; see `RadiObject.split`."""
        return self._store.subject_splits()

    def subject_rows(self) -> pd.DataFrame:
        """Return the data set's table of subjects; empty where the collection stands alone."""
        return pd.DataFrame({n: to_series(c) for n, c in self._store.subject_table().items()})

    @property
    def label_names(self) -> dict[int, str]:
        """What each label value is called; empty where no names are stored."""
        return dict(self._store.label_names.names)

    @property
    def label_regions(self) -> dict[str, tuple[int, ...]]:
        """Names that stand for several label values, such as nnU-Net's regions."""
        return dict(self._store.label_names.regions)

    def label_values(self, name: str) -> tuple[int, ...]:
        """Return the values that a label's or a region's name stands for; KeyError if none."""
        return self._store.label_names.values_of(name)

    def set_label_names(
        self, names: Mapping[int, str], regions: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        """Store what the labels are called, in place of the names before.

        Parameters
        ----------
        names : mapping of int to str
            One name for a value.
        regions : mapping of str to sequence of int, optional
            Names of several values together.

        Raises
        ------
        ConfigurationError
            If a value is no integer or a name no text.
        ViewError
            On a view.
        """
        self._change("name labels", changes.name_labels, LabelNames.of(names, regions))

    # Rows

    @property
    def obs(self) -> Dataframe:
        """The rows of metadata of what is selected."""
        return self._selection.obs(None if self.is_view else self._commit_rows)

    def to_obs(self) -> pd.DataFrame:
        """Return the rows of metadata as pandas has them."""
        return self.obs.read()

    def get_obs_row_by_obs_id(self, obs_id: str) -> pd.DataFrame:
        """Return the row of a volume, or no row."""
        place = self._selection.position.get(obs_id)
        chosen = np.asarray([] if place is None else [place], dtype=np.intp)
        return self._selection.take(chosen).obs().read()

    # Selection

    @property
    def iloc(self) -> ILoc[Volume, VolumeCollection]:
        """Volumes by position."""
        return ILoc(len(self), self._volume, self._view)

    @property
    def loc(self) -> Loc[Volume, VolumeCollection]:
        """Volumes by id."""
        return Loc(layout.OBS_ID, self._selection.position, self._volume, self._view)

    def __getitem__(self, key: Any) -> Volume | VolumeCollection:
        if isinstance(key, str):
            return self.loc[key]
        if isinstance(key, list) and key and all(isinstance(item, str) for item in key):
            return self.loc[key]
        return self.iloc[key]

    def __len__(self) -> int:
        return len(self._selection.positions)

    def __iter__(self) -> Iterator[Volume]:
        for locator, affine in zip(self.locators(), self.affines(), strict=True):
            yield Volume.of_locator(locator, affine)

    def of_subjects(self, subjects: Sequence[str]) -> VolumeCollection:
        """Return the volumes of `subjects`, in the order of the subjects given."""
        return VolumeCollection.of_selection(self._selection.of_subjects(subjects))

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
        return VolumeCollection.of_selection(self._selection.matching(expr))

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
        return VolumeCollection.of_selection(self._selection)

    # Pipelines

    def lazy(self) -> LazyQuery[VolumeCollection]:
        """Return a pipeline that streams."""
        return query.LazyQuery(self)

    def map(
        self, fn: TransformFn, *, executor: ExecutorLike | None = None, progress: bool = False
    ) -> EagerQuery[VolumeCollection]:
        """Apply `fn(volume, obs_row)` to every volume and hold the results."""
        work: Callable[[Any], Any] = partial(jobs.transform_job, (fn,))
        given = jobs.jobs_of(self._selection)
        return query.EagerQuery.run(self, work, given, executor, progress)

    def map_batches(
        self,
        fn: BatchTransformFn,
        batch_size: int = 8,
        *,
        executor: ExecutorLike | None = None,
        progress: bool = False,
    ) -> EagerQuery[VolumeCollection]:
        """Apply `fn` to lists of (volume, obs_row) and hold the results."""
        batches = jobs.in_batches(jobs.jobs_of(self._selection), batch_size)
        work: Callable[[Any], Any] = partial(jobs.batch_job, fn)
        return query.EagerQuery.run(self, work, batches, executor, progress)

    def write(
        self,
        uri: str | None = None,
        name: str | None = None,
        ctx: tiledb.Ctx | None = None,
        *,
        executor: ExecutorLike | None = None,
        progress: bool = False,
    ) -> VolumeCollection:
        """Copy what is selected to a new collection; see `LazyQuery.write`.

        Raises
        ------
        ValueError
            If nothing is selected.
        """
        ignore_ctx(ctx)
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
    ) -> ml.VolumeCollectionDataset:
        """Return a PyTorch dataset of patches, or of whole volumes without `patch_size`."""
        mode = ml.LoadingMode.FULL_VOLUME if patch_size is None else ml.LoadingMode.PATCH
        size = None if patch_size is None else tuple(patch_size)
        config = ml.DatasetConfig(loading_mode=mode, patch_size=size)
        return ml.VolumeCollectionDataset(self, config=config, labels=labels, transform=transform)

    # Changes

    def _reopen(self) -> None:
        self.__dict__.pop("_selection", None)
        if self._on_change is not None:
            self._on_change()

    def append(
        self,
        niftis: Sequence[tuple[str | Path, str]] | None = None,
        dicom_dirs: Sequence[tuple[str | Path, str]] | None = None,
        reorient: bool | None = None,
        progress: bool = False,
        *,
        executor: ExecutorLike | None = None,
        **options: Any,
    ) -> None:
        """Add volumes from files, all of them or none.

        Parameters
        ----------
        niftis, dicom_dirs : sequence of (path, subject id)
            One of the two.
        **options
            Others of `IngestOptions`, such as ``allow_tilt=True``.

        Raises
        ------
        ViewError
            On a view.
        ShapeError
            If the collection has one shape and a file has another.
        """
        options |= {"reorient": reorient, "progress": progress, "executor": executor}
        self._change("append", entry.append_to_collection, niftis, dicom_dirs, **options)

    def delete(self, obs_ids: str | Sequence[str]) -> None:
        """Delete volumes; older states still have them until `vacuum`.

        Raises
        ------
        KeyError
            If a volume is not there; nothing is deleted.
        ViewError
            On a view.
        """
        self._change("delete", changes.delete_volumes, listed(obs_ids))

    def validate(self, **extent: Any) -> None:
        """Check that rows and stored volumes agree; takes the options of `edit.check.Extent`.

        That is ``checksums=True`` to decode every voxel too, and compare it with what the store
        says; ``sample=0.01`` for that share of the volumes; ``resume="file"`` to go on later.

        Raises
        ------
        AlignmentError
            On an id or count mismatch, naming the volumes.
        ViewError
            On a view.
        """
        if self.is_view:
            raise ViewError(f"validate needs the stored collection, {self!r} is a view of it")
        check.validate_collection(self._store, check.Extent(**extent))

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
        options |= {"validate_dimensions": validate_dimensions, "progress": progress}
        kind = discovery.ImageFormat.NIFTI
        made = entry.create_collection(
            uri, niftis, kind, obs, reorient, valid_subject_ids, name, **options
        )
        return cls(made, ctx)

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
        options |= {"validate_dimensions": validate_dimensions, "progress": progress}
        kind = discovery.ImageFormat.DICOM
        made = entry.create_collection(
            uri, dicom_dirs, kind, obs, reorient, valid_subject_ids, name, **options
        )
        return cls(made, ctx)

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
        return cls(compose.write_arrays(uri, volumes, name, affines, obs))

    def __repr__(self) -> str:
        shape = self.shape
        shown = "heterogeneous" if shape is None else "x".join(str(side) for side in shape)
        shown += ", view" if self.is_view else ""
        return f"VolumeCollection({self.name!r}, {len(self)} volumes, shape={shown})"

    def _repr_html_(self) -> str:
        first = self._volume(0) if len(self) else None
        return repr_html.collection_html(repr(self), first, self.head(repr_html.MAX_ROWS).to_obs())
