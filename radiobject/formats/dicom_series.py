"""Frames grouped into series, and each series into a volume or a reason why it is none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_frames import Frame
from radiobject.formats.dicom_geometry import (
    DUPLICATE_TOLERANCE_MM,
    distances_mm,
    same_orientation,
    stack_slices,
)
from radiobject.formats.dicom_header import describe
from radiobject.formats.guards import DEFAULT_LIMITS, Limits
from radiobject.formats.metadata import DicomMetadata
from radiobject.geometry.orientation import affine_to_list, axis_codes

# Frames at one position that differ in these are volumes of their own.
_SEPARATE_KEYS = ("kind", "echo")
# Frames at one position that differ in one of these are time points of one volume.
_TIME_KEYS = ("temporal", "trigger", "b_value", "acquisition", "time", "content_time")


@dataclass(frozen=True)
class DicomSeries:
    """A series that is a volume: which frames, in which order, on which grid.

    Parameters
    ----------
    frames : tuple of Frame
        Slices of the first time point in order, then those of the second, and so on.
    shape : tuple of int
        (columns, rows, slices) or (columns, rows, slices, times).
    affine : ndarray, shape (4, 4), float64
        (column, row, slice) index to RAS+ mm.
    warnings : tuple of str
        What is doubtful.
    assumed : bool
        True when the slice step was not measured.
    folder : str
        Where the files are, relative to what was scanned; for a report, not for the store.
    """

    frames: tuple[Frame, ...]
    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    warnings: tuple[str, ...] = ()
    assumed: bool = False
    folder: str = ""

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID."""
        return self.frames[0].file.series_uid

    @property
    def fields(self) -> dict[str, Any]:
        """The allowed and asked-for header fields of the first slice, by keyword."""
        return self.frames[0].file.fields

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, each once, in slice order."""
        return tuple(dict.fromkeys(frame.file.path for frame in self.frames))

    @property
    def description(self) -> str:
        """Modality and series description, for a report."""
        return describe(self.fields)

    def metadata(self) -> DicomMetadata:
        """Return the header's obs columns, as the files state them."""
        frame, fields = self.frames[0], self.fields
        thickness = float("nan") if frame.thickness_mm is None else frame.thickness_mm
        return DicomMetadata(
            voxel_spacing=str((*frame.spacing_mm, thickness)),
            dimensions=str((frame.rows, frame.columns, len(self.frames))),
            modality=str(fields["Modality"] or ""),
            series_description=str(fields["SeriesDescription"] or ""),
            kvp=fields["KVP"],
            exposure=fields["Exposure"],
            repetition_time=fields["RepetitionTime"],
            echo_time=fields["EchoTime"],
            magnetic_field_strength=fields["MagneticFieldStrength"],
            axcodes="".join(axis_codes(self.affine)),
            affine_json=json.dumps(affine_to_list(self.affine)),
            orientation_source="dicom_iop",
            source_path=self.files[0].name,
        )


@dataclass(frozen=True)
class RefusedSeries:
    """A series that is no volume, and why."""

    frames: tuple[Frame, ...]
    reason: str


def build_series(
    frames: Iterable[Frame], limits: Limits = DEFAULT_LIMITS, *, allow_tilt: bool = False
) -> list[DicomSeries | RefusedSeries]:
    """Group frames by series, orientation and pixel grid, and make each group a volume.

    Returns
    -------
    list
        One entry per group, in the order of their first frame. Nothing is dropped in silence.
    """
    by_uid: dict[str, list[list[Frame]]] = {}
    for frame in frames:
        groups = by_uid.setdefault(frame.file.series_uid, [])
        for group in groups:
            if _same_grid(group[0], frame):
                group.append(frame)
                break
        else:
            groups.append([frame])
    outcomes: list[DicomSeries | RefusedSeries] = []
    for groups in by_uid.values():
        strays = [group[0] for group in groups if len(group) == 1 < len(groups)]
        if strays:
            outcomes.append(_refused_strays(strays, len(groups)))
        for group in groups:
            if len(group) > 1 or not strays:
                outcomes += _outcomes(group, len(groups), limits, allow_tilt)
    return outcomes


def _same_grid(first: Frame, second: Frame) -> bool:
    return (
        (first.rows, first.columns) == (second.rows, second.columns)
        and np.allclose(first.spacing_mm, second.spacing_mm, rtol=1e-3, atol=0)
        and same_orientation(first.orientation, second.orientation)
        and first.stack == second.stack
    )


def _refused_strays(strays: list[Frame], groups: int) -> RefusedSeries:
    count = "one image is" if len(strays) == 1 else f"{len(strays)} images are each"
    return RefusedSeries(
        tuple(strays),
        f"{count} alone among the {groups} orientations or sizes of the series: "
        "scouts, projections or strays",
    )


def _outcomes(
    group: list[Frame], siblings: int, limits: Limits, allow_tilt: bool
) -> list[DicomSeries | RefusedSeries]:
    """Return the volumes of a group, or its refusal."""
    note: tuple[str, ...] = ()
    if siblings > 1:
        note = (f"the series mixes {siblings} orientations or sizes; each is its own volume",)
    try:
        parts = _separated(group)
    except IngestError as error:
        return [RefusedSeries(tuple(group), str(error))]
    outcomes: list[DicomSeries | RefusedSeries] = []
    for part in parts:
        extra = note
        if len(part) < len(group):
            extra += ("the series holds several images of each slice; each kind is its own volume",)
        try:
            series = _volume(part, limits, allow_tilt)
        except IngestError as error:
            outcomes.append(RefusedSeries(tuple(part), str(error)))
        else:
            outcomes.append(replace(series, warnings=extra + series.warnings))
    return outcomes


def _separated(frames: list[Frame]) -> list[list[Frame]]:
    """Split frames that share positions by what makes them different kinds of image."""
    for key in _SEPARATE_KEYS:
        if not _has_duplicates(frames):
            break
        parts: dict[Any, list[Frame]] = {}
        for frame in frames:
            parts.setdefault(frame.keys[key], []).append(frame)
        if len(parts) > 1:
            return [split for part in parts.values() for split in _separated(part)]
    return [frames]


def _volume(frames: list[Frame], limits: Limits, allow_tilt: bool) -> DicomSeries:
    """Return the volume that frames of one kind and one grid make."""
    times = _time_points(frames)
    first = frames[0]
    stack = stack_slices(
        np.array([frame.position for frame in times[0]]),
        first.orientation,
        first.spacing_mm,
        first.thickness_mm,
        allow_tilt=allow_tilt,
    )
    ordered = [times[0][index] for index in stack.order]
    for time in times[1:]:
        along = np.argsort(_along(time), kind="stable")
        ordered += [time[int(index)] for index in along]
    shape: tuple[int, ...] = (first.columns, first.rows, len(times[0]))
    if len(times) > 1:
        shape += (len(times),)
    limits.check_volume(first.file.path.name, shape, first.file.pixels.dtype.itemsize)
    return DicomSeries(
        frames=tuple(ordered),
        shape=shape,
        affine=stack.affine,
        warnings=stack.warnings,
        assumed=stack.assumed,
    )


def _along(frames: Sequence[Frame]) -> NDArray[np.float64]:
    return distances_mm(np.array([frame.position for frame in frames]), frames[0].orientation)


def _has_duplicates(frames: Sequence[Frame]) -> bool:
    gaps = np.diff(np.sort(_along(frames)))
    return bool((gaps <= DUPLICATE_TOLERANCE_MM).any())


def _time_points(frames: list[Frame]) -> list[list[Frame]]:
    """Return the frames of each time point; one list when no position occurs twice.

    Raises
    ------
    IngestError
        If positions repeat and no header field says in what order.
    """
    if not _has_duplicates(frames):
        return [frames]
    along = _along(frames)
    for key in _TIME_KEYS:
        parts: dict[Any, list[int]] = {}
        for index, frame in enumerate(frames):
            parts.setdefault(frame.keys[key], []).append(index)
        if len(parts) < 2 or len({len(part) for part in parts.values()}) > 1:
            continue
        positions = [np.sort(along[part]) for part in parts.values()]
        same = all(
            np.allclose(positions[0], other, rtol=0, atol=DUPLICATE_TOLERANCE_MM)
            for other in positions
        )
        if same and not (np.diff(positions[0]) <= DUPLICATE_TOLERANCE_MM).any():
            return [[frames[i] for i in parts[value]] for value in sorted(parts, key=_in_time)]
    order = np.argsort(along, kind="stable")
    at = int(np.argmax(np.diff(along[order]) <= DUPLICATE_TOLERANCE_MM))
    one, two = (frames[int(order[at + step])].file.path.name for step in (0, 1))
    raise IngestError(
        f"duplicate slices: {one} and {two} are at the same position and no header field says "
        "which comes first; remove one, or split the series"
    )


def _in_time(value: str) -> tuple[int, float, str]:
    try:
        return (0, float(value), value)
    except ValueError:
        return (1, 0.0, value)
