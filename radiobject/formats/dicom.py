"""DICOM in: files are scanned into series, and a series is loaded as a volume."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_cache import HeaderCache
from radiobject.formats.dicom_duplicates import without_duplicates
from radiobject.formats.dicom_frames import EMPTY_FILE, Frame, read_frames
from radiobject.formats.dicom_header import (
    NotDicomError,
    RefusedFileError,
    describe,
)
from radiobject.formats.dicom_options import DicomOptions
from radiobject.formats.dicom_pixels import DecodedStack, decode_frames
from radiobject.formats.dicom_series import DicomSeries, Outcome, RefusedSeries, build_series
from radiobject.formats.dicom_suv import SuvScale, suv_scale
from radiobject.formats.discovery import NoImagesError
from radiobject.formats.guards import DEFAULT_LIMITS, Limits, is_archive, walk_files
from radiobject.formats.image import LoadedImage, Scalar, rescale_metadata
from radiobject.formats.metadata import DicomMetadata
from radiobject.formats.privacy import (
    ALLOWED_KEYWORDS,
    NUMBER_KEYWORDS,
    check_keywords,
    column_name,
)
from radiobject.formats.readers import how_to_unpack
from radiobject.formats.report import IngestReport, ReportLine, Verdict
from radiobject.formats.source import SourceFile, readable_name
from radiobject.formats.time_axis import TIME_AXIS
from radiobject.geometry.orientation import (
    OrientationInfo,
    orientation_info_to_metadata,
    reorient_to_canonical,
    spacing_mm,
)

__all__ = [
    "DicomScan",
    "DicomSeries",
    "detect_dicom_orientation",
    "extract_dicom_metadata",
    "load_folder",
    "load_series",
    "patient_of_folder",
    "scan_dicom",
    "scan_files",
    "series_columns",
]

_NAN = float("nan")


def scan_dicom(
    paths: str | Path | Iterable[str | Path],
    *,
    limits: Limits = DEFAULT_LIMITS,
    keep: Sequence[str] = (),
    allow_tilt: bool = False,
    options: DicomOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[IngestReport, list[DicomSeries]]:
    """Find the DICOM volumes of a folder tree or a list of files, from their headers alone.

    Parameters
    ----------
    paths : path-like or iterable of path-like
        Folders, searched to any depth without leaving them by a link, or files. Names and
        suffixes do not matter, only what the files hold.
    limits : Limits
        What a header may declare.
    keep : sequence of str
        DICOM keywords to keep besides the allowed ones, such as "PatientAge".
    allow_tilt : bool
        Accept a gantry tilt, with a sheared affine.
    options : DicomOptions, optional
        What else to accept, and how values are delivered.
    progress : callable, optional
        Called with the number of files read so far.

    Returns
    -------
    report : IngestReport
        A line for every series and every damaged file; files that are no DICOM are listed as
        skipped.
    series : list of DicomSeries
        The volumes, in the order of their first file.

    Raises
    ------
    FileNotFoundError
        If a path does not exist.
    ConfigurationError
        If a keyword is not one.
    """
    chosen = options or DicomOptions()
    if allow_tilt:
        chosen = replace(chosen, allow_tilt=True)
    scan = scan_files(paths, limits=limits, keep=keep, options=chosen, progress=progress)
    return scan.report, scan.series


@dataclass
class DicomScan:
    """What was found in many files.

    Parameters
    ----------
    report : IngestReport
        A line for every series and every damaged file.
    series : list of DicomSeries
        The volumes.
    lines : list of ReportLine
        The line of each of `series`.
    others : list of (Path, str, RefusedFileError)
        Objects that are no images, with their names: segmentations, contours, reports.
    """

    report: IngestReport
    series: list[DicomSeries] = field(default_factory=list)
    lines: list[ReportLine] = field(default_factory=list)
    others: list[tuple[Path, str, RefusedFileError]] = field(default_factory=list)


def scan_files(
    paths: str | Path | Iterable[str | Path],
    *,
    limits: Limits = DEFAULT_LIMITS,
    keep: Sequence[str] = (),
    options: DicomOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> DicomScan:
    """Find the volumes and the other objects of many files; arguments as for `scan_dicom`."""
    chosen = options or DicomOptions()
    headers = _headers(paths, limits, check_keywords(keep), progress)
    found = DicomScan(IngestReport(_refused_lines(headers.refused), headers.skipped))
    found.others = [(headers.paths[name], name, error) for name, error in headers.refused
                    if error.harmless and error.sop_class]  # fmt: skip
    frames, notes, clashes = without_duplicates(headers.frames)
    for outcome in build_series(frames, limits, chosen):
        identity = outcome.frames[0].file.identity
        checked = _without_damage(outcome, headers.refused)
        if identity in clashes:
            checked = RefusedSeries(checked.frames, clashes[identity])
        if identity in notes and isinstance(checked, DicomSeries):
            checked = replace(checked, warnings=notes[identity] + checked.warnings)
        line = _line(checked, headers.names)
        found.report.extend([line])
        if isinstance(checked, DicomSeries):
            folder = str(Path(headers.names[checked.files[0]]).parent)
            found.series.append(replace(checked, folder="" if folder == "." else folder))
            found.lines.append(line)
    return found


def load_series(
    series: DicomSeries, *, reorient: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> LoadedImage:
    """Read the pixels of a series and return its volume.

    Parameters
    ----------
    series : DicomSeries
        From `scan_dicom`.
    reorient : str, optional
        Axis codes such as "RAS" that the voxel axes shall point to; None keeps (columns, rows,
        slices), the slices along their normal.
    limits : Limits
        What the files may hold.

    Returns
    -------
    LoadedImage
        In HU for CT, in their units for others: integers where the rescale is exact in integers,
        float32 where it differs between slices, else stored values with ``rescale``.

    Raises
    ------
    IngestError
        If a file is damaged or its pixels are not what its header declares.
    """
    options = series.options
    suv = None
    if options.suv is not None and series.identity.modality == "PT":
        suv = suv_scale(series.frames)
    stack = decode_frames(series.frames, limits, clip_padding=options.clip_padding)
    if suv is not None:
        stack = _in_suv(stack, suv)
    times = series.shape[3] if len(series.shape) == 4 else 1
    grid = stack.values.reshape(times, series.shape[2], *stack.values.shape[1:])
    data = grid.transpose(3, 2, 1, 0)
    data = data if len(series.shape) == 4 else data[..., 0]
    affine, original = series.affine, None
    if reorient is not None:
        original = affine
        data, affine = reorient_to_canonical(data, affine, reorient)
    source = stack.files[0]
    if len(stack.files) > 1:
        source = SourceFile.of_many(source.name, stack.files)
    orientation = OrientationInfo.from_affine(
        affine, "dicom_iop", "inferred" if series.assumed else "header"
    )
    metadata: dict[str, Scalar] = dict(orientation_info_to_metadata(orientation, original))
    if series.axis is not None:
        metadata[TIME_AXIS] = series.axis.to_json()
    if series.frames[0].file.pixels.inverted:
        metadata["display_inverted"] = 1
    columns = series_columns(series) | source.columns()
    columns["source_files"] = len(stack.files)
    if suv is not None:
        columns["units"] = "g/ml"
        metadata["suv"] = json.dumps({"kind": options.suv} | asdict(suv))
    if stack.padded:
        metadata["padding_clipped"] = stack.padded
    return LoadedImage(
        data=data,
        affine=affine,
        columns=columns,
        metadata=metadata | rescale_metadata(stack.rescale),
        rescale=stack.rescale,
        warnings=series.warnings + stack.warnings,
    )


def _in_suv(stack: DecodedStack, suv: SuvScale) -> DecodedStack:
    """Return the stack in g/ml; integers stay as they are and get a scale."""
    if stack.values.dtype.kind == "f":
        return replace(stack, values=stack.values * np.float32(suv.factor))
    slope, intercept = stack.rescale or (1.0, 0.0)
    return replace(stack, rescale=(slope * suv.factor, intercept * suv.factor))


def load_folder(
    folder: str | Path,
    *,
    reorient: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    keep: Sequence[str] = (),
    allow_tilt: bool = False,
    options: DicomOptions | None = None,
) -> LoadedImage:
    """Load the one DICOM volume of a folder.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist or holds no DICOM file.
    IngestError
        If it holds no volume or several; the message lists what was found.
    """
    chosen = options or DicomOptions()
    if allow_tilt:
        chosen = replace(chosen, allow_tilt=True)
    series = only_series(Path(folder), limits=limits, keep=keep, options=chosen)
    return load_series(series, reorient=reorient, limits=limits)


def only_series(
    folder: Path,
    *,
    limits: Limits = DEFAULT_LIMITS,
    keep: Sequence[str] = (),
    options: DicomOptions | None = None,
) -> DicomSeries:
    """Return the one series of a folder that is a volume; errors as `load_folder`.

    Scouts, reports and the like beside it are left out with a warning. Anything else that could
    not be read refuses the folder: that a part of a scan is missing must not go unseen.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}")
    report, found = scan_dicom(folder, limits=limits, keep=keep, options=options)
    if not report.lines:
        raise NoImagesError(f"No DICOM files in {folder.name!r}")
    blocking = [line for line in report.refused if not line.harmless]
    if len(found) == 1 and not blocking:
        left_out = tuple(f"left out {line.source}: {line.reasons[0]}" for line in report.refused)
        empty = [name for name, why in report.skipped.items() if why == EMPTY_FILE]
        if empty:
            left_out += (
                f"{len(empty)} empty files were passed over, such as {empty[0]}: if they were "
                "images, the volume is not whole",
            )
        return replace(found[0], warnings=found[0].warnings + left_out)
    raise IngestError(
        f"{folder.name!r} is not one volume: {len(found)} can be read, {len(report.refused)} "
        f"series or files cannot; use scan_dicom to take them one by one\n{report.to_table()}"
    )


def patient_of_folder(folder: Path) -> str:
    """Return the PatientID of the first DICOM image in a folder, empty where there is none.

    It is there to be compared; it must not be stored unasked.
    """
    for _, path, _ in _files([folder], lambda shut, error: None):
        try:
            return read_frames(path)[0].file.identity.patient
        except RefusedFileError as error:
            if error.identity is not None:
                return error.identity.patient
        except NotDicomError:
            continue
    return ""


def extract_dicom_metadata(dicom_dir: str | Path) -> DicomMetadata:
    """Return the metadata of the DICOM series in a folder.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it holds no DICOM file.
    IngestError
        If it holds no volume or several.
    """
    return only_series(Path(dicom_dir)).metadata()


def detect_dicom_orientation(dicom_dir: str | Path) -> OrientationInfo:
    """Return the orientation of the DICOM series in a folder; of an empty folder, the identity."""
    try:
        series = only_series(Path(dicom_dir))
    except NoImagesError:
        return OrientationInfo.from_affine(np.eye(4), "identity", "unknown")
    return OrientationInfo.from_affine(
        series.affine, "dicom_iop", "inferred" if series.assumed else "header"
    )


def _files(
    paths: str | Path | Iterable[str | Path], closed: Callable[[str, OSError], None]
) -> Iterable[tuple[Path, Path, str]]:
    """Yield each file once, with its folder and its name in that; see `walk_files` for `closed`."""
    seen: set[Path] = set()
    for given in [paths] if isinstance(paths, str | Path) else paths:
        root = Path(given)
        if not root.exists():
            raise FileNotFoundError(f"nothing at {root}")
        if not root.is_dir():
            if root not in seen:
                seen.add(root)
                yield root, root, readable_name(root.name)
            continue
        above = os.path.join(root, "")
        for path in walk_files(root, closed):
            if path not in seen:
                seen.add(path)
                text = str(path)
                name = text[len(above) :] if text.startswith(above) else text  # a root of "."
                yield root, path, readable_name(name.replace(os.sep, "/"))


@dataclass
class _Headers:
    """What the headers of many files say."""

    frames: list[Frame] = field(default_factory=list)
    names: dict[Path, str] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    refused: list[tuple[str, RefusedFileError]] = field(default_factory=list)


def _headers(
    paths: str | Path | Iterable[str | Path],
    limits: Limits,
    keep: Sequence[str],
    progress: Callable[[int], None] | None,
) -> _Headers:
    found = _Headers()
    caches: dict[Path, HeaderCache] = {}

    def closed(folder: str, error: OSError) -> None:
        name = readable_name(folder)
        found.paths[name] = Path(folder)
        why = f"the folder cannot be read ({error.strerror}): what it holds is not taken"
        found.refused.append((name, RefusedFileError(why)))

    for count, (root, path, name) in enumerate(_files(paths, closed), 1):
        found.names[path] = name
        if root not in caches:
            caches[root] = HeaderCache(root, f"{limits} {sorted(keep)}")
        try:
            if is_archive(path):
                raise NotDicomError("archives are not opened; unpack it first")
            stamp, frames = caches[root].get(path)
            if frames is None:
                frames = read_frames(path, limits, keep)
                caches[root].put(path, stamp, frames)
            found.frames += frames
        except NotDicomError as error:
            found.skipped[name] = how_to_unpack(path) or str(error)
        except RefusedFileError as error:
            found.paths[name] = path
            found.refused.append((name, error))
        if progress is not None:
            progress(count)
    for cache in caches.values():
        cache.save()
    return found


def _refused_lines(refused: Iterable[tuple[str, RefusedFileError]]) -> list[ReportLine]:
    """Return a line per series and reason."""
    groups: dict[tuple[Any, str], list[tuple[str, RefusedFileError]]] = {}
    for name, error in refused:
        groups.setdefault((error.identity or name, str(error)), []).append((name, error))
    return [
        ReportLine(
            source=files[0][0],
            verdict=Verdict.REFUSED,
            reasons=(why,),
            files=len(files),
            description=files[0][1].description,
            harmless=files[0][1].harmless,
        )
        for (_, why), files in groups.items()
    ]


def _without_damage(outcome: Outcome, refused: Iterable[tuple[str, RefusedFileError]]) -> Outcome:
    """Refuse a series of which files could not be read: what is left of it is not the scan."""
    own = outcome.frames[0].file.identity
    damaged = [pair for pair in refused if pair[1].identity == own and not pair[1].harmless]
    if not damaged:
        return outcome
    name, error = damaged[0]
    why = (
        f"the series is not whole: {len(damaged)} of its files cannot be read, such as {name} "
        f"({error}); restore what is damaged, or take it away if it is no part of the scan"
    )
    if isinstance(outcome, RefusedSeries):
        why += f". Of the other {len({frame.file.path for frame in outcome.frames})} files: "
        why += outcome.reason
    return RefusedSeries(outcome.frames, why)


def _line(outcome: Outcome, names: dict[Path, str]) -> ReportLine:
    frame = outcome.frames[0]
    description = describe(frame.file.fields)
    count = len({frame.file.path for frame in outcome.frames})
    source = names[frame.file.path]
    if isinstance(outcome, RefusedSeries):
        return ReportLine(source, Verdict.REFUSED, (outcome.reason,), count, description)
    return ReportLine(
        source=source,
        verdict=Verdict.WARNED if outcome.warnings else Verdict.ACCEPTED,
        reasons=outcome.warnings,
        files=count,
        description=description,
        shape=outcome.shape,
        spacing_mm=spacing_mm(outcome.affine),
    )


def series_columns(series: DicomSeries) -> dict[str, Scalar]:
    """Return the header's obs columns: allowed fields, what tells volumes apart, those asked for.

    A number that is not stated is not a number; a text is empty.
    """
    fields, keys = series.fields, series.keys
    columns: dict[str, Scalar] = {
        "modality": str(fields["Modality"] or ""),
        "series_description": str(fields["SeriesDescription"] or ""),
        "orientation_source": "dicom_iop",
        "image_kind": series.kind,
        "image_type": keys.kind,
        "complex_component": keys.component,
        "corrected_image": keys.corrected,
        "variant": keys.variant,
        "stack_id": series.frames[0].stack,
        "acquisition_plane": series.acquisition_plane,
        "units": series.frames[0].units,
    }
    for keyword in NUMBER_KEYWORDS:
        value = fields[keyword]
        columns[column_name(keyword)] = _NAN if value is None else value
    for name, number in (
        ("inversion_time", keys.inversion), ("flip_angle", keys.flip),
        ("echo_number", keys.echo_number),
    ):  # fmt: skip
        columns[name] = _NAN if number is None else number
    columns["b_value"] = keys.b_value if keys.b_value is not None and not series.axis else _NAN
    for keyword in fields:
        if keyword not in ALLOWED_KEYWORDS:
            columns[column_name(keyword)] = fields[keyword] if fields[keyword] is not None else ""
    return columns
