"""Carrying out an ingest plan: all of it in one commit, or batch by batch with a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from radiobject import parallel
from radiobject.ctx import get_radiobject_config
from radiobject.exceptions import AlignmentError, IngestError, RadiObjectError
from radiobject.formats.dicom_series import DicomSeries
from radiobject.formats.discovery import ImageFormat
from radiobject.formats.guards import DEFAULT_LIMITS
from radiobject.formats.image import LoadedImage
from radiobject.formats.nifti_header import located
from radiobject.formats.privacy import column_name
from radiobject.formats.report import IngestReport, ReportLine, Verdict
from radiobject.formats.source import SourceFile, read_file
from radiobject.frames import frame_rows, frame_schema
from radiobject.ingest import IngestOutcome
from radiobject.ingest_plan import IngestPlan, PlannedImage
from radiobject.ingest_run import IngestedVolume, IngestOptions, IngestRun, IngestTask
from radiobject.orientation import spacing_mm
from radiobject.pipeline import FreeIds
from radiobject.storage import collection as stored
from radiobject.storage import commit, dataset, layout
from radiobject.storage.commit import Transaction
from radiobject.storage.label_index import build_label_index
from radiobject.volume import reorient_target
from radiobject.writers import write_new_volume

_DIGEST = "source_sha256"
_FILE_NAME_COLUMNS = ("source_path", "source_name")


@dataclass(frozen=True)
class _PlannedTask(IngestTask):
    """A planned image with everything that a worker needs to write it."""

    source: Path | DicomSeries = Path()
    keep: tuple[str, ...] = ()
    pseudonymous: bool = False


def ingest_plan(
    uri: str, plan: IngestPlan, options: IngestOptions | None = None, *, append: bool = False
) -> IngestOutcome:
    """Store what a plan says.

    Parameters
    ----------
    uri : str
        Where the data set is or goes.
    plan : IngestPlan
        From `radiobject.ingest_plan`.
    options : IngestOptions, optional
        As for `radiobject.ingest.ingest_images`; `keep_fields` is part of the plan instead.
    append : bool
        Add to an existing data set. A subject's further scans get the next free ids.

    Returns
    -------
    IngestOutcome
        The data set, and a line for every input: those of the plan, then those of the images.

    Raises
    ------
    StoreExistsError, StoreNotFoundError
        If the data set exists and `exists` is "raise", or does not and `append` is asked for.
    AlignmentError
        If a volume id is taken.
    IngestError
        If the plan has no image; or, with ``on_error="raise"``, if any input cannot be read.
        Nothing is stored then.
    """
    from radiobject.radi_object import RadiObject

    settings = options or IngestOptions()
    _refuse_unfit(plan, settings)
    location = layout.normalise_uri(uri)
    exists = settings.exists != "raise" and dataset.is_dataset(location)
    if append or (exists and settings.exists == "resume"):
        with commit.transaction(location, "append") as tx:
            present = _Present.in_dataset(tx.uri)
            report = _add(tx, plan, settings, present=present, number=append)
    elif exists:
        with commit.transaction(location, "replace") as tx:
            _empty(tx)
            report = _add(tx, plan, settings)
    else:
        with commit.creation(location, commit.ROOT, "ingest") as tx:
            schema = frame_schema(plan.subjects, dataset.META_KEYS)
            dataset.create_obs_meta(location, schema, tx.clock)
            report = _add(tx, plan, settings)
    return IngestOutcome(RadiObject(location), report)


def _refuse_unfit(plan: IngestPlan, options: IngestOptions) -> None:
    if plan.report.refused and options.on_error == "raise":
        raise IngestError(
            f"{len(plan.report.refused)} inputs cannot become volumes\n{plan.report.to_table()}"
        )
    if not plan.images:
        raise IngestError(f"nothing to ingest\n{plan.report.to_table()}")
    unknown = sorted(set(options.labels) - set(plan.collections))
    if unknown:
        raise AlignmentError(
            f"labels names the collection {unknown[0]!r}, there are {list(plan.collections)}"
        )


def _empty(tx: Transaction) -> None:
    """Begin a new state of the data set without anything in it; older ones keep theirs."""
    before = dataset.DatasetStore(tx.uri)
    before.obs_meta.delete_keys(layout.SUBJECT_ID, before.subject_ids.tolist(), tx.clock.tick())
    tx.start_over()


@dataclass(frozen=True)
class _Present:
    """What the data set has before the ingest.

    Parameters
    ----------
    places : dict
        Location of each collection.
    taken : dict
        Collection of each volume id.
    subjects : set
        Subjects that have a row.
    digests : dict
        SHA-256 of the sources of each (subject, collection), once per volume.
    """

    places: dict[str, str] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    subjects: set[str] = field(default_factory=set)
    digests: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)

    @classmethod
    def in_dataset(cls, uri: str) -> _Present:
        store = dataset.DatasetStore(uri)
        found = cls(dict(store.state.collections), {}, set(store.position))
        for name in store.names:
            collection = store.collection(name)
            columns = [column for column in (_DIGEST,) if column in collection.columns]
            table = collection.read(columns)
            ids, subjects = table[layout.OBS_ID].values, table[layout.SUBJECT_ID].values
            digests = table[_DIGEST].filled("") if columns else [""] * len(ids)
            for obs_id, subject, digest in zip(ids, subjects, digests, strict=True):
                found.taken[str(obs_id)] = name
                found.digests.setdefault((str(subject), name), Counter())[str(digest)] += 1
        return found


def _add(
    tx: Transaction,
    plan: IngestPlan,
    options: IngestOptions,
    *,
    present: _Present | None = None,
    number: bool = False,
) -> IngestReport:
    """Write the plan's subjects and images into the open commit of an empty or filled state."""
    before = present or _Present()
    places = dict(before.places)
    for name in plan.collections:
        if name not in places:
            places[name] = dataset.new_collection_location(tx, name)
            location = layout.join(tx.uri, places[name])
            stored.create_collection(location, tx.clock, name=name, owner="../..")
    new = plan.subjects[~plan.subjects[layout.SUBJECT_ID].isin(before.subjects)]
    if len(new):
        dataset.add_subjects(tx.uri, frame_rows(new), tx.clock)
    resumed = options.exists == "resume" and not number
    tasks = _tasks(tx, plan, options, places, list(_identified(plan.images, before, resumed)))
    report = IngestReport([*plan.report.lines], {**plan.report.skipped})
    run = _PlannedRun(tx, options, places, {}, owned=True, report=report, subjects=len(new))
    run.execute(tasks)
    return run.report


def _tasks(
    tx: Transaction,
    plan: IngestPlan,
    options: IngestOptions,
    places: Mapping[str, str],
    images: Sequence[tuple[PlannedImage, str]],
) -> list[IngestTask]:
    config = get_radiobject_config().write
    labels = (*options.labels, *plan.labels)
    travelling = replace(options, executor=None, labels=labels)
    return [
        _PlannedTask(
            collection=image.collection,
            uri=layout.located(tx.uri, places[image.collection]),
            path=image.source if isinstance(image.source, Path) else image.source.files[0],
            format=ImageFormat.NIFTI if isinstance(image.source, Path) else ImageFormat.DICOM,
            obs_subject_id=image.obs_subject_id,
            obs_id=obs_id,
            reorient=reorient_target(options.reorient),
            config=config,
            options=travelling,
            columns=image.columns,
            source=image.source,
            keep=image.keep,
            pseudonymous=plan.pseudonymous,
        )
        for image, obs_id in images
    ]


def _identified(
    images: Sequence[PlannedImage], present: _Present, resumed: bool
) -> Iterator[tuple[PlannedImage, str]]:
    """Yield the images to write with their ids; when resuming, those that are there are left out.

    Raises
    ------
    AlignmentError
        If two images have one id, or one is taken.
    """
    planned = Counter((image.obs_subject_id, image.collection) for image in images)
    used = {image.obs_id for image in images if image.obs_id is not None} | set(present.taken)
    free = {name: FreeIds(name, used) for name in {image.collection for image in images}}
    there = {key: Counter(digests) for key, digests in present.digests.items()} if resumed else {}
    given: set[str] = set()
    for image in images:
        key = (image.obs_subject_id, image.collection)
        known = there.get(key, Counter())
        obs_id = image.obs_id
        if obs_id is not None:
            is_there = resumed and present.taken.get(obs_id) == image.collection
        elif planned[key] == known.total() == 1:
            is_there = True
        else:
            # Numbers follow the order of the files, which may have changed: ask the content.
            digest = _digest(image.source) if known else ""
            is_there = known[digest] > 0
            known[digest] -= is_there
        if is_there:
            continue
        if obs_id is None:
            obs_id = free[image.collection].next(image.obs_subject_id)
        elif obs_id in given or obs_id in present.taken:
            where = present.taken.get(obs_id, image.collection)
            raise AlignmentError(
                f"volume id {obs_id!r} is used twice: by an image for {image.collection!r}, and "
                f"by another in {where!r}"
            )
        given.add(obs_id)
        yield image, obs_id


def _digest(source: Path | DicomSeries) -> str:
    """Return the SHA-256 that the obs table has for a volume from this source."""
    paths = dict.fromkeys(located(source)) if isinstance(source, Path) else source.files
    parts = [SourceFile.of_bytes(path.name, read_file(path, DEFAULT_LIMITS)) for path in paths]
    return (parts[0] if len(parts) == 1 else SourceFile.of_many("", parts)).sha256


def _load(task: _PlannedTask) -> LoadedImage:
    if isinstance(task.source, Path):
        from radiobject.formats.nifti import load_nifti

        return load_nifti(task.source, reorient=task.reorient, keep=task.keep)
    from radiobject.formats.dicom import load_series

    image = load_series(task.source, reorient=task.reorient)
    # PatientID may have been read just to tell subjects apart: that is no wish to store it.
    unwanted = {column_name("PatientID")} - {column_name(name) for name in task.keep}
    columns = {name: value for name, value in image.columns.items() if name not in unwanted}
    return replace(image, columns=columns)


def _ingest_planned(timestamp: int, task: _PlannedTask) -> IngestedVolume:
    """Read one planned image and write its volume, wherever this runs."""
    try:
        image = _load(task)
        columns = {**image.columns, **task.columns}
        if task.pseudonymous:
            columns |= dict.fromkeys(_FILE_NAME_COLUMNS, "")
        labels = task.collection in task.options.labels
        summary = build_label_index(image.data) if labels else None
        record = write_new_volume(
            task.uri,
            timestamp,
            image.data,
            obs_id=task.obs_id,
            obs_subject_id=task.obs_subject_id,
            affine=image.affine,
            columns=columns,
            metadata=image.metadata,
            rescale=image.rescale,
            config=task.config,
            patch_size=task.options.patch_size,
        )
    except (RadiObjectError, OSError, TypeError) as error:
        if task.options.on_error == "raise":
            raise
        return IngestedVolume(task, error=f"{type(error).__name__}: {error}")
    return IngestedVolume(task, record, summary, image.warnings)


class _PlannedRun(IngestRun):
    """A run over planned images: reading one, and its line of the report, are the plan's."""

    def _batch(self, tasks: Sequence[IngestTask]) -> Iterator[IngestedVolume]:
        work: Any = partial(_ingest_planned, self.tx.clock.tick())
        finished: list[IngestedVolume] = []
        for done in parallel.run(work, tasks, executor=self.options.executor):
            self.report.extend([_line(done)])
            finished += [done] if done.record is not None else []
            yield done
        if finished:
            self._append(finished)
            self._publish(len(finished))


def _line(done: IngestedVolume) -> ReportLine:
    source = cast("_PlannedTask", done.task).source
    if isinstance(source, Path):
        line = ReportLine(f"{done.task.collection}/{source.name}", Verdict.ACCEPTED)
    else:
        line = ReportLine(
            source.folder or source.files[0].name,
            Verdict.ACCEPTED,
            files=len(source.files),
            description=source.description,
        )
    if done.record is None:
        return replace(line, verdict=Verdict.REFUSED, reasons=(done.error or "",))
    return replace(
        line,
        verdict=Verdict.WARNED if done.warnings else Verdict.ACCEPTED,
        reasons=done.warnings,
        shape=done.record.locator.shape,
        spacing_mm=spacing_mm(done.record.affine),
    )
