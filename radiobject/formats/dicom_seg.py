"""DICOM segmentation objects in and out, through highdicom."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject._version import __version__
from radiobject.exceptions import AlignmentError, IngestError, ShapeError
from radiobject.formats.dicom_header import parse_errors
from radiobject.formats.dicom_series import OTHER_FRAME, DicomSeries
from radiobject.formats.engines import highdicom as hd
from radiobject.formats.engines import pydicom
from radiobject.formats.guards import DEFAULT_LIMITS, Limits
from radiobject.formats.image import LoadedImage, Scalar
from radiobject.formats.pattern import compiled
from radiobject.formats.source import SourceFile, read_file
from radiobject.geometry.orientation import (
    LPS_TO_RAS,
    OrientationInfo,
    axis_codes,
    orientation_info_to_metadata,
    reorient_to_canonical,
)
from radiobject.system.files import written_whole

GRID_TOLERANCE_MM = 1e-2
"""Largest distance of a voxel from its place for two grids to be one."""

_SEGMENTATION_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_PLANE_POSITION = "(0020,9113)"
_NO_PLACE = (
    "its frames have no place in the patient (a segmentation of single 2-D images); draw it on a "
    "series of slices"
)
_ANATOMY = ("123037004", "SCT", "Anatomical Structure")


@dataclass(frozen=True)
class Segment:
    """What one label value means.

    Parameters
    ----------
    label : str
        Name, such as "Liver".
    category, kind : tuple of str
        Coded category and type: (value, scheme, meaning).
    algorithm : str
        Name of the algorithm that made it; empty for a manual segmentation.
    """

    label: str
    category: tuple[str, str, str] = _ANATOMY
    kind: tuple[str, str, str] = _ANATOMY
    algorithm: str = ""


def load_dicom_seg(
    path: str | Path,
    *,
    reference: LoadedImage | DicomSeries | None = None,
    segments: Sequence[int] | None = None,
    named: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> LoadedImage:
    """Read a DICOM segmentation as a label volume.

    Parameters
    ----------
    path : path-like
        The segmentation object.
    reference : LoadedImage or DicomSeries, optional
        The image it belongs to. The labels are put on its grid: slices that the object leaves out
        because they are empty come back as zeros. Without it the volume ends with the outermost
        slices that have a label.
    segments : sequence of int, optional
        Segment numbers to read; all by default.
    named : str, optional
        Pattern (`radiobject.formats.pattern`) that the labels of the segments to read must match.
    limits : Limits
        What the header may declare.

    Returns
    -------
    LoadedImage
        uint8 or uint16, shape (X, Y, Z): 0 is background, else the segment number. What the
        numbers mean is in ``metadata["segments"]``, as JSON.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If it is no segmentation, is damaged, or its segments overlap.
    AlignmentError
        If its grid is not that of the reference.
    """
    source_path = Path(path)
    content = read_file(source_path, limits)
    name = source_path.name
    _check_header(source_path, limits)
    try:
        seg = hd.seg.segread(content)
        numbers = _numbers(seg, name, segments, named)
        array, placed = _label_array(seg, name, numbers, limits)
        described = {number: _segment(seg.get_segment_description(number)) for number in numbers}
    except IngestError:
        raise
    except sqlite3.Error as error:  # highdicom keeps frames in SQL
        raise IngestError(f"{name}: {_NO_PLACE}") from error
    except parse_errors(RuntimeError) as error:
        if _PLANE_POSITION in str(error):  # highdicom looks for it in every frame
            raise IngestError(f"{name}: {_NO_PLACE}") from error
        raise IngestError(f"{name}: cannot be read as one label volume ({error})") from error
    data, affine = _along_normal(array, placed)
    warnings: tuple[str, ...] = ()
    if reference is not None:
        data, affine = _on_grid(name, data, affine, reference.shape[:3], reference.affine)
    if isinstance(reference, DicomSeries) and reference.frame_uid:
        stated = str(seg.get("FrameOfReferenceUID") or "")
        warnings = (OTHER_FRAME,) if stated not in ("", reference.frame_uid) else ()
    orientation = OrientationInfo.from_affine(affine, "dicom_iop", "header")
    columns: dict[str, Scalar] = {"modality": "SEG", "orientation_source": "dicom_iop"}
    columns |= SourceFile.of_bytes(name, content).columns()
    metadata: dict[str, Scalar] = dict(orientation_info_to_metadata(orientation))
    metadata["segments"] = json.dumps({str(n): vars(s) for n, s in described.items()})
    return LoadedImage(data, affine, columns, metadata, warnings=warnings)


def _numbers(seg: Any, name: str, segments: Sequence[int] | None, named: str | None) -> list[int]:
    """Return the numbers of the segments that are asked for."""
    known = [int(number) for number in seg.segment_numbers]
    numbers = list(segments) if segments is not None else known
    if not set(numbers) <= set(known):
        raise IngestError(f"{name}: has segments {known}, not {numbers}")
    if named is not None:
        labels = {n: str(seg.get_segment_description(n).segment_label) for n in numbers}
        pattern = compiled(named)
        numbers = [number for number in numbers if pattern.search(labels[number])]
        if not numbers:
            raise IngestError(
                f"{name}: no segment named like {named!r}; they are "
                f"{', '.join(map(repr, labels.values()))}"
            )
    return numbers


def _label_array(
    seg: Any, name: str, numbers: Sequence[int], limits: Limits
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the labels as (slice, row, column), and their affine as highdicom has it.

    A fractional segment holds where its value is at least one half.
    """
    dtype = np.dtype(np.uint8 if max(numbers) < 256 else np.uint16)
    geometry = seg.get_volume_geometry()
    if geometry is not None:
        # Its slices may be few and far apart, and those between are zeros.
        limits.check_volume(name, tuple(geometry.spatial_shape[::-1]), dtype.itemsize)
    if str(seg.SegmentationType) != "FRACTIONAL":
        volume = seg.get_volume(segment_numbers=numbers, combine_segments=True, dtype=dtype)
        # A labelmap comes with all its labels, whichever were asked for.
        return np.where(np.isin(volume.array, numbers), volume.array, 0), volume.affine
    return _from_fractions(seg, name, numbers, dtype)


def _from_fractions(
    seg: Any, name: str, numbers: Sequence[int], dtype: np.dtype
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the labels of a fractional object, of whose segments one is in memory at a time."""
    most = int(seg.MaximumFractionalValue)
    half = (most + 1) // 2  # value / most >= 1 / 2
    labels = np.zeros(0, dtype)
    for number in numbers:
        volume = seg.get_volume(segment_numbers=[number], rescale_fractional=False, dtype=np.uint8)
        values = volume.array[..., 0]
        if values.max() > most:
            raise IngestError(
                f"{name}: segment {number} has the value {values.max()}, above its "
                f"MaximumFractionalValue of {most}"
            )
        inside = values >= half
        if not labels.size:
            labels = np.zeros(values.shape, dtype)
        if labels[inside].any():
            raise IngestError(
                f"{name}: fractional segments overlap, and a voxel has one label; choose by name "
                "(--label-name PATTERN, named=) or number (segments=)"
            )
        labels[inside] = number
    return labels, volume.affine


def save_dicom_seg(
    path: str | Path,
    labels: NDArray[Any],
    affine: NDArray[np.floating],
    segments: Mapping[int, Segment],
    source: DicomSeries,
) -> Path:
    """Write a label volume as a DICOM segmentation of the series it was drawn on.

    The object carries the patient and study of the source files, as DICOM demands: it is as
    identifying as they are.

    Parameters
    ----------
    path : path-like
        Written at the end, in one step.
    labels : ndarray, shape (X, Y, Z), unsigned integers
        0 is background.
    affine : ndarray, shape (4, 4)
        Voxel index of `labels` to RAS+ mm. Axes may be permuted and flipped against the source.
    segments : mapping of int to Segment
        The meaning of each label value but 0, numbered from 1 without a gap.
    source : DicomSeries
        The image series, with its files in place.

    Raises
    ------
    AlignmentError
        If the grid is not that of the source, or a label has no meaning.
    ShapeError
        If `labels` is not a volume of integers, or the source has time points, or not all frames
        of a multi-frame file.
    IngestError
        If the source's headers lack what a segmentation must repeat.
    """
    if len(source.shape) != 3 or source.frames[0].window is not None:
        raise ShapeError(
            f"the source series of shape {source.shape} has time points or is a mosaic; "
            "a segmentation refers to single slices"
        )
    _check_whole_files(source)
    if labels.ndim != 3 or labels.dtype.kind not in "iub":
        raise ShapeError(f"labels must be (X, Y, Z) integers, got {labels.dtype} {labels.shape}")
    present = {int(value) for value in np.unique(labels)} - {0}
    if not present <= set(segments) or sorted(segments) != list(range(1, len(segments) + 1)):
        raise AlignmentError(
            f"labels {sorted(present)} need a Segment each, numbered from 1; got {sorted(segments)}"
        )
    target = Path(path)
    moved, placed = reorient_to_canonical(labels, affine, "".join(axis_codes(source.affine)))
    _check_same_grid(target.name, moved.shape, placed, source.shape[:3], source.affine)
    dtype = np.uint8 if len(segments) < 256 else np.uint16
    described = [_description(number, segments[number]) for number in sorted(segments)]
    try:
        seg = _segmentation(_in_file_order(moved, source).astype(dtype), described, source)
    except FileNotFoundError:
        raise
    except parse_errors() as error:
        absent = error.name if isinstance(error, AttributeError) else None
        why = f"they have no {absent}, which a segmentation must repeat" if absent else str(error)
        raise IngestError(
            f"{target.name}: the headers of the source's files, such as {source.files[0].name}, "
            f"do not allow a segmentation: {why}"
        ) from error
    with written_whole(target) as unfinished:
        seg.save_as(unfinished)
    return target


def _check_whole_files(source: DicomSeries) -> None:
    """Refuse a series that is not one image a file, nor all frames of one file.

    highdicom places segments by the frames of one whole object.

    Raises
    ------
    ShapeError
        The message says what the series is.
    """
    most = max(source.frames, key=lambda frame: frame.file.frames).file
    if most.frames == 1 or (most.frames == len(source.frames) and len(source.files) == 1):
        return
    own = sum(frame.file.path == most.path for frame in source.frames)
    raise ShapeError(
        f"the source series has {own} of the {most.frames} frames of {most.path.name} among its "
        f"{len(source.frames)} slices in {len(source.files)} files; a segmentation can be written "
        "on series of one image a file, or of all frames of one file: split the object first"
    )


def _segmentation(labels: NDArray[Any], described: Sequence[Any], source: DicomSeries) -> Any:
    """Return the object of labels (frame, row, column) on the files of a series."""
    return hd.seg.Segmentation(
        source_images=[pydicom.dcmread(file) for file in source.files],
        pixel_array=labels,
        segmentation_type="BINARY",
        segment_descriptions=described,
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="RadiObject",
        manufacturer_model_name="RadiObject",
        software_versions=__version__,
        device_serial_number="0",
    )


def _in_file_order(labels: NDArray[Any], source: DicomSeries) -> NDArray[Any]:
    """Return (frame, row, column) in the order of the source's files, or of its frames."""
    slices = labels.T
    if len(source.files) > 1:
        return slices
    frames = np.empty_like(slices)
    for slice_, frame in zip(slices, source.frames, strict=True):
        frames[frame.index] = slice_
    return frames


def _check_header(path: Path, limits: Limits) -> None:
    """Refuse what is no segmentation or declares too much, before its pixels are unpacked."""
    try:
        header = pydicom.dcmread(
            path, stop_before_pixels=True,
            specific_tags=["SOPClassUID", "Rows", "Columns", "NumberOfFrames"],
        )  # fmt: skip
        if str(header.get("SOPClassUID")) not in _SEGMENTATION_CLASSES:
            raise IngestError(f"{path.name}: not a DICOM segmentation")
        shape = (int(header.Columns), int(header.Rows), int(header.get("NumberOfFrames") or 1))
    except IngestError:
        raise
    except parse_errors() as error:
        raise IngestError(f"{path.name}: damaged DICOM file ({error})") from error
    limits.check_volume(path.name, shape, 1)


def _along_normal(
    array: NDArray[Any], affine: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Turn highdicom's (slice, row, column) in LPS+ into (column, row, slice) in RAS+.

    Slices run along the normal of row and column direction, as everywhere here.
    """
    data = array.transpose(2, 1, 0)
    turned = affine[:, [2, 1, 0, 3]].copy()
    if np.cross(turned[:3, 0], turned[:3, 1]) @ turned[:3, 2] < 0:
        data = data[:, :, ::-1]
        turned[:3, 3] += turned[:3, 2] * (data.shape[2] - 1)
        turned[:3, 2] *= -1
    return data, LPS_TO_RAS @ turned


def _on_grid(
    name: str,
    data: NDArray[Any],
    affine: NDArray[np.float64],
    shape: tuple[int, ...],
    target: NDArray[np.float64],
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Place `data` in zeros of `shape` where its affine puts it on the `target` grid."""
    moved, placed = reorient_to_canonical(data, affine, "".join(axis_codes(target)))
    step = np.linalg.inv(target) @ placed
    offset = np.rint(step[:3, 3]).astype(int)
    stop = offset + moved.shape
    expected = target.copy()
    expected[:3, 3] = target[:3, :3] @ offset + target[:3, 3]
    _check_same_grid(name, moved.shape, placed, moved.shape, expected)
    if (offset < 0).any() or (stop > np.array(shape)).any():
        raise AlignmentError(
            f"{name}: labels at voxels {offset.tolist()} to {stop.tolist()} leave the reference "
            f"of shape {tuple(shape)}"
        )
    out = np.zeros(shape, dtype=data.dtype)
    out[tuple(slice(a, b) for a, b in zip(offset, stop, strict=True))] = moved
    return out, target


def _check_same_grid(
    name: str,
    shape: Sequence[int],
    affine: NDArray[np.float64],
    expected_shape: Sequence[int],
    expected: NDArray[np.float64],
) -> None:
    """Compare the places of the eight corner voxels."""
    corners = np.array([[*index, 1] for index in np.ndindex(2, 2, 2)], dtype=np.float64) * np.array(
        [*(np.array(shape) - 1), 1]
    )
    apart = float(np.linalg.norm(corners @ (affine - expected).T, axis=1).max())
    if tuple(shape) != tuple(expected_shape) or apart > GRID_TOLERANCE_MM:
        raise AlignmentError(
            f"{name}: labels of shape {tuple(shape)} lie up to {apart:.3g} mm off the image of "
            f"shape {tuple(expected_shape)}; resample them to its grid first"
        )


def _segment(description: Any) -> Segment:
    def code(concept: Any) -> tuple[str, str, str]:
        return concept.value, concept.scheme_designator, concept.meaning

    return Segment(
        label=str(description.segment_label),
        category=code(description.segmented_property_category),
        kind=code(description.segmented_property_type),
        algorithm=str(description.get("SegmentAlgorithmName") or ""),
    )


def _description(number: int, segment: Segment) -> Any:
    automatic = bool(segment.algorithm)
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label,
        segmented_property_category=hd.sr.CodedConcept(*segment.category),
        segmented_property_type=hd.sr.CodedConcept(*segment.kind),
        algorithm_type="AUTOMATIC" if automatic else "MANUAL",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=segment.algorithm,
            family=hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
            version="1",
        )
        if automatic
        else None,
    )
