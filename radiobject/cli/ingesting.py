"""`ingest` and `append`: files into a data set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from radiobject.cli.options import AsJson, Uri, Workers
from radiobject.cli.reporting import ExitCode, emit, note, reported, settings, show_progress
from radiobject.cli.sources import Source, parse_source, plan_of, read_key, read_subjects
from radiobject.formats.report import IngestReport
from radiobject.ingest.entry import IngestOptions
from radiobject.ingest.plan import IngestPlan, join_plans
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


class SubjectFrom(StrEnum):
    """Where the subject of a DICOM series is taken from."""

    FOLDER = "folder"
    PATIENT_ID = "PatientID"


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="[NAME=]SOURCE...",
        help="A NIfTI file, folder, glob or @LIST (a table with the columns path and "
        "obs_subject_id); a DICOM folder of any depth; a BIDS folder. NAME is the collection.",
    ),
]
Format = Annotated[Kind, typer.Option("--format", help="What the sources hold.")]
Labels = Annotated[
    list[str] | None,
    typer.Option("--labels", metavar="NAME", help="A collection of label masks; repeatable."),
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
    typer.Option(metavar="REGEX", help="The subject in a NIfTI file's name: group 1, or all of it"),
]
FromField = Annotated[SubjectFrom, typer.Option(help="The subject of a DICOM series.")]
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
    subject_from: SubjectFrom
    patch_size: str | None
    reorient: bool | None
    on_error: OnError

    def plan(self, sources: list[str]) -> IngestPlan:
        """Return what will be stored, before anything is."""

        parsed: list[Source] = [parse_source(text, self.kind.value) for text in sources]
        plan = join_plans(
            [
                plan_of(
                    source,
                    keep=self.keep,
                    subject_pattern=self.subject_pattern,
                    subject_from=self.subject_from.value,
                )
                for source in parsed
            ]
        )
        if self.obs_meta is not None:
            plan = plan.with_subjects(read_subjects(self.obs_meta))
        if self.key_file is not None:
            plan = plan.with_keyed_ids(read_key(self.key_file))
        return plan

    def options(self, exists: str, executor: Executor | None) -> IngestOptions:
        """Return the library's options."""

        return IngestOptions(
            reorient=self.reorient,
            exists=exists,
            on_error=self.on_error.value,
            labels=tuple(self.labels),
            patch_size=parse_patch_size(self.patch_size),
            progress=show_progress(),
            executor=executor,
        )


def parse_patch_size(text: str | None) -> tuple[int, ...] | None:
    """Return "96" or "96,96,48" as three sides in voxels."""
    if text is None:
        return None
    parts = text.replace("x", ",").split(",")
    if len(parts) not in (1, 3) or not all(p.strip().isdigit() and int(p) > 0 for p in parts):
        raise typer.BadParameter(f"{text!r} is no patch size: give N or X,Y,Z")
    sides = tuple(int(part) for part in parts)
    return sides * 3 if len(sides) == 1 else sides


@contextlib.contextmanager
def threads(workers: int | None) -> Iterator[Executor | None]:
    """Open the threads that were asked for; None leaves the choice to the library."""
    if workers is None:
        yield None
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="radiobject") as executor:
        yield executor


@reported
def ingest(
    uri: Uri,
    sources: Sources,
    exists: Annotated[Exists, typer.Option(help="Where a data set lies already.")] = Exists.FAIL,
    resume: Annotated[bool, typer.Option("--resume", help="Short for --exists resume.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Short for --exists replace.")] = False,
    kind: Format = Kind.AUTO,
    labels: Labels = None,
    obs_meta: ObsMeta = None,
    subject_pattern: SubjectPattern = None,
    subject_from: FromField = SubjectFrom.FOLDER,
    id_key_file: IdKeyFile = None,
    keep_field: KeepField = None,
    patch_size: PatchSize = None,
    reorient: Reorient = None,
    on_error: Errors = OnError.REPORT,
    report: Report = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Make a data set from NIfTI, DICOM or BIDS."""
    if resume and replace:
        raise typer.BadParameter("--resume and --replace exclude each other")
    chosen = Exists.RESUME if resume else Exists.REPLACE if replace else exists
    arguments = _Arguments(
        kind, labels or [], keep_field or [], id_key_file, obs_meta, subject_pattern,
        subject_from, patch_size, reorient, on_error,
    )  # fmt: skip
    _carry_out(uri, sources, arguments, chosen, report, workers, append=False)


@reported
def append(
    uri: Uri,
    sources: Sources,
    kind: Format = Kind.AUTO,
    labels: Labels = None,
    obs_meta: ObsMeta = None,
    subject_pattern: SubjectPattern = None,
    subject_from: FromField = SubjectFrom.FOLDER,
    id_key_file: IdKeyFile = None,
    keep_field: KeepField = None,
    patch_size: PatchSize = None,
    reorient: Reorient = None,
    on_error: Errors = OnError.REPORT,
    report: Report = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Add volumes and subjects to a data set; a subject's further scans are numbered."""
    arguments = _Arguments(
        kind, labels or [], keep_field or [], id_key_file, obs_meta, subject_pattern,
        subject_from, patch_size, reorient, on_error,
    )  # fmt: skip
    _carry_out(uri, sources, arguments, Exists.FAIL, report, workers, append=True)


def _carry_out(
    uri: str,
    sources: list[str],
    arguments: _Arguments,
    exists: Exists,
    report_file: Path | None,
    workers: int | None,
    *,
    append: bool,
) -> None:

    plan = arguments.plan(sources)
    with threads(workers) as executor:
        options = arguments.options(exists.value, executor)
        outcome = ingest_plan(uri, plan, options, append=append)
    report = outcome.report
    if report_file is not None:
        _write_report(report_file, report)
    if settings.json:
        emit({"uri": uri, **report.to_dict()})
    else:
        _summarise(report, repr(outcome.radi))
    if report.refused:
        raise typer.Exit(ExitCode.PARTLY)


def _write_report(path: Path, report: IngestReport) -> None:
    as_json = path.suffix.lower() == ".json"
    path.write_text((report.to_json() if as_json else report.to_table()) + "\n", encoding="utf-8")


def _summarise(report: IngestReport, what: str) -> None:

    doubtful = [line for line in report.lines if line.reasons]
    if doubtful:
        shown = IngestReport(doubtful, without_volumes=report.without_volumes)
        note(shown.to_table().rsplit("\n", 1)[0])
    counts = ", ".join(f"{count} {verdict}" for verdict, count in report.counts.items())
    skipped = f", {len(report.skipped)} files skipped" if report.skipped else ""
    print(f"{what}: {counts}{skipped}")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog=_INGEST_EXAMPLES)(ingest)
    app.command(epilog="Example: radiobject append brains T1w=new/ --obs-meta new.csv")(append)
