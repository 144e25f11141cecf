"""Images on their way into a store: the work on one, and the run over a plan of many."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import cast

from radiobject import parallel
from radiobject.ctx import WriteConfig, get_radiobject_config
from radiobject.exceptions import IngestError, RadiObjectError, ShapeError
from radiobject.executors import ExecutorLike
from radiobject.formats.dicom import load_folder, load_series
from radiobject.formats.dicom_labels import DicomLabels
from radiobject.formats.dicom_options import DicomOptions
from radiobject.formats.discovery import ImageFormat
from radiobject.formats.image import LoadedImage, reorient_target
from radiobject.formats.readers import load_image
from radiobject.formats.report import IngestReport, ReportLine, Verdict
from radiobject.geometry.rescale import RESCALE_KEYS
from radiobject.ingest import made_otherwise
from radiobject.ingest.ids import identified
from radiobject.ingest.intensities import AskedStatistics, LabelledStatistics, Statistics
from radiobject.ingest.label_names import new_label_names
from radiobject.ingest.label_values import with_common_values
from radiobject.ingest.made_otherwise import VoxelOptions
from radiobject.ingest.plan import IngestPlan, PlannedImage
from radiobject.ingest.tables import columns_with_values, stacked
from radiobject.lazy import pd
from radiobject.rows.pandas_io import frame_rows
from radiobject.sampling.intensities import IntensitySummary
from radiobject.sampling.label_names import LabelNames
from radiobject.sampling.labels import LabelSummary, delivered_labels, labels_as_integers
from radiobject.storage.commits.transaction import Transaction
from radiobject.storage.io import files, layout, owned
from radiobject.storage.records import NewVolume, write_new_volume
from radiobject.storage.schema import collection as stored
from radiobject.storage.schema import dataset
from radiobject.storage.schema.collection import CollectionStore
from radiobject.storage.schema.intensity_index import write_intensities
from radiobject.storage.schema.label_index import build_label_index, fingerprint, write_label_rows
from radiobject.storage.schema.label_names import write_label_names
from radiobject.storage.schema.subjects import Subjects
from radiobject.storage.schema.volume_rows import VolumeRecord
from radiobject.storage.tiles.c_order import c_ordered

_BATCH = 256
_FILE_NAME_COLUMNS = ("source_path", "source_name")


@dataclass(frozen=True)
class IngestOptions:
    """How files become volumes.

    Parameters
    ----------
    reorient : bool, optional
        Reorient voxels to the canonical axes; None follows `OrientationConfig`.
    exists : {"raise", "resume", "replace", "update"}
        What to do when the data set exists: refuse; add what is missing, committing in batches so
        that an interrupted run goes on where it stopped; make the new content its newest state
        (older ones stay readable until `vacuum`); or add what is missing and replace what was made
        from files that have changed since, in one commit.
    on_error : {"raise", "report"}
        Whether one file that cannot be read undoes everything, or is reported and left out.
    labels : sequence of str
        Collections that hold label masks, to be indexed for foreground sampling as they are read.
    statistics : sequence of str, or mapping of str to float, str, None or several of them
        Collections whose intensities are counted for `radiobject.ml.Normalization`, which would
        read every volume for it on its first use. By collection: None for all voxels, a number for
        those above it in the volumes' units, a name for those that this collection labels.
    patch_size : sequence of int, optional
        Patch that training will read; tiles are fitted to it.
    keep_fields : sequence of str
        Header fields to keep beside those on the allow-list; they may identify a patient.
    follow_links : bool
        Read files behind links that lead out of the folder that is searched.
    progress : bool
        Show a progress bar on a terminal.
    executor : str, Client or concurrent.futures.Executor, optional
        Where files are read and written; threads by default, see `executors.run`.
    subject_from : {"folder", "PatientID"}, optional
        The subject of a DICOM series that comes without one; see `plan_dicoms`.
    allow_tilt, drop_aborted : bool
        What to accept of DICOM; see `DicomOptions`.
    suv : {"bw"}, optional
        Store PET as standardised uptake values.
    clip_padding : bool
        Set DICOM's padding pixels to the lowest value of the others.
    shared : bool, optional
        Let the group of the folder change the new data set, too; None follows `WriteConfig`.
    """

    reorient: bool | None = None
    exists: str = "raise"
    on_error: str = "raise"
    labels: Sequence[str] = ()
    statistics: Statistics = ()
    patch_size: Sequence[int] | None = None
    keep_fields: Sequence[str] = ()
    follow_links: bool = False
    progress: bool = False
    executor: ExecutorLike | None = field(default=None, compare=False)
    subject_from: str | None = None
    allow_tilt: bool = False
    drop_aborted: bool = False
    suv: str | None = None
    clip_padding: bool = False
    shared: bool | None = None

    @property
    def dicom(self) -> DicomOptions:
        """How DICOM is read."""
        return DicomOptions(self.allow_tilt, self.drop_aborted, self.suv, self.clip_padding)

    @property
    def asked_statistics(self) -> AskedStatistics:
        """Which intensities are counted."""
        return AskedStatistics.of(self.statistics)

    def __post_init__(self) -> None:
        _ = self.dicom, self.asked_statistics
        for name, known in (
            ("exists", ("raise", "resume", "replace", "update")),
            ("on_error", ("raise", "report")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")


class NothingStoredError(IngestError):
    """Every input of a new data set was refused, so that none was made; `report` says why."""

    def __init__(self, report: IngestReport) -> None:
        super().__init__(f"nothing was stored: every input was refused\n{report.to_table()}")
        self.report = report

    def __reduce__(self) -> tuple[type, tuple[IngestReport]]:
        return type(self), (self.report,)


@dataclass(frozen=True)
class IngestTask:
    """A planned image, the volume that it becomes, and where and how a worker writes that."""

    image: PlannedImage
    volume: NewVolume
    uri: str
    config: WriteConfig
    options: IngestOptions


@dataclass(frozen=True)
class IngestedVolume:
    """A volume that was written, or why it was not."""

    image: PlannedImage
    record: VolumeRecord | None = None
    summary: LabelSummary | None = None
    intensities: tuple[IntensitySummary, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None


def _absolute(image: PlannedImage) -> PlannedImage:
    """Return the image as another process finds it, which has another working folder."""
    if isinstance(image.source, Path):
        return replace(image, source=image.source.absolute())
    return image


def _load(image: PlannedImage, reorient: str | None, asked: DicomOptions) -> LoadedImage:
    if image.format is not ImageFormat.DICOM:
        read = load_image if image.part is None else image.part.load
        return read(cast(Path, image.source), reorient=reorient, keep=image.keep)
    if isinstance(image.source, Path):
        return load_folder(image.source, reorient=reorient, keep=image.keep, options=asked)
    if isinstance(image.source, DicomLabels):
        return image.source.load(reorient)
    series = image.source
    return load_series(replace(series, options=series.options | asked), reorient=reorient)


def ingest_one(timestamp: int, task: IngestTask) -> IngestedVolume:
    """Read one image and write its volume, wherever this runs."""
    image, options = task.image, task.options
    try:
        volume, summary = task.volume.read(), None
        if image.collection in options.labels:
            volume = _with_whole_labels(volume)
            labels = delivered_labels(c_ordered(volume.voxels), volume.rescale)
            summary = build_label_index(labels)
        record = write_new_volume(
            task.uri, timestamp, volume, config=task.config, patch_size=options.patch_size
        )
        intensities = options.asked_statistics.of_voxels(
            image.collection, volume.voxels, record.locator
        )
    except Exception as error:
        # Whatever a reader stumbles over in one file is that file's: the others go in.
        if options.on_error == "report":
            own = isinstance(error, RadiObjectError)
            said = str(error) if own else f"{type(error).__name__}: {error}"
            return IngestedVolume(image, error=said)
        if isinstance(error, RadiObjectError | OSError | TypeError):
            raise
        raise IngestError(f"{image.file_name}: {type(error).__name__}: {error}") from error
    return IngestedVolume(image, record, summary, intensities, volume.warnings)


def _with_whole_labels(mask: NewVolume) -> NewVolume:
    """Return a mask that was saved with a slope as the integers that it stands for."""
    if mask.rescale is None:
        return mask
    whole = labels_as_integers(mask.voxels, mask.rescale)
    if whole is None:
        return mask
    metadata = {n: value for n, value in mask.metadata.items() if n not in RESCALE_KEYS}
    return replace(mask, data=whole, rescale=None, metadata=metadata)


@dataclass
class IngestRun:
    """A plan on its way into an open commit, all of it together or in batches.

    Parameters
    ----------
    tx : Transaction
        The open commit.
    plan : IngestPlan
        What to store.
    options : IngestOptions
        How.
    places : dict of str to str
        Where each collection is; those that are new are added with their first volume.
    made : dict of str to str
        Where the collections are whose tables are still to be made, which is done with their
        first rows: these tell the columns, and a table that has them need not be changed.
    stores : mapping of str to CollectionStore
        The collections as they were before.
    subjects : set of str, optional
        Subjects that have a row; None for a collection that no data set owns.
    before : Subjects, optional
        The table of subjects as it was before.
    pending : bool
        Whether something is to be committed even if no volume comes.
    """

    tx: Transaction
    plan: IngestPlan
    options: IngestOptions
    places: dict[str, str] = field(default_factory=dict)
    stores: Mapping[str, CollectionStore] = field(default_factory=dict)
    subjects: set[str] | None = field(default_factory=set)
    before: Subjects | None = None
    pending: bool = True
    made: dict[str, str] = field(default_factory=dict)
    _new_subjects: int = 0
    _unwritten: list[Mapping[str, list]] = field(default_factory=list)
    _changed: set[str] = field(default_factory=set)
    _with_volumes: set[str] = field(default_factory=set)
    _replaced: set[str] = field(default_factory=set)
    _names: dict[str, LabelNames] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.report = IngestReport()
        self.report.join(self.plan.report)
        self._shapes = dict(_expected_shapes(self.plan, self.stores))
        self._known = set(self.subjects or ())
        self._asked = self.options.asked_statistics
        self._asked.refuse_unknown({*self.plan.collections, *self.stores})
        self._labelled = LabelledStatistics(self._asked, self.stores)

    def execute(self) -> IngestReport:
        """Store what the plan says, and return a line for every input."""
        given: list[str] = []
        if self.subjects is not None:
            rows = self.plan.subjects
            new = frame_rows(rows[~rows[layout.SUBJECT_ID].isin(self.subjects)])
            given = new[layout.SUBJECT_ID]
            self._add_subjects(new)
        tasks = self._tasks()
        if self.subjects is not None:
            known = self.plan.subjects[layout.SUBJECT_ID].isin(self._known)
            self._complete_subjects(self.plan.subjects[known])
        # Only a run that may be taken up again commits part of its work.
        size = _BATCH if self.options.exists == "resume" else max(1, len(tasks))
        batches = [tasks[first : first + size] for first in range(0, len(tasks), size)]
        work = (done for batch in batches for done in self._batch(batch))
        for _ in parallel.progress_bar(work, len(tasks), "ingesting", show=self.options.progress):
            pass
        if self.tx.head is None and tasks and not self._with_volumes:
            raise NothingStoredError(self.report)
        for place in self.made.values():
            # All of its images were refused.
            uri = self._located(place)
            if self.subjects is None:
                stored.create_tables(uri, self.tx.clock)
            else:
                owned.remove(uri, owned.COLLECTION)
        if self.pending:
            self._publish(0)
        uris = {name: self._uri(name) for name in self.places}
        self.report.notes += self._labelled.store(uris, self.options.executor)
        refused = {task.image.obs_subject_id for task in tasks} - self._with_volumes
        self.report.without_volumes = [subject for subject in given if subject in refused]
        return self.report

    def _tasks(self) -> list[IngestTask]:
        options = self.options
        target, config = reorient_target(options.reorient), get_radiobject_config().write
        assigned = identified(
            self.plan.images, self.stores, self.before,
            exists=options.exists, asked=VoxelOptions(target, options.dicom),
        )  # fmt: skip
        self.report.extend(assigned.lines)
        self.report.notes += made_otherwise.remarks(assigned.lines)
        self._replaced = assigned.replaced
        images, drawn = with_common_values(assigned.images, self.stores)
        self._names = new_label_names({**self.plan.label_names, **drawn}, self.stores)
        for name in dict.fromkeys(image.collection for image, _ in images):
            if name not in self.places | self.made:
                self.made[name] = self._make_group(name)
        for place in self.made.values():
            files.make_folder(layout.join(self._located(place), layout.VOLUMES))
        labels = (*options.labels, *self.plan.labels)
        travelling = replace(options, executor=None, labels=labels)
        hidden = dict.fromkeys(_FILE_NAME_COLUMNS, "") if self.plan.pseudonymous else {}
        tasks = []
        for image, obs_id in images:
            volume = NewVolume(
                partial(_load, _absolute(image), target, options.dicom),
                image.obs_subject_id,
                obs_id,
                columns={**image.columns, **hidden},
                metadata=image.metadata,
            )
            uri = self._uri(image.collection)
            tasks.append(IngestTask(image, volume, uri, config, travelling))
        return tasks

    def _make_group(self, name: str) -> str:
        place = dataset.new_collection_location(self.tx, name)
        uri = layout.join(self.tx.uri, place)
        stored.create_group(uri, self.tx.clock, name=name)
        return place

    def _uri(self, name: str) -> str:
        return self._located((self.places | self.made)[name])

    def _located(self, place: str) -> str:
        """Return where a collection is: below the data set, or a URI that the caller gave."""
        return place if place.startswith(self.tx.uri) else layout.located(self.tx.uri, place)

    def _batch(self, tasks: Sequence[IngestTask]) -> Iterator[IngestedVolume]:
        work = partial(ingest_one, self.tx.clock.tick())
        finished: list[tuple[IngestedVolume, VolumeRecord]] = []
        executor, places = self.options.executor, self._places_of(tasks)
        for done in parallel.run(work, tasks, executor=executor, places=places):
            self.report.extend([_line(done)])
            if done.record is not None:
                self._check_shape(done.image, done.record)
                self._with_volumes.add(done.image.obs_subject_id)
                finished.append((done, done.record))
            yield done
        if finished:
            self._append(finished)
            self._publish(sum(record.obs_id not in self._replaced for _, record in finished))

    def _places_of(self, tasks: Sequence[IngestTask]) -> list[str]:
        """Return the folders that workers have to see: the store's, and that of all the files."""
        sources = {s.parent.absolute() for t in tasks if isinstance(s := t.image.source, Path)}
        roots = {source.anchor for source in sources}
        shared = [os.path.commonpath(sources)] if len(roots) == 1 else []
        return [self.tx.uri, *shared]

    def _check_shape(self, image: PlannedImage, record: VolumeRecord) -> None:
        name, shape = image.collection, record.locator.shape
        if name not in self._shapes:
            return
        expected = self._shapes[name] = self._shapes[name] or shape
        if shape != expected:
            raise ShapeError(
                f"Dimension mismatch: {image.file_name} has shape {shape}, collection {name!r} "
                f"has {expected}"
            )

    def _append(self, finished: Sequence[tuple[IngestedVolume, VolumeRecord]]) -> None:
        groups: dict[str, list[tuple[IngestedVolume, VolumeRecord]]] = {}
        for done, record in finished:
            groups.setdefault(done.image.collection, []).append((done, record))
        for name, group in groups.items():
            uri = self._uri(name)
            records = [record for _, record in group]
            known = self._schema(name)
            if name in self.made:
                known = stored.create_tables(uri, self.tx.clock, columns_with_values(records))
            stored.append_records(uri, records, self.tx.clock, known=known)
            labels = {
                record.obs_id: (fingerprint(record.locator), done.summary)
                for done, record in group
                if done.summary is not None
            }
            write_label_rows(uri, labels, self.tx.clock.tick())
            counted = [
                row
                for done, record in group
                for row in self._asked.rows(name, record.locator, done.intensities)
            ]
            write_intensities(uri, counted, self.tx.clock.tick())
            for record in records:
                self._labelled.add(name, record)
            if name in self._names:
                write_label_names(uri, self._names.pop(name), self.tx.clock.tick())
            if name in self.made:
                self.places[name] = self.made.pop(name)
        if self.subjects is not None:
            pairs = [(record.obs_subject_id, record.obs_id) for _, record in finished]
            new = dict.fromkeys(subject for subject, _ in pairs if subject not in self.subjects)
            self._add_subjects({layout.SUBJECT_ID: list(new)})
            self._write_subjects(pairs)

    def _schema(self, name: str) -> stored.Schema | None:
        """Return the schema of a collection's table of volumes if nothing has changed it yet."""
        known = name in self.stores and name not in self._changed
        self._changed.add(name)
        return self.stores[name].obs.schema() if known else None

    def _add_subjects(self, rows: Mapping[str, list]) -> None:
        new = rows[layout.SUBJECT_ID]
        if new and self.subjects is not None:
            self._unwritten.append(rows)
            self.subjects.update(new)
            self._new_subjects += len(new)
            self.pending = True

    def _write_subjects(self, pairs: Sequence[tuple[str, str]] = ()) -> None:
        """Write the rows that wait and the ids of new volumes; the first time over what was."""
        rows = stacked(self._unwritten)
        dataset.change_subjects(self.tx, rows, pairs, before=self.before)
        self._unwritten, self.before = [], None

    def _complete_subjects(self, rows: pd.DataFrame) -> None:
        """Give subjects that are there the values that a table has for them."""
        if rows.shape[1] > 1 and len(rows):
            changed = dataset.update_subjects(self.tx, frame_rows(rows))
            if changed:
                self.pending, self.before = True, None
                self.report.notes.append(f"{changed} values of stored subjects set from the table")

    def _publish(self, volumes: int) -> None:
        if self._unwritten:
            self._write_subjects()
        places = self.places if self.subjects is not None else None
        dataset.publish(self.tx, collections=places, subjects=self._new_subjects, volumes=volumes)
        self._new_subjects, self.pending = 0, False


def _expected_shapes(
    plan: IngestPlan, stores: Mapping[str, CollectionStore]
) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    """Yield the collections that have one shape, with the shape if it is known by now."""
    for name in plan.uniform:
        rows = stores[name].rows if name in stores else None
        if rows is None or not len(rows):
            yield name, None
        elif (rows.shapes == rows.shapes[0]).all():
            yield name, rows.shape(0)


def _line(done: IngestedVolume) -> ReportLine:
    image = done.image
    if isinstance(image.source, Path):
        line = ReportLine(f"{image.collection}/{image.file_name}", Verdict.ACCEPTED)
    else:
        line = ReportLine(
            image.file_name,
            Verdict.ACCEPTED,
            files=len(image.source.files),
            description=image.source.description,
        )
    if done.record is None:
        return replace(line, verdict=Verdict.REFUSED, reasons=(done.error or "",))
    return replace(
        line,
        verdict=Verdict.WARNED if done.warnings else Verdict.ACCEPTED,
        reasons=done.warnings,
        shape=done.record.locator.shape,
        spacing_mm=done.record.spacing_mm,
    )
