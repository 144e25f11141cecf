"""From files to stored volumes: all of them in one commit, or none.

With ``on_error="report"`` what can be read is kept and what cannot is reported. With
``exists="resume"`` work is committed in batches, so that an interrupted ingest of many scans goes
on where it stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from radiobject.exceptions import AlignmentError, SchemaError
from radiobject.formats.discovery import (
    ImageFormat,
    ImageSource,
    NiftiSource,
    detect_format,
    discover_nifti_pairs,
    resolve_dicom_source,
    resolve_image_source,
    resolve_nifti_source,
)
from radiobject.formats.report import IngestReport
from radiobject.frames import frame_rows, frame_schema
from radiobject.indexing import shortened
from radiobject.ingest_run import IngestOptions, IngestRun, IngestTask, Pairs, plan_tasks
from radiobject.storage import collection as stored
from radiobject.storage import commit, dataset, layout
from radiobject.storage.commit import Transaction
from radiobject.storage.volume_rows import SYSTEM_COLUMNS
from radiobject.writers import COMPUTED_COLUMNS

if TYPE_CHECKING:
    from radiobject.radi_object import RadiObject
    from radiobject.volume_collection import VolumeCollection

__all__ = [
    "ImageFormat",
    "IngestOptions",
    "IngestOutcome",
    "NiftiSource",
    "detect_format",
    "discover_nifti_pairs",
    "ingest_images",
    "resolve_dicom_source",
    "resolve_image_source",
    "resolve_nifti_source",
]


@dataclass(frozen=True)
class IngestOutcome:
    """The data set, and what became of every input."""

    radi: RadiObject
    report: IngestReport


def ingest_images(
    uri: str,
    images: Mapping[str, ImageSource],
    obs_meta: pd.DataFrame | None = None,
    *,
    validate_alignment: bool = False,
    format_hint: Mapping[str, ImageFormat | str] | ImageFormat | str | None = None,
    options: IngestOptions | None = None,
) -> IngestOutcome:
    """Create or complete a data set from image files.

    Parameters
    ----------
    uri : str
        Where the data set is or goes.
    images : mapping of str to source
        Per collection a glob, a folder, or a list of (path, subject id).
    obs_meta : DataFrame, optional
        Subjects' metadata, with the column ``obs_subject_id``; subjects without images are kept.
    validate_alignment : bool
        Require every collection to have the same subjects.
    format_hint : str or mapping, optional
        "nifti" or "dicom", for all collections or by name; found out when not given.
    options : IngestOptions, optional
        Everything else.

    Returns
    -------
    IngestOutcome
        The data set, and a report with a line per input.

    Raises
    ------
    ValueError
        For no images, subjects that do not match, or a repeated row in `obs_meta`.
    FileNotFoundError
        If a path does not exist.
    StoreExistsError
        If the data set exists and `exists` is "raise".
    IngestError
        If a file cannot be read and `on_error` is "raise"; nothing is left then.
    """
    from radiobject.radi_object import RadiObject

    settings = options or IngestOptions()
    sources = _resolve(images, format_hint)
    _check_labels(settings, sources)
    if validate_alignment:
        _check_same_subjects(sources)
    meta = _subjects_table(sources, obs_meta)
    location = layout.normalise_uri(uri)
    exists = settings.exists != "raise" and dataset.is_dataset(location)
    if exists and settings.exists == "resume":
        outcome = _append(RadiObject(location), sources, meta, settings)
    elif exists:
        outcome = _replace(location, sources, meta, settings)
    else:
        with commit.creation(location, commit.ROOT, "ingest") as tx:
            schema = frame_schema(meta, dataset.META_KEYS)
            dataset.create_obs_meta(location, schema, tx.clock)
            outcome = _fill(tx, sources, meta, settings)
    if outcome.refused:
        warnings.warn(
            f"{len(outcome.refused)} of {len(outcome.lines)} images were refused, first "
            f"{outcome.refused[0].source}: {outcome.refused[0].reasons[0]}",
            stacklevel=2,
        )
    return IngestOutcome(RadiObject(location), outcome)


_Sources = Mapping[str, tuple[list[tuple[Path, str]], ImageFormat]]


def _resolve(images: Mapping[str, ImageSource], format_hint: Any) -> _Sources:
    if not images:
        raise ValueError("images dict cannot be empty")
    resolved = {}
    for name, source in images.items():
        layout.checked_id(name, "a collection's name")
        hint = format_hint.get(name) if isinstance(format_hint, Mapping) else format_hint
        pairs, kind = resolve_image_source(source, hint)
        resolved[name] = (pairs, kind)
    return resolved


def _check_labels(options: IngestOptions, sources: _Sources) -> None:
    unknown = sorted(set(options.labels) - set(sources))
    if unknown:
        raise AlignmentError(
            f"labels names the collection {unknown[0]!r}, the images have {list(sources)}"
        )


def _subject_sets(sources: _Sources) -> dict[str, list[str]]:
    return {
        name: list(dict.fromkeys(subject for _, subject in pairs))
        for name, (pairs, _) in sources.items()
    }


def _check_same_subjects(sources: _Sources) -> None:
    sets = _subject_sets(sources)
    first, *others = sets
    for other in others:
        different = sorted(set(sets[first]) ^ set(sets[other]))
        if different:
            raise AlignmentError(
                f"Subject ID mismatch: {shortened(different)} in one of the collections "
                f"{first!r} and {other!r} only"
            )


def _subjects_table(sources: _Sources, obs_meta: pd.DataFrame | None) -> pd.DataFrame:
    subjects = list(dict.fromkeys(s for names in _subject_sets(sources).values() for s in names))
    if obs_meta is None:
        return pd.DataFrame({layout.SUBJECT_ID: sorted(subjects)})
    if layout.SUBJECT_ID not in obs_meta.columns:
        raise SchemaError(f"obs_meta must have the column {layout.SUBJECT_ID!r}")
    rows = obs_meta.drop(columns=[dataset.OBS_IDS], errors="ignore")
    repeated = rows[layout.SUBJECT_ID][rows[layout.SUBJECT_ID].duplicated()]
    if len(repeated):
        raise AlignmentError(f"obs_meta has several rows for subject {repeated.iloc[0]!r}")
    missing = sorted(set(subjects) - set(rows[layout.SUBJECT_ID]))
    if missing:
        raise AlignmentError(
            f"obs_subject_ids in images not found in obs_meta: {shortened(missing)}"
        )
    return rows


def _fill(
    tx: Transaction, sources: _Sources, meta: pd.DataFrame, options: IngestOptions
) -> IngestReport:
    """Put everything into the open commit of an empty data set."""
    places: dict[str, str] = {}
    for name in sources:
        places[name] = dataset.new_collection_location(tx, name)
        uri = layout.join(tx.uri, places[name])
        stored.create_collection(uri, tx.clock, name=name, owner="../..")
    return _run(tx, sources, meta, options, places, {}, dict.fromkeys(sources))


def _run(
    tx: Transaction,
    sources: _Sources,
    meta: pd.DataFrame,
    options: IngestOptions,
    places: Mapping[str, str],
    existing: Mapping[str, Sequence[str]],
    shapes: Mapping[str, tuple[int, ...] | None],
) -> IngestReport:
    if len(meta):
        dataset.add_subjects(tx.uri, frame_rows(meta), tx.clock)
    tasks: list[IngestTask] = []
    for name, (pairs, kind) in sources.items():
        uri = layout.located(tx.uri, places[name])
        elsewhere = {i for other, ids in existing.items() if other != name for i in ids}
        elsewhere |= {task.obs_id for task in tasks}
        own = existing.get(name, ())
        tasks += plan_tasks(name, uri, pairs, kind, own, options, elsewhere=elsewhere)
    uniform = {n: shapes.get(n) for n, (_, k) in sources.items() if k is ImageFormat.DICOM}
    run = IngestRun(tx, options, places, uniform, owned=True, subjects=len(meta))
    run.execute(tasks)
    return run.report


def _replace(
    uri: str, sources: _Sources, meta: pd.DataFrame, options: IngestOptions
) -> IngestReport:
    with commit.transaction(uri, "replace") as tx:
        before = dataset.DatasetStore(uri)
        before.obs_meta.delete_keys(layout.SUBJECT_ID, before.subject_ids.tolist(), tx.clock.tick())
        tx.start_over()
        return _fill(tx, sources, meta, options)


def _append(
    radi: RadiObject, sources: _Sources, meta: pd.DataFrame, options: IngestOptions
) -> IngestReport:
    with commit.transaction(radi._uri, "append") as tx:
        store = dataset.DatasetStore(tx.uri)
        places = dict(store.state.collections)
        stored_rows = {name: store.collection(name).rows for name in places}
        existing = {name: rows.obs_ids.tolist() for name, rows in stored_rows.items()}
        shapes = {name: rows.shape(0) if len(rows) else None for name, rows in stored_rows.items()}
        for name in sources:
            if name not in places:
                places[name] = dataset.new_collection_location(tx, name)
                uri = layout.join(tx.uri, places[name])
                stored.create_collection(uri, tx.clock, name=name, owner="../..")
        new = meta[~meta[layout.SUBJECT_ID].isin(store.position)]
        return _run(tx, sources, new, options, places, existing, shapes)


def create_dataset(
    uri: str,
    images: Mapping[str, ImageSource],
    validate_alignment: bool,
    obs_meta: pd.DataFrame | None,
    reorient: bool | None,
    *,
    format_hint: Any = None,
    **options: Any,
) -> RadiObject:
    """Do what `RadiObject.from_images` says; `options` are those of `IngestOptions`."""
    return ingest_images(
        uri,
        images,
        obs_meta,
        validate_alignment=validate_alignment,
        format_hint=format_hint,
        options=IngestOptions(reorient=reorient, **options),
    ).radi


def append_images(
    radi: RadiObject,
    images: Mapping[str, ImageSource],
    obs_meta: pd.DataFrame | None,
    reorient: bool | None,
    format_hint: Any,
    **options: Any,
) -> IngestReport:
    """Do what `RadiObject.append` says; `options` are those of `IngestOptions`."""
    settings = IngestOptions(reorient=reorient, **options)
    sources = _resolve(images, format_hint)
    known = set(radi.obs_subject_ids)
    names = {s for subjects in _subject_sets(sources).values() for s in subjects}
    new = sorted(names - known)
    if new and obs_meta is None:
        raise AlignmentError(
            f"obs_meta required for new subjects: {shortened(new)}; pass one row for each"
        )
    if obs_meta is None:
        return _append(radi, sources, pd.DataFrame({layout.SUBJECT_ID: []}), settings)
    if layout.SUBJECT_ID not in obs_meta.columns:
        raise SchemaError(f"obs_meta is missing the column {layout.SUBJECT_ID!r}")
    missing = sorted(set(new) - set(obs_meta[layout.SUBJECT_ID]))
    if missing:
        raise AlignmentError(f"obs_meta has missing entries for subjects: {shortened(missing)}")
    return _append(radi, sources, _subjects_table({}, obs_meta), settings)


def create_collection(
    uri: str,
    pairs: Pairs,
    kind: ImageFormat,
    obs: pd.DataFrame | None,
    reorient: bool | None,
    valid_subject_ids: Sequence[str] | None,
    name: str | None,
    *,
    validate_dimensions: bool = True,
    **options: Any,
) -> VolumeCollection:
    """Do what `VolumeCollection.from_niftis` and `from_dicoms` say.

    Raises
    ------
    ValueError
        For no files, an `obs` of another length, or subjects that do not match.
    ShapeError
        If `validate_dimensions` and shapes differ.
    """
    from radiobject.volume_collection import VolumeCollection

    if not pairs:
        raise ValueError(f"At least one {kind.value.replace('nifti', 'NIfTI')} is required")
    checked, _ = resolve_image_source(pairs, kind)
    unknown = sorted({s for _, s in checked} - set(valid_subject_ids or (s for _, s in checked)))
    if unknown:
        raise AlignmentError(f"Invalid obs_subject_ids: {shortened(unknown)}")
    location = layout.normalise_uri(uri)
    label = name or layout.base_name(location)
    settings = IngestOptions(reorient=reorient, **options)
    rows = None if obs is None else _obs_rows(checked, obs)
    with commit.creation(location, commit.COLLECTION, "ingest", name=label) as tx:
        stored.create_tables(location, tx.clock)
        uniform: dict[str, tuple[int, ...] | None] = {label: None} if validate_dimensions else {}
        run = IngestRun(tx, settings, {}, uniform, owned=False)
        run.execute(plan_tasks(label, location, checked, kind, (), settings, rows))
    return VolumeCollection(location)


def _obs_rows(pairs: Pairs, obs: pd.DataFrame) -> list[dict[str, Any]]:
    if len(obs) != len(pairs):
        raise AlignmentError(f"obs length {len(obs)} does not match {len(pairs)} files")
    for name in (layout.OBS_ID, layout.SUBJECT_ID):
        if name not in obs.columns:
            raise SchemaError(f"obs must have the column {name!r}")
    wrong = [
        (given, expected)
        for given, (_, expected) in zip(obs[layout.SUBJECT_ID], pairs, strict=True)
        if given != expected
    ]
    if wrong:
        raise AlignmentError(f"obs_subject_id mismatch: obs has {wrong[0][0]!r}, the files "
                             f"{wrong[0][1]!r} in the same place")  # fmt: skip
    if obs[layout.OBS_ID].duplicated().any():
        raise AlignmentError("obs has the same obs_id twice")
    for name in obs.columns:
        if name in SYSTEM_COLUMNS or name in COMPUTED_COLUMNS:
            raise SchemaError(f"the obs column {name!r} would collide with one of the image's")
    own = obs.drop(columns=[layout.SUBJECT_ID])
    return [{str(k): v for k, v in row.items()} for row in own.to_dict(orient="records")]


def append_to_collection(
    collection: VolumeCollection,
    niftis: Pairs | None,
    dicom_dirs: Pairs | None,
    **options: Any,
) -> IngestReport:
    """Do what `VolumeCollection.append` says; `options` are those of `IngestOptions`."""
    if niftis is None and dicom_dirs is None:
        raise ValueError("Must provide either niftis or dicom_dirs")
    if niftis is not None and dicom_dirs is not None:
        raise ValueError("Cannot provide both niftis and dicom_dirs")
    kind = ImageFormat.DICOM if niftis is None else ImageFormat.NIFTI
    pairs, _ = resolve_image_source(niftis if niftis is not None else dicom_dirs, kind)  # type: ignore[arg-type]
    settings = IngestOptions(**options)
    name = collection.name or layout.base_name(collection.uri)
    owner = dataset.owner_of(collection.uri)
    with commit.transaction(owner, f"append to {name}") as tx:
        collection._reopen()
        shape = collection.shape
        places = tx.last.collections if tx.last is not None else {}
        uniform: dict[str, tuple[int, ...] | None] = {name: shape} if shape is not None else {}
        run = IngestRun(tx, settings, places, uniform, owned=owner != collection.uri)
        ids = dataset.volume_ids(tx)
        elsewhere = {i for place, found in ids.items() if place != collection.uri for i in found}
        run.execute(
            plan_tasks(
                name, collection.uri, pairs, kind, collection.obs_ids, settings,
                elsewhere=elsewhere,
            )
        )  # fmt: skip
    return run.report
