"""Images on their way into a store: the work on one, and the run over many."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radiobject import parallel
from radiobject.ctx import WriteConfig, get_radiobject_config
from radiobject.exceptions import RadiObjectError, ShapeError
from radiobject.formats.discovery import ImageFormat
from radiobject.formats.image import LoadedImage
from radiobject.formats.report import IngestReport, ReportLine, Verdict
from radiobject.pipeline import FreeIds
from radiobject.storage import collection as stored
from radiobject.storage import dataset, layout
from radiobject.storage.commit import Transaction
from radiobject.storage.label_index import build_label_index, fingerprint, write_label_rows
from radiobject.storage.volume_rows import VolumeRecord
from radiobject.volume import reorient_target
from radiobject.writers import write_new_volume

if TYPE_CHECKING:
    from radiobject.plan.labels import LabelSummary

Pairs = Sequence[tuple[str | Path, str]]
_BATCH = 256


@dataclass(frozen=True)
class IngestOptions:
    """How files become volumes.

    Parameters
    ----------
    reorient : bool, optional
        Reorient voxels to the canonical axes; None follows `OrientationConfig`.
    exists : {"raise", "resume", "replace"}
        What to do when the data set exists: refuse; add what is missing, committing in batches so
        that an interrupted run goes on where it stopped; or make the new content its newest state
        (older ones stay readable until `vacuum`).
    on_error : {"raise", "report"}
        Whether one file that cannot be read undoes everything, or is reported and left out.
    labels : sequence of str
        Collections that hold label masks, to be indexed for foreground sampling as they are read.
    patch_size : sequence of int, optional
        Patch that training will read; tiles are fitted to it.
    keep_fields : sequence of str
        Header fields to keep beside those on the allow-list; they may identify a patient.
    progress : bool
        Show a progress bar on a terminal.
    executor : concurrent.futures.Executor, optional
        Where files are read and written; threads by default.
    """

    reorient: bool | None = None
    exists: str = "raise"
    on_error: str = "raise"
    labels: Sequence[str] = ()
    patch_size: Sequence[int] | None = None
    keep_fields: Sequence[str] = ()
    progress: bool = False
    executor: Executor | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name, known in (
            ("exists", ("raise", "resume", "replace")),
            ("on_error", ("raise", "report")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class IngestTask:
    """One image to become one volume; travels to worker processes."""

    collection: str
    uri: str
    path: Path
    format: ImageFormat
    obs_subject_id: str
    obs_id: str
    reorient: str | None
    config: WriteConfig
    options: IngestOptions
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class IngestedVolume:
    """A volume that was written, or why it was not."""

    task: IngestTask
    record: VolumeRecord | None = None
    summary: LabelSummary | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None


def _load(task: IngestTask) -> LoadedImage:
    if task.format is ImageFormat.NIFTI:
        from radiobject.formats.nifti import load_nifti

        return load_nifti(task.path, reorient=task.reorient, keep=task.options.keep_fields)
    from radiobject.formats.dicom import load_folder

    return load_folder(task.path, reorient=task.reorient, keep=task.options.keep_fields)


def ingest_one(timestamp: int, task: IngestTask) -> IngestedVolume:
    """Read one image and write its volume, wherever this runs."""
    try:
        image = _load(task)
        labels = task.collection in task.options.labels
        summary = build_label_index(image.data) if labels else None
        record = write_new_volume(
            task.uri,
            timestamp,
            image.data,
            obs_id=task.obs_id,
            obs_subject_id=task.obs_subject_id,
            affine=image.affine,
            columns={**image.columns, **task.columns},
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


def plan_tasks(
    name: str, uri: str, pairs: Pairs, kind: ImageFormat, existing: Iterable[str],
    options: IngestOptions, columns: Sequence[Mapping[str, Any]] | None = None,
    elsewhere: Collection[str] = (),
) -> list[IngestTask]:  # fmt: skip
    """Return what is to be done for `pairs`: a task for each that is not there already.

    Parameters
    ----------
    existing
        Ids in the collection. A resumed run leaves them out; any other numbers further scans on.
    elsewhere
        Ids in other collections, which no new volume gets.
    columns
        Per pair, an explicit ``obs_id`` and values of the obs columns.
    """
    own = set(existing)
    resumed = options.exists == "resume"
    ids = FreeIds(name, elsewhere if resumed else {*own, *elsewhere})
    tasks: list[IngestTask] = []
    settings = get_radiobject_config().write
    target = reorient_target(options.reorient)
    travelling = replace(options, executor=None)
    for number, (path, subject) in enumerate(pairs):
        row = dict(columns[number]) if columns else {}
        obs_id = row.pop(layout.OBS_ID, None) or ids.next(subject)
        if obs_id in own:
            continue
        place = (name, uri, Path(path), kind)
        tasks.append(IngestTask(*place, subject, obs_id, target, settings, travelling, row))
    return tasks


@dataclass
class IngestRun:
    """Tasks of one ingest, committed together or in batches."""

    tx: Transaction
    options: IngestOptions
    places: Mapping[str, str]
    uniform: Mapping[str, tuple[int, ...] | None]
    owned: bool
    report: IngestReport = field(default_factory=IngestReport)
    subjects: int = 0
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def execute(self, tasks: Sequence[IngestTask]) -> None:
        """Do the tasks; commit what they gave, and subjects and collections that are new."""
        # Only a run that may be taken up again commits part of its work.
        size = _BATCH if self.options.exists == "resume" else max(1, len(tasks))
        batches = [tasks[first : first + size] for first in range(0, len(tasks), size)]
        work = (self._batch(batch) for batch in batches)
        total = len(tasks)
        flat = (done for batch in work for done in batch)
        shown = self.options.progress
        for _ in parallel.progress_bar(flat, total, "ingesting", show=shown):
            pass
        before = self.tx.last
        if before is None or self.subjects or dict(self.places) != before.collections:
            self._publish(0)

    def _batch(self, tasks: Sequence[IngestTask]) -> Iterator[IngestedVolume]:
        work = partial(ingest_one, self.tx.clock.tick())
        finished: list[IngestedVolume] = []
        for done in parallel.run(work, tasks, executor=self.options.executor):
            self.report.extend([_line(done)])
            if done.record is not None:
                self._check_shape(done)
                finished.append(done)
            yield done
        if finished:
            self._append(finished)
            self._publish(len(finished))

    def _check_shape(self, done: IngestedVolume) -> None:
        name = done.task.collection
        if name not in self.uniform or done.record is None:
            return
        shape = done.record.locator.shape
        expected = self.shapes.setdefault(name, self.uniform[name] or shape)
        if shape != expected:
            raise ShapeError(
                f"Dimension mismatch: {done.task.path.name} has shape {shape}, collection "
                f"{name!r} has {expected}"
            )

    def _append(self, finished: Sequence[IngestedVolume]) -> None:
        by_uri: dict[str, list[IngestedVolume]] = {}
        for done in finished:
            by_uri.setdefault(done.task.uri, []).append(done)
        pairs: list[tuple[str, str]] = []
        for uri, group in by_uri.items():
            records = [done.record for done in group if done.record is not None]
            stored.append_records(uri, records, self.tx.clock)
            pairs += [(record.obs_subject_id, record.obs_id) for record in records]
            labels = {
                done.record.obs_id: (fingerprint(done.record.locator), done.summary)
                for done in group
                if done.record is not None and done.summary is not None
            }
            write_label_rows(uri, labels, self.tx.clock.tick())
        if self.owned:
            dataset.change_obs_ids(self.tx, added=pairs)

    def _publish(self, volumes: int) -> None:
        dataset.publish(self.tx, collections=self.places, subjects=self.subjects, volumes=volumes)
        self.subjects = 0


def _line(done: IngestedVolume) -> ReportLine:
    name = f"{done.task.collection}/{done.task.path.name}"
    if done.record is None:
        return ReportLine(name, Verdict.REFUSED, (done.error or "",))
    verdict = Verdict.WARNED if done.warnings else Verdict.ACCEPTED
    spacing = tuple(float(done.record.columns[f"spacing_{axis}"]) for axis in "xyz")
    return ReportLine(
        name, verdict, done.warnings, shape=done.record.locator.shape, spacing_mm=spacing
    )
