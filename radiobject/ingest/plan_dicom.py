"""What an ingest of DICOM will do: which series becomes which volume of which subject."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from radiobject.addresses import with_home
from radiobject.exceptions import ConfigurationError, IngestError
from radiobject.formats.dicom import DicomScan, scan_files
from radiobject.formats.dicom_labels import LABEL_KINDS, labels_of
from radiobject.formats.dicom_options import DicomOptions
from radiobject.formats.dicom_series import DicomSeries
from radiobject.formats.dicom_table import (
    COLUMNS,
    Row,
    refused_row,
    series_row,
    study_orders,
    volume_key,
)
from radiobject.formats.discovery import ImageFormat, NoImagesError, varying_part
from radiobject.formats.report import IngestReport, ReportLine, Verdict
from radiobject.formats.search import is_glob, summarised
from radiobject.formats.source import readable_name
from radiobject.indexing import shortened
from radiobject.ingest.patients import HOW_TO_CHOOSE, check_patients, check_people, checked_source
from radiobject.ingest.plan import (
    IngestPlan,
    PlannedImage,
    kept_fields,
    owned_by_folder,
    owned_by_patient,
)
from radiobject.rows.expression import matching_rows

DicomRoot = str | Path | Iterable[str | Path | tuple[str | Path, str]]


@dataclass(frozen=True)
class _Root:
    """A folder or file to scan, and the subject it was given with, if any."""

    path: Path
    subject: str | None = None
    name: str = ""


@dataclass(frozen=True)
class ScannedSeries:
    """A volume that a scan found, its line of the report, and the subjects of its folders.

    There is one of them as a rule. Where files of one series lie in the folders of several, they
    are slices of two patients with one UID, or one patient's who has two folders.
    """

    series: DicomSeries
    line: ReportLine
    subjects: tuple[str, ...]
    asked: bool = False

    @property
    def folder_subject(self) -> str:
        """The subject of its folder, or that of the first."""
        return self.subjects[0]

    @property
    def why_unowned(self) -> str:
        """Why no subject can have it; empty where there is one."""
        if len(self.subjects) == 1:
            return ""
        return (
            f"its files lie in the folders of {len(self.subjects)} subjects, "
            f"{shortened(self.subjects)}: slices of several patients with one UID, or of one with "
            f"several folders; {HOW_TO_CHOOSE}"
        )


def scanned(
    root: DicomRoot,
    *,
    keep: Sequence[str] = (),
    options: DicomOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[DicomScan, list[ScannedSeries]]:
    """Scan what `plan_dicoms` takes, and say whose each series is."""
    # Other processes, which may read the series, have other working folders.
    roots = [replace(one, path=one.path.absolute()) for one in _roots(root)]
    scan = scan_files([one.path for one in roots], keep=keep, options=options, progress=progress)
    places = {one.path: one for one in roots}
    found = []
    for series, line in zip(scan.series, scan.lines, strict=True):
        owners: dict[str, bool] = {}
        for path in _one_in_each_folder(series, places):
            owners.setdefault(*_subject_of_file(path, _root_of(path, places)))
        found.append(ScannedSeries(series, line, tuple(owners), asked=all(owners.values())))
    return scan, found


def _one_in_each_folder(series: DicomSeries, places: Mapping[Path, _Root]) -> list[Path]:
    """Return the files of a series whose subjects may differ: one of each folder, and roots."""
    first: dict[Path, Path] = {}
    for path in series.files:
        first.setdefault(path if path in places else path.parent, path)
    return list(first.values())


def _subject_of_file(path: Path, place: _Root) -> tuple[str, bool]:
    """Return whose a file is by the folder it lies in, and whether that was said."""
    if place.subject is not None:
        return place.subject, True
    if place.name:
        return place.name, False
    if place.path.is_dir():
        parts = path.relative_to(place.path).parent.parts
        return readable_name(parts[0]) if parts else place.path.resolve().name, False
    return place.path.parent.resolve().name, False


def _roots(root: DicomRoot) -> Iterator[_Root]:
    if isinstance(root, str | Path):
        text = with_home(root)
        if is_glob(text):
            yield from _matches(text)
        else:
            yield _Root(Path(text))
        return
    for item in root:
        if isinstance(item, str | Path):
            yield _Root(Path(with_home(item)))
        else:
            yield _Root(Path(with_home(item[0])), str(item[1]))


def _matches(pattern: str) -> Iterator[_Root]:
    """Yield what a glob matches; the subject is the first part of the path that varies."""
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    if not matches:
        raise NoImagesError(f"{pattern!r} matches no folder or file")
    for match in matches:
        part = varying_part(pattern, match)
        # A file's own name is no subject; the folder that varies before it is.
        yield _Root(match, name="" if match.is_file() and part == match.name else part)


def _root_of(path: Path, places: Mapping[Path, _Root]) -> _Root:
    return next(places[one] for one in (path, *path.parents) if one in places)


def plan_dicoms(
    root: DicomRoot,
    collection: str | None = None,
    *,
    subject_from: str | None = None,
    keep: Sequence[str] = (),
    allow_tilt: bool = False,
    options: DicomOptions | None = None,
    select: Mapping[str, str] | None = None,
    labels_from: Sequence[str] = (),
    label_name: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> IngestPlan:
    """Plan every series of a DICOM tree, found by what the files hold and not by their names.

    Parameters
    ----------
    root : path-like, or iterable of path-like or (path-like, subject)
        A folder to any depth, a file, a glob of them, or a list; the folders of a list may come
        with the subject that each is of.
    collection : str, optional
        Where all series go; without it, one collection per modality.
    subject_from : {"folder", "PatientID"}, optional
        The subject is the first folder below `root`, or the header's PatientID. When not given, it
        is the folder, and a folder with several patients, or a patient in several folders, is an
        error.
    keep : sequence of str
        DICOM keywords to keep as columns; text fields of NIfTI among them are for other sources.
    allow_tilt : bool
        Accept a gantry tilt, with a sheared affine.
    options : DicomOptions, optional
        What else to accept, and how values are delivered.
    select : mapping of str to str, optional
        Per collection a filter expression over the columns of a scan
        (`radiobject.formats.dicom_table.COLUMNS`), such as ``'description ~ "t1.*mpr"'``. A series
        goes to the first that takes it; those that none takes are left out.
    labels_from : sequence of {"seg", "rtstruct"}
        Take the segmentations or contours that were drawn on these series as label volumes, on
        the series' grid, in the collections ``<collection>_seg`` and ``<collection>_rtstruct``.
    label_name : str, optional
        Pattern that the names of the segments to take must match.
    progress : callable, optional
        Called with the number of files read so far.

    Raises
    ------
    ConfigurationError
        If a keyword or `subject_from` is unknown.
    FileNotFoundError
        If a path does not exist, or a glob matches nothing.
    IngestError
        If folders and patients disagree and `subject_from` is not given.
    ValueError
        If a selection is not an expression of the filter language.
    """
    checked_source(subject_from)
    kept = kept_fields(ImageFormat.DICOM, keep)
    chosen = options or DicomOptions()
    if allow_tilt:
        chosen = replace(chosen, allow_tilt=True)
    scan, found = scanned(root, keep=kept, options=chosen, progress=progress)
    report = IngestReport(list(scan.report.refused), summarised(scan.report.skipped))
    wanted, names = _selected(found, select, collection, report)
    owners = [_subject(one, subject_from, report) for one in wanted]
    owned = [(one, name, owner) for one, name, owner in zip(wanted, names, owners, strict=True)
             if owner is not None]  # fmt: skip
    orders = study_orders([one.series for one, _, _ in owned], [owner for _, _, owner in owned])
    planned = tuple(
        PlannedImage(
            name,
            one.series,
            owner,
            columns={"study_order": order},
            keep=kept,
            format=ImageFormat.DICOM,
            subject_asked=one.asked or subject_from is not None,
        )
        for (one, name, owner), order in zip(owned, orders, strict=True)
    )
    check_patients(owned_by_folder(planned))
    check_people(list(owned_by_patient(planned)))
    drawn = tuple(_labels(scan, planned, labels_from, label_name, report))
    collections = frozenset(image.collection for image in drawn)
    return IngestPlan(planned + drawn, labels=collections, report=report)


def _labels(
    scan: DicomScan,
    planned: Sequence[PlannedImage],
    kinds: Sequence[str],
    named: str | None,
    report: IngestReport,
) -> Iterator[PlannedImage]:
    """Yield the labels of planned series; what belongs to none is a line of the report."""
    unknown = [kind for kind in kinds if kind not in LABEL_KINDS]
    if unknown:
        raise ConfigurationError(f"labels_from must be of {tuple(LABEL_KINDS)}, got {unknown[0]!r}")
    images = {id(image.source): image for image in planned}
    series = [image.source for image in planned if isinstance(image.source, DicomSeries)]
    kind_of = {uid: kind for kind in kinds for uid in LABEL_KINDS[kind]}
    taken = set()
    for path, name, error in scan.others:
        kind = kind_of.get(error.sop_class)
        if kind is None:
            continue
        taken.add((name, str(error)))
        try:
            labels = labels_of(path, kind, series, named)
        except IngestError as why:
            refused = ReportLine(name, Verdict.REFUSED, (str(why),), description=error.description)
            report.extend([refused])
            continue
        image = images[id(labels.series)]
        folder = str(Path(name).parent)
        yield PlannedImage(
            f"{image.collection}_{kind}",
            replace(labels, folder="" if folder == "." else folder, description=error.description),
            image.obs_subject_id,
            columns=image.columns,
            format=ImageFormat.DICOM,
        )
    report.lines = [line for line in report.lines if (line.source, *line.reasons) not in taken]


def plan_table(
    rows: Sequence[Mapping[str, str]],
    *,
    keep: Sequence[str] = (),
    options: DicomOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> IngestPlan:
    """Plan the volumes that are listed in a scan's table, as it was edited.

    Parameters
    ----------
    rows : sequence of mapping
        With the columns ``root``, ``volume``, ``collection`` and ``subject`` of a scan. A row
        without ``volume`` or ``collection`` is left out; a volume without a row is, too.
    keep, options, progress
        As for `plan_dicoms`.

    Raises
    ------
    IngestError
        If a row names a volume that is not there any more, or has no subject, or two rows name one
        volume.
    """
    kept = kept_fields(ImageFormat.DICOM, keep)
    wanted = [row for row in rows if row.get("volume") and row.get("collection")]
    found: dict[tuple[str, str], ScannedSeries] = {}
    report = IngestReport()
    for root in dict.fromkeys(row.get("root") or "" for row in wanted):
        scan, volumes = scanned(root, keep=kept, options=options, progress=progress)
        found |= {(root, volume_key(one.series)): one for one in volumes}
        report.skipped |= summarised(scan.report.skipped)
    chosen: list[tuple[Mapping[str, str], ScannedSeries]] = []
    for number, row in enumerate(wanted, 1):
        one = found.pop((row["root"], row["volume"]), None)
        if one is None:
            raise IngestError(
                f"row {number} of the table, {row.get('source') or row['volume']!r}: no such "
                "volume is there any more, or two rows name it; scan again"
            )
        if not row.get("subject"):
            raise IngestError(f"row {number} of the table, {row.get('source')!r}: no subject")
        chosen.append((row, one))
    series = [one.series for _, one in chosen]
    orders = study_orders(series, [row["subject"] for row, _ in chosen])
    planned = tuple(
        PlannedImage(
            row["collection"], one.series, row["subject"], columns={"study_order": order},
            keep=kept, format=ImageFormat.DICOM,
        )
        for (row, one), order in zip(chosen, orders, strict=True)
    )  # fmt: skip
    return IngestPlan(planned, report=report)


def _subject(one: ScannedSeries, subject_from: str | None, report: IngestReport) -> str | None:
    """Return whose series it is; None, with a line of the report, where the header does not say."""
    if subject_from != "PatientID" or one.asked:
        if one.why_unowned and subject_from is None and not one.asked:
            raise IngestError(f"{one.line.source}: {one.why_unowned}")
        if one.why_unowned:
            line = replace(one.line, verdict=Verdict.REFUSED, reasons=(one.why_unowned,))
            report.extend([line])
            return None
        return one.folder_subject
    if one.series.identity.patient:
        return one.series.identity.patient
    why = "no PatientID: whose it is, is not known; take its subject from folders or from a list"
    report.extend([replace(one.line, verdict=Verdict.REFUSED, reasons=(why,))])
    return None


def _selected(
    found: list[ScannedSeries],
    select: Mapping[str, str] | None,
    collection: str | None,
    report: IngestReport,
) -> tuple[list[ScannedSeries], list[str]]:
    """Return the series that are wanted, and the collection of each."""
    if not select:
        return found, [collection or one.series.identity.modality or "unknown" for one in found]
    rows = table_rows(found, str)
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in COLUMNS}
    names: list[str | None] = [None] * len(found)
    for name, expression in select.items():
        for at in matching_rows(expression, columns, COLUMNS).nonzero()[0]:
            names[at] = names[at] or name
    for one, chosen in zip(found, names, strict=True):
        if chosen is None:
            line = replace(one.line, verdict=Verdict.REFUSED, harmless=True,
                           reasons=("no selection takes it",))  # fmt: skip
            report.extend([line])
    pairs = [(one, name) for one, name in zip(found, names, strict=True) if name is not None]
    if not pairs and found:
        raise IngestError(
            f"the selection takes none of {len(found)} volumes; `radiobject scan` shows them"
        )
    return [one for one, _ in pairs], [name for _, name in pairs]


def table_rows(found: Sequence[ScannedSeries], hashed: Callable[[str], str]) -> list[Row]:
    """Return the rows of a scan; `hashed` replaces what identifies a patient or a study."""
    owners = [one.series.identity.patient or one.folder_subject for one in found]
    orders = study_orders([one.series for one in found], owners)
    return [
        series_row(one.series, one.line, order, hashed)
        for one, order in zip(found, orders, strict=True)
    ]


def scan_table(
    root: DicomRoot,
    hashed: Callable[[str], str],
    *,
    options: DicomOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Row], IngestReport]:
    """Return a row per volume and per refused series, with the subject of its folder.

    Raises
    ------
    FileNotFoundError
        If a path does not exist, or a glob matches nothing.
    """
    scan, found = scanned(root, options=options, progress=progress)
    place = {"root": str(root)} if isinstance(root, str | Path) else {"root": ""}
    rows = [
        {
            "collection": one.series.identity.modality,
            "subject": "" if one.why_unowned else one.folder_subject,
        }
        | row
        | place
        | ({"reason": one.why_unowned} if one.why_unowned else {})
        for one, row in zip(found, table_rows(found, hashed), strict=True)
    ]
    refused = [
        {"collection": "", "subject": ""} | refused_row(line) | place
        for line in scan.report.refused
    ]
    return rows + refused, scan.report
