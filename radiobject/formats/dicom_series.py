"""Frames grouped into series, and each series into a volume or a reason why it is none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_agreement import agreeing, doubtful, shared_uids
from radiobject.formats.dicom_axis import check_one_day, time_axis
from radiobject.formats.dicom_counts import fewer_than_stated, slices_missing
from radiobject.formats.dicom_frames import Frame
from radiobject.formats.dicom_geometry import (
    LATERAL_TOLERANCE_MM,
    same_orientation,
    slice_normal,
    stack_slices,
)
from radiobject.formats.dicom_header import SeriesIdentity, describe
from radiobject.formats.dicom_keys import FrameKeys
from radiobject.formats.dicom_mixtures import mixed_values, unnamed_axis
from radiobject.formats.dicom_options import DicomOptions
from radiobject.formats.dicom_real_world import NO_UNIT, REAL_WORLD, unapplied
from radiobject.formats.dicom_volumes import Part, along_normal, parted_in_time, separated
from radiobject.formats.guards import DEFAULT_LIMITS, Limits
from radiobject.formats.metadata import DicomMetadata
from radiobject.formats.privacy import BURNED_IN
from radiobject.formats.source import readable_name
from radiobject.formats.time_axis import TimeAxis
from radiobject.geometry.orientation import affine_to_list, axis_codes
from radiobject.indexing import shortened

OTHER_FRAME = (
    "it states another frame of reference than the images it refers to: where a registration lies "
    "between them, it is on the wrong place of these"
)
"""What is said of labels whose FrameOfReferenceUID is not that of their images."""
_SPACING_TOLERANCE = 1e-3
_SPECIES = frozenset(
    {"WATER", "FAT", "W", "F", "IP", "OP", "IN_PHASE", "OUT_PHASE", "OPP_PHASE", "WATER_FAT"}
)


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
    axis : TimeAxis, optional
        What the fourth axis means; None for a volume without one.
    options : DicomOptions
        How its pixels are to be read.
    """

    frames: tuple[Frame, ...]
    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    warnings: tuple[str, ...] = ()
    assumed: bool = False
    folder: str = ""
    axis: TimeAxis | None = None
    options: DicomOptions = field(default_factory=DicomOptions)

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID."""
        return self.identity.series_uid

    @property
    def identity(self) -> SeriesIdentity:
        """Whose series it is; compared, never stored."""
        return self.frames[0].file.identity

    @property
    def frame_uid(self) -> str:
        """FrameOfReferenceUID, empty where the images share none; compared, never stored."""
        stated = {frame.file.agreement["FrameOfReferenceUID"] for frame in self.frames}
        return stated.pop() if len(stated) == 1 else ""

    @property
    def keys(self) -> FrameKeys:
        """What tells this volume from others of its series."""
        return self.frames[0].keys

    @property
    def fields(self) -> dict[str, Any]:
        """The allowed and asked-for header fields of the first slice, by keyword."""
        keys = self.keys
        own = {"EchoTime": keys.echo, "RepetitionTime": keys.repetition, "KVP": keys.kvp}
        return self.frames[0].file.fields | {
            name: value for name, value in own.items() if value is not None
        }

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, each once, in slice order."""
        return tuple(dict.fromkeys(frame.file.path for frame in self.frames))

    @property
    def description(self) -> str:
        """Modality and series description, for a report."""
        return describe(self.fields)

    @property
    def kind(self) -> str:
        """ "M", "P", "R" or "I", a species such as "WATER", else the image type's third value."""
        keys = self.keys
        values = keys.kind.split("\\")[1:]
        species = next((value for value in values if value in _SPECIES), "")
        return species or keys.component or (values[0] if values else "")

    @property
    def acquisition_plane(self) -> str:
        """ "axial", "coronal", "sagittal", or "oblique" when no axis is within 20 degrees."""
        normal = np.abs(np.cross(self.affine[:3, 0], self.affine[:3, 1]))
        normal /= np.linalg.norm(normal)
        nearest = int(np.argmax(normal))
        return ("sagittal", "coronal", "axial")[nearest] if normal[nearest] > 0.94 else "oblique"

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


Outcome = DicomSeries | RefusedSeries


def build_series(
    frames: Iterable[Frame],
    limits: Limits = DEFAULT_LIMITS,
    options: DicomOptions | None = None,
) -> list[Outcome]:
    """Group frames by identity, agreement, orientation and pixel grid: each group a volume.

    Returns
    -------
    list
        One entry per group, in the order of their first frame, those first of which it is not
        known what belongs together. Nothing is dropped in silence.
    """
    chosen = options or DicomOptions()
    by_identity: dict[SeriesIdentity, list[Frame]] = {}
    for frame in frames:
        by_identity.setdefault(frame.file.identity, []).append(frame)
    shared = shared_uids(by_identity)
    outcomes: list[Outcome] = []
    for identities, reason in doubtful(by_identity):
        unknown = [frame for identity in identities for frame in by_identity.pop(identity)]
        outcomes.append(RefusedSeries(tuple(unknown), reason))
    for identity, members in by_identity.items():
        note = shared.get(identity.series_uid, ()) + tuple(fewer_than_stated(members))
        for group, disagreement in agreeing(members):
            for part, words in _objects(group):
                for outcome in _of_group(part, limits, chosen):
                    outcomes.append(_noted(outcome, note + disagreement + words))
    return outcomes


def _noted(outcome: Outcome, notes: tuple[str, ...]) -> Outcome:
    if isinstance(outcome, RefusedSeries) or not notes:
        return outcome
    return replace(outcome, warnings=notes + outcome.warnings)


def _objects(frames: list[Frame]) -> Iterator[tuple[list[Frame], tuple[str, ...]]]:
    """Yield the frames of each object that is a volume by itself, and those of all others.

    Two grids of doses in one series are no time points: a plan and its beams, say.
    """
    parts: dict[Path | None, list[Frame]] = {}
    for frame in frames:
        key = frame.file.path if frame.file.is_whole_volume else None
        parts.setdefault(key, []).append(frame)
    note = f"the series has {len(parts)} objects that are volumes by themselves"
    for part in parts.values():
        yield part, (note,) if len(parts) > 1 else ()


def _of_group(frames: list[Frame], limits: Limits, options: DicomOptions) -> Iterator[Outcome]:
    groups = _by_grid(frames)
    strays = [group[0] for group in groups if len(group) == 1 < len(groups)]
    if strays:
        yield _refused_strays(strays, groups)
    for group in groups:
        if len(group) > 1 or not strays:
            yield from _outcomes(group, _mixture(groups), limits, options)


def _mixture(groups: Sequence[Sequence[Frame]]) -> str:
    """Return what a series mixes, in words; empty for one group."""
    if len(groups) < 2:
        return ""
    stacks = sorted({group[0].stack for group in groups})
    if len(stacks) < len(groups):
        return f"{len(groups)} orientations or sizes"
    return f"{len(groups)} stacks (StackID {shortened(stacks)})"


def _by_grid(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Return the frames in groups of one orientation, pixel grid and stack."""
    groups: list[list[Frame]] = []
    known: dict[Any, list[Frame]] = {}
    for frame in frames:
        key = (frame.rows, frame.columns, frame.spacing_mm, frame.orientation, frame.stack)
        group = known.get(key)
        if group is None:
            group = next((one for one in groups if _same_grid(one[0], frame)), None)
            if group is None:
                group = []
                groups.append(group)
            known[key] = group
        group.append(frame)
    return groups


def _same_grid(first: Frame, second: Frame) -> bool:
    return (
        (first.rows, first.columns) == (second.rows, second.columns)
        and all(
            abs(one - two) <= _SPACING_TOLERANCE * abs(two)
            for one, two in zip(first.spacing_mm, second.spacing_mm, strict=True)
        )
        and same_orientation(first.orientation, second.orientation)
        and first.stack == second.stack
    )


def _refused_strays(strays: list[Frame], groups: Sequence[Sequence[Frame]]) -> RefusedSeries:
    count = "one image is" if len(strays) == 1 else f"{len(strays)} images are each"
    return RefusedSeries(
        tuple(strays),
        f"{count} alone among the {_mixture(groups)} of the series: scouts, projections or strays",
    )


def _outcomes(
    group: list[Frame], mixture: str, limits: Limits, options: DicomOptions
) -> Iterator[Outcome]:
    """Yield the volumes of a group, or its refusal."""
    note: tuple[str, ...] = ()
    if mixture:
        note = (f"the series mixes {mixture}; each is its own volume",)
    try:
        kinds = list(separated(group))
    except IngestError as error:
        yield RefusedSeries(tuple(group), str(error))
        return
    for kind, words in kinds:
        extra = note
        if words:
            extra += (f"images of the series differ in {words}; each kind is its own volume",)
        for part in parted_in_time(kind, drop_aborted=options.drop_aborted):
            if isinstance(part, tuple):
                yield RefusedSeries(tuple(part[0]), part[1])
                continue
            try:
                series = _volume(part, limits, options)
            except IngestError as error:
                found = tuple(frame for volume in part.times for frame in volume)
                yield RefusedSeries(found, str(error))
            else:
                yield replace(series, warnings=extra + series.warnings)


def _volume(part: Part, limits: Limits, options: DicomOptions) -> DicomSeries:
    """Return the volume that frames of one kind and one grid make."""
    times = part.times
    first = times[0][0]
    stack = stack_slices(
        np.array([frame.position for frame in times[0]]),
        first.orientation,
        first.spacing_mm,
        first.thickness_mm,
        allow_tilt=options.allow_tilt,
    )
    volumes = [tuple(times[0][index] for index in stack.order)]
    volumes += [
        tuple(time[int(i)] for i in np.argsort(along_normal(time), kind="stable"))
        for time in times[1:]
    ]
    frames = tuple(frame for volume in volumes for frame in volume)
    check_one_day(frames)
    _check_burned_in(frames)
    _check_scales(frames)
    shape: tuple[int, ...] = (first.columns, first.rows, len(times[0]))
    if len(times) > 1:
        shape += (len(times),)
    limits.check_volume(first.file.path.name, shape, first.file.pixels.dtype.itemsize)
    axis = time_axis(volumes, part.key) if len(times) > 1 else None
    unnamed = unnamed_axis(volumes, axis, part.key)
    return DicomSeries(
        frames=frames,
        shape=shape,
        affine=stack.affine,
        warnings=(
            part.warnings
            + stack.warnings
            + _beside(volumes)
            + _mixed_types(frames)
            + tuple(mixed_values(volumes))
            + tuple(slices_missing(volumes[0]))
            + ((unnamed,) if unnamed else ())
            + _beyond(frames)
            + unapplied([frame.real_world for frame in frames])
        ),
        assumed=stack.assumed,
        axis=axis,
        options=options,
    )


def _check_burned_in(frames: Sequence[Frame]) -> None:
    """Refuse a volume with text in its pixels, unless what says so is asked for.

    Such text is as a rule the patient's name and date of birth (PS3.3 C.7.6.1.1.5).

    Raises
    ------
    IngestError
        If images say so.
    """
    said = [f for f in frames if f.file.burned_in and BURNED_IN not in f.file.fields]
    if said:
        files = dict.fromkeys(frame.file.path.name for frame in said)
        raise IngestError(
            f"{len(said)} of {len(frames)} images say that text is burned into their pixels "
            f"({BURNED_IN} is YES: {shortened(files, quoted=False)}), often the patient's name: "
            f"blank it, or store it on purpose with keep_fields=['{BURNED_IN}']"
        )


def _beside(volumes: Sequence[Sequence[Frame]]) -> tuple[str, ...]:
    """Refuse volumes that lie beside the first, in their planes; return warnings.

    Less than half a pixel is what a motion correction while scanning does.
    """
    if len(volumes) < 2:
        return ()
    first = volumes[0][0]
    places = np.array([[frame.position for frame in volume] for volume in volumes])
    moved = places - places[0]
    normal = slice_normal(first.orientation)
    sideways = np.linalg.norm(moved - (moved @ normal)[..., None] * normal, axis=-1).max(axis=1)
    worst = int(np.argmax(sideways))
    if sideways[worst] <= LATERAL_TOLERANCE_MM:
        return ()
    text = f"volume {worst + 1} of {len(volumes)} lies {sideways[worst]:.2f} mm beside the first"
    if sideways[worst] > min(first.spacing_mm) / 2:
        raise IngestError(f"{text}: they share no grid; take them as series of their own")
    return (f"{text}; the place of the first is stored",)


def _beyond(frames: Sequence[Frame]) -> tuple[str, ...]:
    """Return a warning about rows or frames that are there and not declared: they are left out."""
    more = {
        frame.file.path: frame.file.surplus
        for frame in frames
        if frame.file.surplus >= frame.file.pixels.frame_bytes // frame.file.pixels.rows
    }
    if not more:
        return ()
    path, surplus = next(iter(more.items()))
    return (
        f"{len(more)} files hold more pixels than their headers declare, such as "
        f"{readable_name(path.name)} ({surplus:,} bytes): Rows, Columns, BitsAllocated or "
        "NumberOfFrames may be wrong",
    )


def _mixed_types(frames: Sequence[Frame]) -> tuple[str, ...]:
    kinds = dict.fromkeys(frame.keys.kind for frame in frames)
    if len(kinds) < 2:
        return ()
    return (f"images of the volume differ in image type ({shortened(list(kinds))})",)


def _check_scales(frames: Sequence[Frame]) -> None:
    """Refuse a volume whose slices have no common unit.

    A rescale that is absent on some slices, taken for 1 and 0, puts a slice of a CT 1,024 HU off.

    Raises
    ------
    IngestError
        If units differ, or tables, slopes or intercepts are there on some slices only.
    """
    if len({frame.file.pixels.has_table for frame in frames}) > 1:
        raise IngestError(
            "some slices have a modality lookup table and others have none: their values have no "
            "common unit"
        )
    scaled = any(frame.scale != (1.0, 0.0) for frame in frames)
    mapped = any(frame.real_world is not None and not frame.real_world.unused for frame in frames)
    keywords = (REAL_WORLD, REAL_WORLD) if mapped else ("RescaleSlope", "RescaleIntercept")
    for name, keyword in zip(("slope", "intercept"), keywords, strict=True):
        absent = [frame for frame in frames if getattr(frame, name) is None]
        if scaled and 0 < len(absent) < len(frames):
            files = dict.fromkeys(frame.file.path.name for frame in absent)
            raise IngestError(
                f"{keyword} is missing in {len(absent)} of {len(frames)} slices "
                f"({shortened(files, quoted=False)}): their values have no known unit; restore "
                "the headers, or leave these files out"
            )
    units = {"" if frame.units in NO_UNIT else frame.units for frame in frames}
    if len(units) > 1:
        raise IngestError(
            f"slices are in different units ({', '.join(map(repr, sorted(units)))}): they are no "
            "one volume"
        )
