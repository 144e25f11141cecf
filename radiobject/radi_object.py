"""A data set: subjects, and collections of their volumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tiledb

from radiobject.ctx import ignore_ctx
from radiobject.dataframe import Dataframe
from radiobject.edit.changeable import Changeable
from radiobject.exceptions import ViewError
from radiobject.executors import ExecutorLike
from radiobject.indexing import Index, Positions
from radiobject.lazy import LazyModule, lazy_property, pd
from radiobject.rows.indexers import ILoc, Loc, first_positions, last_positions, listed, sampled
from radiobject.selection import SubjectSelection, VolumeSelection
from radiobject.storage.io import layout
from radiobject.storage.schema import dataset
from radiobject.storage.schema.dataset import DatasetStore
from radiobject.storage.schema.lookup import collections_with
from radiobject.volume import Volume
from radiobject.volume_collection import VolumeCollection

if TYPE_CHECKING:
    from radiobject import bids_export, repr_html
    from radiobject.edit import changes, check, compose, phi, upgrade
    from radiobject.formats.discovery import ImageSource
    from radiobject.ingest import entry, run
    from radiobject.storage.schema.legacy import LegacyDatasetStore
    from radiobject.transform import preprocessing
    from radiobject.transform.preprocessing import Preprocessing
else:
    # Verbs: reading patches takes none of them.
    bids_export = LazyModule("radiobject.bids_export")
    changes = LazyModule("radiobject.edit.changes")
    check = LazyModule("radiobject.edit.check")
    compose = LazyModule("radiobject.edit.compose")
    entry = LazyModule("radiobject.ingest.entry")
    phi = LazyModule("radiobject.edit.phi")
    preprocessing = LazyModule("radiobject.transform.preprocessing")
    repr_html = LazyModule("radiobject.repr_html")
    run = LazyModule("radiobject.ingest.run")
    upgrade = LazyModule("radiobject.edit.upgrade")


class RadiObject(Changeable):
    """Subjects in the order of their ids, with their metadata and their volumes.

    A selection reaches everything under it: its collections, rows, volumes and datasets have just
    the subjects that were selected, in the order asked and with their repeats.

    Parameters
    ----------
    uri : str
        The data set: a folder or ``s3://bucket/name``. Nothing is read until it is needed.
    ctx : tiledb.Ctx, optional
        Accepted for programs that pass one; settings come from `radiobject.configure`.
    at : int or datetime, optional
        Open an older state: a commit's timestamp in ms, a time, or -2 for the last but one.
    """

    _kind = "data set"

    def __init__(
        self, uri: str, ctx: tiledb.Ctx | None = None, *, at: int | datetime | None = None
    ) -> None:
        ignore_ctx(ctx)
        self._uri = layout.normalise_uri(uri)
        self._at = at

    @lazy_property
    def _selection(self) -> SubjectSelection:
        return SubjectSelection(dataset.open_dataset(self._uri, self._at))

    @property
    def _store(self) -> DatasetStore | LegacyDatasetStore:
        return self._selection.store

    @lazy_property
    def _opened(self) -> dict[str, VolumeCollection]:
        return {}

    def _of(self, selection: SubjectSelection) -> RadiObject:
        view = RadiObject(self._uri, at=self._at)
        view.__dict__["_selection"] = selection
        return view

    def _view(self, chosen: Positions) -> RadiObject:
        return self._of(self._selection.take(chosen))

    def _one(self, chosen: int) -> RadiObject:
        return self._view(np.asarray([chosen], dtype=np.intp))

    # What it is

    @property
    def uri(self) -> str | None:
        """Where the data set is; None for a view."""
        return None if self.is_view else self._uri

    @property
    def is_view(self) -> bool:
        """Whether only some subjects or collections were selected."""
        opened = self.__dict__.get("_selection")
        return opened is not None and opened.is_view

    @property
    def collection_names(self) -> tuple[str, ...]:
        """Names of the collections, sorted."""
        return self._selection.collection_names

    @property
    def n_collections(self) -> int:
        """Number of collections."""
        return len(self.collection_names)

    @property
    def obs_subject_ids(self) -> list[str]:
        """Ids of the subjects."""
        return self._selection.subject_ids

    @property
    def index(self) -> Index:
        """Index of the subjects; a repeat in a selection counts once."""
        return Index.build(dict.fromkeys(self.obs_subject_ids), layout.SUBJECT_ID)

    @property
    def all_obs_ids(self) -> list[str]:
        """Ids of all volumes, collection by collection."""
        return [i for name in self.collection_names for i in self.collection(name).obs_ids]

    @property
    def obs_meta(self) -> Dataframe:
        """The subjects' rows of metadata."""
        return self._selection.obs_meta(None if self.is_view else self._commit_rows)

    def get_obs_row_by_obs_subject_id(self, obs_subject_id: str) -> pd.DataFrame:
        """Return a subject's row, or no row."""
        place = self._selection.position.get(obs_subject_id)
        chosen = np.asarray([] if place is None else [place], dtype=np.intp)
        return self._selection.take(chosen).obs_meta().read()

    # Collections and volumes

    def collection(self, name: str) -> VolumeCollection:
        """Return a collection with the volumes of the selected subjects; KeyError if unknown."""
        if name not in self._opened:
            found = VolumeCollection.of_selection(self._selection.collection(name))
            if not self.is_view:
                found._on_change = self._reopen
            self._opened[name] = found
        return self._opened[name]

    def __getattr__(self, name: str) -> VolumeCollection:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self.collection_names:
            return self.collection(name)
        raise AttributeError(
            f"{type(self).__name__} has no attribute and no collection {name!r}; the collections "
            f"are {list(self.collection_names)}"
        )

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.collection_names})

    def get_volume(self, obs_id: str) -> Volume:
        """Return a volume of any collection; KeyError if no selected subject has it."""
        for name in collections_with(self._store, self.collection_names, obs_id):
            found = self.collection(name)
            if obs_id in found._selection.position:
                return found.loc[obs_id]  # type: ignore[return-value]
        raise KeyError(f"{layout.OBS_ID} {obs_id!r} not found in {self!r}")

    # Selection

    @property
    def iloc(self) -> ILoc[RadiObject, RadiObject]:
        """Subjects by position; always a view."""
        return ILoc(len(self), self._one, self._view)

    @property
    def loc(self) -> Loc[RadiObject, RadiObject]:
        """Subjects by id; always a view."""
        return Loc(layout.SUBJECT_ID, self._selection.position, self._one, self._view)

    def sel(self, *, subject: str | Sequence[str]) -> RadiObject:
        """Return a view of one subject or several; KeyError if unknown."""
        return self.loc[listed(subject)]

    def __getitem__(self, key: str | Sequence[str]) -> RadiObject:
        return self.loc[key]

    def __len__(self) -> int:
        return len(self._selection.positions)

    def __iter__(self) -> Iterator[str]:
        return iter(self.collection_names)

    def filter(self, expr: str) -> RadiObject:
        """Return the subjects that an expression selects; see `radiobject.rows.expression`."""
        return self._of(self._selection.matching(expr))

    def head(self, n: int = 5) -> RadiObject:
        """Return the first subjects."""
        return self._view(first_positions(len(self), n))

    def tail(self, n: int = 5) -> RadiObject:
        """Return the last subjects."""
        return self._view(last_positions(len(self), n))

    def sample(self, n: int = 5, seed: int | None = None) -> RadiObject:
        """Return subjects chosen at random without replacement."""
        return self._view(sampled(len(self), n, seed))

    def select_collections(self, names: str | Sequence[str]) -> RadiObject:
        """Return a view with only these collections; KeyError if one is unknown."""
        wanted = tuple(dict.fromkeys(listed(names)))
        for name in wanted:
            self.collection(name)
        return self._of(replace(self._selection, names=wanted))

    def copy(self) -> RadiObject:
        """Return the object itself, or another over the same selection."""
        return self._of(self._selection) if self.is_view else self

    def describe(self) -> str:
        """Return a summary of the selection as text."""
        collections = [(name, repr(self.collection(name))) for name in self.collection_names]
        rows = self.obs_meta.read(include_index=False)
        shown = rows.drop(columns=[layout.OBS_IDS], errors="ignore")
        return repr_html.describe_text(repr(self), collections, shown)

    # Changes

    def _reopen(self) -> None:
        for cached in ("_selection", "_opened"):
            self.__dict__.pop(cached, None)

    def append(
        self,
        images: Mapping[str, ImageSource],
        obs_meta: pd.DataFrame | None = None,
        reorient: bool | None = None,
        format_hint: Mapping[str, Any] | None = None,
        progress: bool = False,
        **options: Any,
    ) -> None:
        """Add volumes, and the subjects that are new, in one commit; see `from_images`.

        Raises
        ------
        ValueError
            If a new subject has no row in `obs_meta`.
        ViewError
            On a view.
        """
        settings = run.IngestOptions(reorient=reorient, progress=progress, **options)
        given = {"format_hint": format_hint, "options": settings}
        self._change("append", entry.append_images, images, obs_meta, **given)

    def delete(self, subjects: str | Sequence[str]) -> None:
        """Delete subjects with all their volumes; older states have them until `vacuum`.

        Raises
        ------
        KeyError
            If a subject is not there; nothing is deleted.
        """
        self._change("delete", changes.delete_subjects, listed(subjects))

    def rename_collection(self, old: str, new: str) -> None:
        """Rename a collection; its volumes keep their ids.

        Raises
        ------
        KeyError
            If there is no collection `old`.
        ValueError
            If there is one called `new`.
        """
        self._change("rename_collection", changes.rename_collection, old, new)

    def split(
        self, fractions: Mapping[str, float], stratify: str | None = None, seed: int = 0
    ) -> dict[str, str]:
        """Divide the subjects into parts, and store the part of each in obs_meta.

        Subjects that have a part keep it, so a split stays what it was when subjects are appended
        and `split` is called again.

        Parameters
        ----------
        fractions : mapping of str to float
            Name and share of each part; the shares sum to 1.
        stratify : str, optional
            Column of obs_meta whose values are divided in the same proportions.
        seed : int
            Another seed gives another split.

        Returns
        -------
        dict of str to str
            The part of every subject.

        Raises
        ------
        ConfigurationError
            If the shares do not sum to 1.
        AlignmentError
            If subjects have a part that is not one of `fractions`.
        """
        return self._change("split", changes.split_dataset, fractions, stratify, seed)

    @property
    def splits(self) -> dict[str, RadiObject]:
        """A view of each part of the stored split, by name; empty if there is none."""
        members: dict[str, list[str]] = {}
        parts = self._store.splits
        for subject in self.obs_subject_ids:
            if subject in parts:
                members.setdefault(parts[subject], []).append(subject)
        return {part: self.loc[members[part]] for part in sorted(members)}

    def add_collection(self, name: str, vc: VolumeCollection | str) -> None:
        """Make a collection part of the data set.

        One that lies at ``{uri}/collections/...`` is linked, any other (or a view) is copied.

        Raises
        ------
        ValueError
            If there is a collection of that name.
        AlignmentError
            If a volume belongs to a subject without a row in obs_meta, or an id is taken.
        """
        self._change("add_collection", compose.add_collection, name, _given(vc))

    def validate(self, **extent: Any) -> None:
        """Check that rows, ids and stored volumes agree; see `VolumeCollection.validate`."""
        if self.is_view:
            raise ViewError(f"validate needs the stored data set, {self!r} is a view of it")
        check.validate_dataset(self._store, check.Extent(**extent))

    # History

    def history(self) -> pd.DataFrame:
        """Return the committed states, oldest first; each `timestamp` opens with ``at=``."""
        rows = [
            {**vars(c), "collections": ", ".join(sorted(c.collections))}
            for c in self._store.head.commits
        ]
        return pd.DataFrame(rows)

    def vacuum(self, keep: int = 1, *, executor: ExecutorLike | None = None) -> dict[str, int]:
        """Forget all but the last `keep` states, and remove what only the forgotten ones had.

        With ``keep=1`` nothing is left in the files of what was deleted, replaced or dropped.
        Files are removed by threads, or where `executor` runs.

        Returns
        -------
        dict
            How many states, volumes and collections were removed.
        """
        return self._change("vacuum", changes.vacuum, keep, executor=executor)

    def repair(self, *, break_lock: bool = False) -> None:
        """Roll back what a dead writer left.

        Parameters
        ----------
        break_lock : bool
            Take over the lock of a writer on another machine that is gone for good.
        """
        self._change("repair", changes.repair, break_lock=break_lock)

    # Copies and creation

    def write(
        self,
        uri: str,
        ctx: tiledb.Ctx | None = None,
        *,
        executor: ExecutorLike | None = None,
        progress: bool = False,
    ) -> RadiObject:
        """Copy what is selected to a new data set."""
        ignore_ctx(ctx)
        options: dict[str, Any] = {"executor": executor, "progress": progress}
        return RadiObject(compose.write_selection(self._selection, uri, **options))

    def to_bids(
        self, folder: str | Path, *, exists: str = "raise", **options: Any
    ) -> list[bids_export.ExportedVolume]:
        """Write what is selected as a BIDS data set that reads back equal.

        The options are those of `radiobject.bids_export.write_bids`, such as ``name``.
        """
        return bids_export.write_bids(self._selection, folder, exists=exists, **options)

    def resample(self, spacing: Any = None, **options: Any) -> Preprocessing[RadiObject]:
        """Return the data set resampled, to be written; see `Preprocessing.resample`."""
        return preprocessing.Preprocessing(self._selection, RadiObject).resample(spacing, **options)

    def crop_foreground(self, collection: str, **options: Any) -> Preprocessing[RadiObject]:
        """Return the scans cropped, to be written; see `Preprocessing.crop_foreground`."""
        begun = preprocessing.Preprocessing(self._selection, RadiObject)
        return begun.crop_foreground(collection, **options)

    def upgrade(
        self, uri: str, *, executor: ExecutorLike | None = None, progress: bool = False
    ) -> RadiObject:
        """Write a data set of 0.1.x anew at `uri`, with its ids, and leave it as it is.

        Raises
        ------
        StorageError
            If the data set has this version's layout already.
        """
        options: dict[str, Any] = {"executor": executor, "progress": progress}
        return RadiObject(upgrade.upgrade_dataset(self._selection, uri, **options))

    def identifying_fields(self) -> list[phi.IdentifyingField]:
        """Return the fields of the selection that can point to a person, without their values.

        Ids and free text cannot be judged by the name of their column: look at them.
        """
        return phi.identifying_fields(self._selection)

    @classmethod
    def from_images(
        cls,
        uri: str,
        images: Mapping[str, ImageSource],
        validate_alignment: bool = False,
        obs_meta: pd.DataFrame | None = None,
        reorient: bool | None = None,
        format_hint: Mapping[str, Any] | None = None,
        ctx: tiledb.Ctx | None = None,
        progress: bool = False,
        **options: Any,
    ) -> RadiObject:
        """Create a data set from NIfTI files and DICOM series; see `radiobject.ingest.entry`."""
        ignore_ctx(ctx)
        entry.store_images(
            uri,
            images,
            obs_meta,
            validate_alignment=validate_alignment,
            format_hint=format_hint,
            options=run.IngestOptions(reorient=reorient, progress=progress, **options),
        )
        return cls(uri)

    @classmethod
    def from_collections(
        cls,
        uri: str,
        collections: Mapping[str, VolumeCollection | str],
        obs_meta: pd.DataFrame | None = None,
        ctx: tiledb.Ctx | None = None,
    ) -> RadiObject:
        """Create a data set from collections; those below `uri` are linked, others copied.

        Raises
        ------
        ValueError
            If there is no collection.
        """
        ignore_ctx(ctx)
        given = {name: _given(vc) for name, vc in collections.items()}
        return cls(compose.create_from_collections(uri, given, obs_meta))

    def __repr__(self) -> str:
        names = ", ".join(self.collection_names)
        view = " (view)" if self.is_view else ""
        return (
            f"RadiObject({len(self)} subjects, {self.n_collections} collections: [{names}]){view}"
        )

    def _repr_html_(self) -> str:
        firsts = [
            (repr(collection), collection._volume(0))
            for collection in map(self.collection, self.collection_names)
            if len(collection)
        ]
        return repr_html.dataset_html(
            repr(self), firsts, self.head(repr_html.MAX_ROWS).obs_meta.read()
        )


def _given(vc: VolumeCollection | str) -> VolumeSelection:
    return (vc if isinstance(vc, VolumeCollection) else VolumeCollection(vc))._selection
