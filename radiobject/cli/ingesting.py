"""`ingest` and `append`: files into a data set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from radiobject import process
from radiobject.cli.options import AsJson, OnExecutor, Shared, Uri, Workers
from radiobject.cli.reporting import (
    ExitCode,
    emit,
    in_options,
    note,
    reported,
    settings,
    show_progress,
)
from radiobject.cli.scanning import counting, parse_selection, read_plan, show_plan
from radiobject.cli.sources import (
    Source,
    parse_source,
    parse_statistics,
    plan_of,
    read_key,
    read_subjects,
)
from radiobject.executors import ExecutorLike
from radiobject.formats.dicom_options import DicomOptions
from radiobject.formats.report import IngestReport, Verdict
from radiobject.ingest.entry import IngestOptions
from radiobject.ingest.intensities import Statistics
from radiobject.ingest.plan import IngestPlan, join_plans
from radiobject.ingest.plan_dicom import plan_table
from radiobject.ingest.run import NothingStoredError
from radiobject.ingestion import ingest_plan

_INGEST_EXAMPLES = """
Examples:

    radiobject ingest brains T1w=images/ seg=labels/ --labels seg --patch-size 96

    radiobject ingest brains bids-folder/ --resume

    radiobject ingest chest CT=dicom/ --id-key-file key --report report.json

    radiobject ingest s3://bucket/brains 'T1w=data/*_T1w.nii.gz' --subject-pattern 'sub-[0-9]+'
"""


class Exists(StrEnum):
    """What to do where a data set lies already."""

    FAIL = "raise"
    RESUME = "resume"
    REPLACE = "replace"
    UPDATE = "update"


class OnError(StrEnum):
    """What to do about an input that cannot be read."""

    REPORT = "report"
    FAIL = "raise"


class Kind(StrEnum):
    """What a source holds."""

    AUTO = "auto"
    NIFTI = "nifti"
    DICOM = "dicom"
    BIDS = "bids"
    NNUNET = "nnunet"
    DECATHLON = "decathlon"
    KITS = "kits"
    TOTALSEGMENTATOR = "totalsegmentator"
    BRATS = "brats"


class LabelKind(StrEnum):
    """DICOM objects that become labels."""

    SEG = "seg"
    RTSTRUCT = "rtstruct"


class SuvKind(StrEnum):
    """Which standardised uptake value."""

    BODY_WEIGHT = "bw"


class SubjectFrom(StrEnum):
    """Where a subject is taken from: of a DICOM series, or of an image file."""

    FOLDER = "folder"
    PATIENT_ID = "PatientID"
    NAME = "name"
    PARENT = "parent"


Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME=]SOURCE...",
        help="A NIfTI file, folder, glob or @LIST (a table with the columns path and "
        "obs_subject_id); a DICOM folder of any depth; a folder of BIDS, nnU-Net, the decathlon, "
        "BraTS, KiTS or TotalSegmentator. NAME is the collection.",
    ),
]
Format = Annotated[Kind, typer.Option("--format", help="What the sources hold.")]
Labels = Annotated[
    list[str] | None,
    typer.Option("--labels", metavar="NAME", help="A collection of label masks; repeatable."),
]
CountedOf = Annotated[
    list[str] | None,
    typer.Option(
        "--statistics",
        metavar="NAME[=WHERE]",
        help="Count a collection's intensities for normalisation: of all voxels, of those above "
        "WHERE, or of those that the collection WHERE labels; repeatable.",
    ),
]
KeepField = Annotated[
    list[str] | None,
    typer.Option(
        "--keep-field",
        metavar="FIELD",
        help="A header field to store that may identify a patient, such as PatientAge; repeatable.",
    ),
]
IdKeyFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Replace subject ids by hashes keyed with this file."),
]
ObsMeta = Annotated[
    Path | None, typer.Option(metavar="TABLE", help="CSV or TSV of subjects, id column first.")
]
SubjectPattern = Annotated[
    str | None,
    typer.Option(metavar="REGEX", help="The subject in a name or path: group 1, or all of it"),
]
FromField = Annotated[
    SubjectFrom | None,
    typer.Option(
        help="The subject of a DICOM series: folder or PatientID; without it the folder, checked "
        "against PatientID. The subject of an image file: its name or the parent folder."
    ),
]
Select = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=EXPR",
        help='DICOM series for a collection, such as \'T1w=description ~ "t1.*mpr" and slices > '
        "100' over the columns of `scan`; repeatable.",
    ),
]
AllowTilt = Annotated[
    bool, typer.Option("--allow-tilt", help="Keep a gantry tilt, with a sheared affine.")
]
DropAborted = Annotated[
    bool, typer.Option("--drop-aborted", help="Leave out a last 4-D volume that is not whole.")
]
ClipPadding = Annotated[
    bool, typer.Option("--clip-padding", help="Set DICOM's padding to the lowest other value.")
]
Suv = Annotated[
    SuvKind | None, typer.Option("--suv", help="Store PET as standardised uptake values.")
]
LabelsFrom = Annotated[
    list[LabelKind] | None,
    typer.Option(
        "--labels-from", help="DICOM objects to take as labels of their series; repeatable."
    ),
]
LabelName = Annotated[
    str | None,
    typer.Option(metavar="PATTERN", help="Names of the segments to take from --labels-from."),
]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Read files behind links out of their folder.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be stored, and end.")]
PlanTable = Annotated[
    Path | None,
    typer.Option("--plan", metavar="TABLE", help="A table of `scan`, as edited, for the sources."),
]
PatchSize = Annotated[
    str | None, typer.Option(metavar="N or X,Y,Z", help="Fit tiles to this training patch.")
]
Reorient = Annotated[
    bool | None, typer.Option("--reorient/--no-reorient", help="Turn voxels to RAS axes.")
]
Report = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write a report: .json, else a text table.")
]
Errors = Annotated[OnError, typer.Option(help="Leave out and report what cannot be read, or stop.")]


@dataclass(frozen=True)
class _Arguments:
    """The options that ingest and append share."""

    kind: Kind
    labels: list[str]
    keep: list[str]
    key_file: Path | None
    obs_meta: Path | None
    subject_pattern: str | None
    subject_from: SubjectFrom | None
    patch_size: str | None
    reorient: bool | None
    on_error: OnError
    select: list[str]
    allow_tilt: bool
    drop_aborted: bool
    clip_padding: bool
    suv: SuvKind | None
    labels_from: list[LabelKind]
    label_name: str | None
    follow_links: bool = False
    statistics: Statistics = ()
    shared: bool = False

    @property
    def dicom(self) -> DicomOptions:
        """How DICOM is read."""
        suv = None if self.suv is None else self.suv.value
        return DicomOptions(self.allow_tilt, self.drop_aborted, suv, self.clip_padding)

    def plan(self, sources: list[str], table: Path | None = None) -> IngestPlan:
        """Return what will be stored, before anything is."""
        if bool(sources) == (table is not None):
            raise typer.BadParameter("give sources, or a table with --plan")
        plan = self._of_sources(sources) if table is None else self._of_table(table)
        if self.obs_meta is not None:
            plan = plan.with_subjects(read_subjects(self.obs_meta))
        if self.key_file is not None:
            plan = plan.with_keyed_ids(read_key(self.key_file))
        return plan

    def _of_table(self, table: Path) -> IngestPlan:
        with counting("reading headers") as progress:
            return plan_table(
                read_plan(table), keep=self.keep, options=self.dicom, progress=progress
            )

    def _of_sources(self, sources: list[str]) -> IngestPlan:
        parsed: list[Source] = [parse_source(text, self.kind.value) for text in sources]
        self._refuse_what_applies_to_none(parsed)
        select = dict(map(parse_selection, self.select))
        named = next((source for source in parsed if source.name is not None), None)
        if select and named is not None:
            raise typer.BadParameter(f"--select names the collections, and so does {named.name}=")
        with counting("reading headers") as progress:
            return join_plans(
                [
                    plan_of(
                        source,
                        keep=self.keep,
                        subject_pattern=self.subject_pattern,
                        subject_from=None if self.subject_from is None else self.subject_from.value,
                        dicom=self.dicom,
                        select=select,
                        labels_from=[kind.value for kind in self.labels_from],
                        label_name=self.label_name,
                        progress=progress,
                        follow_links=self.follow_links,
                    )
                    for source in parsed
                ]
            )

    def _refuse_what_applies_to_none(self, sources: list[Source]) -> None:
        """Refuse an option that none of the sources has a use for."""
        kinds = {source.kind for source in sources}
        files = any(s.kind != "dicom" and not s.has_layout and not s.listed for s in sources)
        of_files = self.subject_from in (SubjectFrom.NAME, SubjectFrom.PARENT)
        found = ", ".join(sorted({"list" if s.listed else s.kind for s in sources}))
        for option, given, applies in (
            ("--subject-pattern", self.subject_pattern, files),
            ("--subject-from " + (self.subject_from or ""), self.subject_from,
             files if of_files else "dicom" in kinds),
            ("--select", self.select, "dicom" in kinds),
            ("--allow-tilt", self.allow_tilt, "dicom" in kinds),
            ("--drop-aborted", self.drop_aborted, "dicom" in kinds),
            ("--clip-padding", self.clip_padding, "dicom" in kinds),
            ("--suv", self.suv, "dicom" in kinds),
            ("--labels-from", self.labels_from, "dicom" in kinds),
        ):  # fmt: skip
            if given and not applies:
                raise typer.BadParameter(f"{option} does not apply: the sources are {found}")

    def options(self, exists: str, executor: ExecutorLike | None) -> IngestOptions:
        """Return the library's options."""

        return IngestOptions(
            reorient=self.reorient,
            exists=exists,
            on_error=self.on_error.value,
            labels=tuple(self.labels),
            statistics=self.statistics,
            patch_size=parse_patch_size(self.patch_size),
            follow_links=self.follow_links,
            progress=show_progress(),
            executor=executor,
            shared=self.shared or None,
        )


def parse_patch_size(text: str | None) -> tuple[int, ...] | None:
    """Return "96" or "96,96,48" as three sides in voxels."""
    if text is None:
        return None
    parts = text.replace("x", ",").split(",")
    if len(parts) not in (1, 3) or not all(p.strip().isdecimal() and int(p) > 0 for p in parts):
        raise typer.BadParameter(f"{text!r} is no patch size: give N or X,Y,Z")
    sides = tuple(int(part) for part in parts)
    return sides * 3 if len(sides) == 1 else sides


@contextlib.contextmanager
def threads(workers: int | None, executor: str | None = None) -> Iterator[ExecutorLike | None]:
    """Open the threads that were asked for; None leaves the choice to the library."""
    if workers is not None and executor is not None:
        raise typer.BadParameter("--workers are threads here, --executor is a cluster: give one")
    if workers is None:
        yield executor
        return
    with process.new_threads("ingest", workers) as pool:
        yield pool


@reported
def ingest(
    uri: Uri,
    sources: Sources = None,
    exists: Annotated[Exists, typer.Option(help="Where a data set lies already.")] = Exists.FAIL,
    resume: Annotated[bool, typer.Option("--resume", help="Short for --exists resume.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Short for --exists replace.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Resume, and replace what changed since it was stored.")
    ] = False,
    kind: Format = Kind.AUTO,
    labels: Labels = None,
    obs_meta: ObsMeta = None,
    subject_pattern: SubjectPattern = None,
    subject_from: FromField = None,
    id_key_file: IdKeyFile = None,
    keep_field: KeepField = None,
    patch_size: PatchSize = None,
    reorient: Reorient = None,
    on_error: Errors = OnError.REPORT,
    report: Report = None,
    workers: Workers = None,
    executor: OnExecutor = None,
    select: Select = None,
    plan: PlanTable = None,
    dry_run: DryRun = False,
    allow_tilt: AllowTilt = False,
    drop_aborted: DropAborted = False,
    clip_padding: ClipPadding = False,
    suv: Suv = None,
    labels_from: LabelsFrom = None,
    label_name: LabelName = None,
    follow_links: FollowLinks = False,
    statistics: CountedOf = None,
    shared: Shared = False,
    as_json: AsJson = False,
) -> None:
    """Make a data set from NIfTI, DICOM or BIDS."""
    if sum((resume, replace, update)) > 1:
        raise typer.BadParameter("--resume, --replace and --update exclude each other")
    short = ((resume, Exists.RESUME), (replace, Exists.REPLACE), (update, Exists.UPDATE))
    chosen = next((meant for asked, meant in short if asked), exists)
    arguments = _Arguments(
        kind, labels or [], keep_field or [], id_key_file, obs_meta, subject_pattern,
        subject_from, patch_size, reorient, on_error, select or [], allow_tilt, drop_aborted,
        clip_padding, suv, labels_from or [], label_name, follow_links,
        parse_statistics(statistics or ()), shared,
    )  # fmt: skip
    if dry_run:
        show_plan(arguments.plan(sources or [], plan))
        return
    _carry_out(
        uri, arguments.plan(sources or [], plan), arguments, chosen, report,
        threads(workers, executor), append=False,
    )  # fmt: skip


@reported
def append(
    uri: Uri,
    sources: Sources = None,
    kind: Format = Kind.AUTO,
    labels: Labels = None,
    obs_meta: ObsMeta = None,
    subject_pattern: SubjectPattern = None,
    subject_from: FromField = None,
    id_key_file: IdKeyFile = None,
    keep_field: KeepField = None,
    patch_size: PatchSize = None,
    reorient: Reorient = None,
    on_error: Errors = OnError.REPORT,
    report: Report = None,
    workers: Workers = None,
    executor: OnExecutor = None,
    select: Select = None,
    plan: PlanTable = None,
    dry_run: DryRun = False,
    allow_tilt: AllowTilt = False,
    drop_aborted: DropAborted = False,
    clip_padding: ClipPadding = False,
    suv: Suv = None,
    labels_from: LabelsFrom = None,
    label_name: LabelName = None,
    follow_links: FollowLinks = False,
    statistics: CountedOf = None,
    as_json: AsJson = False,
) -> None:
    """Add volumes and subjects to a data set; a subject's further scans are numbered."""
    arguments = _Arguments(
        kind, labels or [], keep_field or [], id_key_file, obs_meta, subject_pattern,
        subject_from, patch_size, reorient, on_error, select or [], allow_tilt, drop_aborted,
        clip_padding, suv, labels_from or [], label_name, follow_links,
        parse_statistics(statistics or ()),
    )  # fmt: skip
    if dry_run:
        show_plan(arguments.plan(sources or [], plan))
        return
    _carry_out(
        uri, arguments.plan(sources or [], plan), arguments, Exists.FAIL, report,
        threads(workers, executor), append=True,
    )  # fmt: skip


def _carry_out(
    uri: str,
    plan: IngestPlan,
    arguments: _Arguments,
    exists: Exists,
    report_file: Path | None,
    threads: AbstractContextManager[ExecutorLike | None],
    *,
    append: bool,
) -> None:
    with threads as executor:
        options = arguments.options(exists.value, executor)
        try:
            outcome = ingest_plan(uri, plan, options, append=append)
        except NothingStoredError as error:
            if report_file is not None:
                _write_report(report_file, error.report)
            raise
    report = outcome.report
    if report_file is not None:
        _write_report(report_file, report)
    if settings.json:
        emit({"uri": uri, **report.to_dict()})
    else:
        _summarise(report, repr(outcome.radi))
    if any(not line.harmless for line in report.refused):
        raise typer.Exit(ExitCode.PARTLY)


def _write_report(path: Path, report: IngestReport) -> None:
    as_json = path.suffix.lower() == ".json"
    text = report.to_json() if as_json else in_options(report.to_table())
    path.write_text(f"{text}\n", encoding="utf-8")


def _summarise(report: IngestReport, what: str) -> None:

    doubtful = [x for x in report.lines if x.reasons and x.verdict is not Verdict.STORED]
    shown = IngestReport(
        doubtful, report.skipped, report.without_volumes, report.faults, report.notes
    )
    if shown.says_something:
        note(in_options(shown.to_table().rsplit("\n", 1)[0]))
    skipped = f", {report.skipped_files} files skipped" if report.skipped else ""
    print(f"{what}: {report.counts_text}{skipped}")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog=_INGEST_EXAMPLES)(ingest)
    app.command(epilog="Example: radiobject append brains T1w=new/ --obs-meta new.csv")(append)
