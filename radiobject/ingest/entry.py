"""From files to stored volumes: all of them in one commit, or none.

Every way in makes a plan and hands it to one run. With ``on_error="report"`` what can be read is
kept and what cannot is reported. With ``exists="resume"`` work is committed in batches, so that an
interrupted ingest of many scans goes on where it stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from radiobject.exceptions import AlignmentError, IngestError, SchemaError
from radiobject.formats.discovery import (
    ImageFormat,
    ImageSource,
    detect_format,
    resolve_dicom_source,
    resolve_nifti_source,
)
from radiobject.formats.report import IngestReport, Verdict
from radiobject.indexing import shortened
from radiobject.ingest import made_otherwise
from radiobject.ingest.patients import folder_subjects
from radiobject.ingest.plan import (
    IngestPlan,
    PlannedImage,
    checked_subjects,
    kept_fields,
    look_alikes,
    plan_niftis,
)
from radiobject.ingest.run import IngestOptions, IngestRun
from radiobject.ingest.subjects import SUBJECT_FROM
from radiobject.lazy import pd
from radiobject.rows.pandas_io import frame_schema
from radiobject.selection import VolumeSelection
from radiobject.storage.commits.head import COLLECTION, ROOT
from radiobject.storage.commits.transaction import Transaction, creation, transaction
from radiobject.storage.io import layout
from radiobject.storage.schema import dataset
from radiobject.storage.schema.collection import CollectionStore
from radiobject.storage.schema.dataset import DatasetStore
from radiobject.storage.schema.volume_rows import COMPUTED_COLUMNS, SYSTEM_COLUMNS
from radiobject.texts import composed, decomposed

Pairs = Sequence[tuple[str | Path, str]]


def store_plan(
    uri: str, plan: IngestPlan, options: IngestOptions | None = None, *, append: bool = False
) -> IngestReport:
    """Store the images of a plan as volumes.

    Parameters
    ----------
    uri : str
        Where the data set is or goes.
    plan : IngestPlan
        From `radiobject.ingest.plan`.
    options : IngestOptions, optional
        As for `ingest_images`; `keep_fields` is part of the plan instead.
    append : bool
        Add to an existing data set. A subject's further scans get the next free ids; with
        ``exists="resume"``, those that are there are left out.

    Returns
    -------
    IngestReport
        A line for every input: those of the plan, then those of the images.

    Raises
    ------
    StoreExistsError, StoreNotFoundError
        If the data set exists and `exists` is "raise", or does not and `append` is asked for.
    AlignmentError
        If a volume id is taken.
    ShapeError
        If a collection that must have one shape would have two.
    IngestError
        If the plan has no image, or any input cannot be read and `on_error` is "raise".
    """
    settings = options or IngestOptions()
    _refuse_unfit(plan, settings)
    location = layout.normalise_uri(uri)
    exists = settings.exists != "raise" and dataset.is_dataset(location)
    if append or (exists and settings.exists in ("resume", "update")):
        with dataset.changing(DatasetStore(location), "append") as (tx, before):
            return _run_on(before, tx, plan, settings).execute()
    elif exists:
        with transaction(location, "replace") as tx:
            _empty(tx)
            return IngestRun(tx, plan, settings).execute()
    with creation(location, ROOT, "ingest", shared=settings.shared) as tx:
        schema = frame_schema(plan.subjects, dataset.META_KEYS)
        dataset.create_obs_meta(location, schema, tx.clock)
        return IngestRun(tx, plan, settings).execute()


def _refuse_unfit(plan: IngestPlan, options: IngestOptions) -> None:
    # Scouts, reports and the like were never meant to be volumes.
    unfit = [line for line in plan.report.refused if not line.harmless]
    if unfit and options.on_error == "raise":
        raise IngestError(f"{len(unfit)} inputs cannot become volumes\n{plan.report.to_table()}")
    if not plan.images:
        raise IngestError(f"nothing to ingest\n{plan.report.to_table()}")
    unknown = sorted(set(options.labels) - set(plan.collections))
    if unknown:
        raise AlignmentError(
            f"labels names the collection {unknown[0]!r}, the images have {list(plan.collections)}"
        )


def _empty(tx: Transaction) -> None:
    """Begin a new state of the data set without anything in it; older ones keep theirs."""
    before = DatasetStore(tx.uri, head=tx.head)
    before.obs_meta.delete_keys(layout.SUBJECT_ID, before.subject_ids.tolist(), tx.clock.tick())
    tx.start_over()


def _run_on(
    before: DatasetStore, tx: Transaction, plan: IngestPlan, options: IngestOptions
) -> IngestRun:
    """Return the run that adds to a data set as it is."""
    places = dict(before.state.collections)
    stores = {name: before.collection(name) for name in before.names}
    wanted = _subjects_of(plan)
    _refuse_other_spelling(before, wanted)
    some = before.some_subjects(wanted)
    subjects = set(some.rows[layout.SUBJECT_ID].values)
    return IngestRun(tx, plan, options, places, stores, subjects, some, pending=False)


def _refuse_other_spelling(before: DatasetStore | CollectionStore, wanted: set[str]) -> None:
    """Refuse to make two subjects of one: earlier versions kept the names of a Mac's files."""
    apart = {decomposed(subject) for subject in wanted if not subject.isascii()} - wanted
    if not apart:
        return
    if isinstance(before, DatasetStore):
        what, rows = "data set", before.some_subjects(apart).rows
    else:
        what, rows = "collection", before.read_if_there((), apart)
    found = sorted(apart.intersection(rows[layout.SUBJECT_ID].values))
    if found:
        raise AlignmentError(
            f"subject {composed(found[0])!r} is stored with its letters and accents apart "
            f"({found[0]!a}), as an earlier version took it from the name of a Mac's file, and "
            f"would become a second subject; ingest the {what} anew"
        )


def _subjects_of(plan: IngestPlan) -> set[str]:
    return {*(i.obs_subject_id for i in plan.images), *plan.subjects[layout.SUBJECT_ID].tolist()}


def store_images(
    uri: str,
    images: Mapping[str, ImageSource],
    obs_meta: pd.DataFrame | None = None,
    *,
    validate_alignment: bool = False,
    format_hint: Mapping[str, ImageFormat | str] | ImageFormat | str | None = None,
    options: IngestOptions | None = None,
) -> IngestReport:
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
    IngestReport
        A line per input.

    Raises
    ------
    ValueError
        For no images, subjects that do not match, or a repeated row in `obs_meta`.
    FileNotFoundError
        If a path does not exist.
    StoreExistsError
        If the data set exists and `exists` is "raise".
    ShapeError
        If the series of a DICOM collection differ in shape.
    IngestError
        If a file cannot be read and `on_error` is "raise"; nothing is left then.
    """
    settings = options or IngestOptions()
    plan = _planned(images, format_hint, settings)
    if validate_alignment:
        _check_same_subjects(plan, list(images))
    if obs_meta is not None:
        plan = plan.with_subjects(obs_meta)
    report = store_plan(uri, plan, settings)
    _warn_of_stored(report, settings)
    _warn_of_refused(report)
    return report


def _planned(
    images: Mapping[str, ImageSource], format_hint: Any, options: IngestOptions
) -> IngestPlan:
    """Plan NIfTI files and DICOM folders of one series each; those of a collection are alike."""
    if not images:
        raise ValueError("images dict cannot be empty")
    planned: list[PlannedImage] = []
    report = IngestReport()
    uniform: set[str] = set()
    for name, source in images.items():
        layout.checked_id(name, "a collection's name")
        hint = format_hint.get(name) if isinstance(format_hint, Mapping) else format_hint
        kind = ImageFormat(hint) if hint is not None else detect_format(source)
        keep = kept_fields(kind, options.keep_fields)
        if kind is ImageFormat.DICOM:
            pairs = resolve_dicom_source(source)
            if isinstance(source, str | PathLike):
                pairs = folder_subjects(pairs, options.subject_from)
            planned += [PlannedImage(name, *pair, keep=keep, format=kind) for pair in pairs]
            uniform.add(name)
            continue
        if options.on_error == "raise" and not isinstance(source, str | PathLike):
            resolve_nifti_source(source)  # the error of a list with a path that is not there
        part = plan_niftis(
            {name: source},
            subject_from=options.subject_from if options.subject_from in SUBJECT_FROM else None,
            keep=keep,
            follow_links=options.follow_links,
        )
        planned += part.images
        report.join(part.report)
    for _, said in look_alikes(planned):
        warnings.warn(said, stacklevel=4)
    return IngestPlan(tuple(planned), uniform=frozenset(uniform), report=report)


def _check_same_subjects(plan: IngestPlan, names: Sequence[str]) -> None:
    first, *others = names
    for other in others:
        different = sorted(plan.subjects_of(first) ^ plan.subjects_of(other))
        if different:
            raise AlignmentError(
                f"Subject ID mismatch: {shortened(different)} in one of the collections "
                f"{first!r} and {other!r} only"
            )


def _warn_of_stored(report: IngestReport, options: IngestOptions) -> None:
    """Say which files add nothing, unless that was expected, and which options do not to them."""
    equal = [line for line in report.lines if line.verdict is Verdict.STORED]
    for said in made_otherwise.remarks(equal):
        warnings.warn(said, stacklevel=4)
    if equal and options.exists == "raise":
        warnings.warn(
            f"{len(equal)} of {len(report.lines)} images were left out, stored already or "
            f"given twice, first {equal[0].source}: {equal[0].reasons[0]}",
            stacklevel=4,
        )


def _warn_of_refused(report: IngestReport) -> None:
    if report.refused:
        first = report.refused[0]
        warnings.warn(
            f"{len(report.refused)} of {len(report.lines)} images were refused, first "
            f"{first.source}: {first.reasons[0]}",
            stacklevel=4,
        )


def append_images(
    data: DatasetStore,
    images: Mapping[str, ImageSource],
    obs_meta: pd.DataFrame | None = None,
    *,
    format_hint: Any = None,
    options: IngestOptions | None = None,
) -> IngestReport:
    """Add volumes, and the subjects that are new, to a data set; see `store_images`.

    Raises
    ------
    AlignmentError
        If a new subject has no row in `obs_meta`.
    """
    settings = options or IngestOptions()
    plan = _planned(images, format_hint, settings)
    if obs_meta is not None:
        plan = replace(plan, subjects=checked_subjects(obs_meta))
    _refuse_unfit(plan, settings)
    with dataset.changing(data, "append") as (tx, before):
        _require_rows(plan, before, given=obs_meta is not None)
        report = _run_on(before, tx, plan, settings).execute()
    _warn_of_stored(report, settings)
    _warn_of_refused(report)
    return report


def _require_rows(plan: IngestPlan, before: DatasetStore, *, given: bool) -> None:
    """Refuse images of subjects that neither the data set nor the plan has a row for."""
    wanted = _subjects_of(plan)
    _refuse_other_spelling(before, wanted)
    some = before.some_subjects(wanted)
    known = some.ids if some.is_whole else some.rows[layout.SUBJECT_ID].values
    new = {image.obs_subject_id for image in plan.images}.difference(known)
    if new and not given:
        raise AlignmentError(
            f"obs_meta required for new subjects: {shortened(sorted(new))}; pass one row for each"
        )
    missing = sorted(new - set(plan.subjects[layout.SUBJECT_ID]))
    if missing:
        raise AlignmentError(f"obs_meta has missing entries for subjects: {shortened(missing)}")


def create_collection(
    uri: str,
    pairs: Pairs,
    kind: ImageFormat,
    obs: pd.DataFrame | None = None,
    reorient: bool | None = None,
    valid_subject_ids: Sequence[str] | None = None,
    name: str | None = None,
    *,
    validate_dimensions: bool = True,
    **options: Any,
) -> str:
    """Create a collection of its own from image files of one format; return its address.

    Parameters
    ----------
    uri : str
        Where it goes.
    pairs : sequence of (path, subject id)
        The files, or the folders of one DICOM series each.
    kind : ImageFormat
        What they are.
    obs : DataFrame, optional
        Volume ids and columns, a row for each of `pairs` in the same order.
    reorient : bool, optional
        See `IngestOptions`, whose other fields are `options`.
    valid_subject_ids : sequence of str, optional
        Subjects that there may be.
    name : str, optional
        The collection's name; the last part of `uri` by default.
    validate_dimensions : bool
        Whether all volumes must have one shape.

    Raises
    ------
    ValueError
        For no files, an `obs` of another length, or subjects that do not match.
    ShapeError
        If `validate_dimensions` and shapes differ.
    """
    if not pairs:
        raise ValueError(f"At least one {kind.value.replace('nifti', 'NIfTI')} is required")
    location = layout.normalise_uri(uri)
    label = name or layout.base_name(location)
    settings = IngestOptions(reorient=reorient, **options)
    plan = _planned({label: pairs}, kind, settings)
    if valid_subject_ids:
        unknown = sorted(plan.subjects_of(label) - set(map(composed, valid_subject_ids)))
        if unknown:
            raise AlignmentError(f"Invalid obs_subject_ids: {shortened(unknown)}")
    if obs is not None:
        plan = replace(plan, images=_with_rows(plan.images, obs))
    plan = replace(plan, uniform=frozenset({label} if validate_dimensions else ()))
    shared = settings.shared
    with creation(location, COLLECTION, "ingest", name=label, shared=shared) as tx:
        report = IngestRun(tx, plan, settings, made={label: location}, subjects=None).execute()
    # A new one has nothing stored: an image that adds nothing comes twice, whatever was asked.
    _warn_of_stored(report, replace(settings, exists="raise"))
    _warn_of_refused(report)
    return location


def _with_rows(images: Sequence[PlannedImage], obs: pd.DataFrame) -> tuple[PlannedImage, ...]:
    """Return the images with the volume ids and columns of `obs`, which has a row for each."""
    if len(obs) != len(images):
        raise AlignmentError(f"obs length {len(obs)} does not match {len(images)} files")
    for name in (layout.OBS_ID, layout.SUBJECT_ID):
        if name not in obs.columns:
            raise SchemaError(f"obs must have the column {name!r}")
    for given, expected in zip(obs[layout.SUBJECT_ID], images, strict=True):
        if given != (subject := expected.obs_subject_id) and composed(str(given)) != subject:
            raise AlignmentError(f"obs_subject_id mismatch: obs has {given!r}, the files "
                                 f"{subject!r} in the same place")  # fmt: skip
    if obs[layout.OBS_ID].map(lambda obs_id: composed(str(obs_id))).duplicated().any():
        raise AlignmentError("obs has the same obs_id twice")
    for name in obs.columns:
        if name in SYSTEM_COLUMNS or name in COMPUTED_COLUMNS:
            raise SchemaError(f"the obs column {name!r} would collide with one of the image's")
    own = obs.drop(columns=[layout.SUBJECT_ID, layout.OBS_ID])
    rows = [{str(k): v for k, v in row.items()} for row in own.to_dict(orient="records")]
    return tuple(
        replace(image, obs_id=obs_id, columns=row)
        for image, obs_id, row in zip(images, obs[layout.OBS_ID], rows, strict=True)
    )


def append_to_collection(
    store: CollectionStore, niftis: Pairs | None, dicom_dirs: Pairs | None, **options: Any
) -> IngestReport:
    """Add volumes from files to a collection, all of them or none.

    Parameters
    ----------
    store : CollectionStore
        A collection of its own, or one of a data set.
    niftis, dicom_dirs : sequence of (path, subject id)
        One of the two.
    **options
        Those of `IngestOptions`.

    Raises
    ------
    ValueError
        For neither or both.
    ShapeError
        If the collection has one shape and a file has another.
    AlignmentError
        If a subject has no row in the data set.
    """
    if niftis is None and dicom_dirs is None:
        raise ValueError("Must provide either niftis or dicom_dirs")
    if niftis is not None and dicom_dirs is not None:
        raise ValueError("Cannot provide both niftis and dicom_dirs")
    kind = ImageFormat.DICOM if niftis is None else ImageFormat.NIFTI
    pairs: Any = dicom_dirs if niftis is None else niftis
    settings = IngestOptions(**options)
    operation = f"append to {layout.base_name(store.uri)}"
    with dataset.changing_collection(store, operation) as (tx, before, owner):
        name = before.name or layout.base_name(before.uri)
        plan = _planned({name: pairs}, kind, settings)
        # Of one shape it stays of one shape, whatever the format; with none or many, it may vary.
        uniform = VolumeSelection(before).shape is not None
        plan = replace(plan, uniform=frozenset({name} if uniform else ()))
        if owner is None:
            _refuse_other_spelling(before, _subjects_of(plan))
            places, stores = {name: before.uri}, {name: before}
            run = IngestRun(tx, plan, settings, places, stores, subjects=None, pending=False)
        else:
            run = _run_on(owner, tx, plan, settings)
            _check_known_subjects(plan, run)
        report = run.execute()
    _warn_of_stored(report, settings)
    return report


def _check_known_subjects(plan: IngestPlan, run: IngestRun) -> None:
    unknown = sorted({image.obs_subject_id for image in plan.images} - (run.subjects or set()))
    if unknown:
        raise AlignmentError(
            f"subject {unknown[0]!r} has no row in obs_meta; add it with RadiObject.append"
        )
