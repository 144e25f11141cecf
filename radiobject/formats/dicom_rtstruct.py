"""Contours of radiotherapy structure sets as label volumes.

A voxel belongs to a structure when its centre lies inside an odd number of its contours (PS3.3
C.8.8.6.3: holes are drawn as inner contours or as keyholes, and both come out by that rule).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import AlignmentError, IngestError
from radiobject.formats.dicom_classes import CONTOUR_CLASS
from radiobject.formats.dicom_elements import Fields, HeaderError, Wanted
from radiobject.formats.dicom_header import text_of
from radiobject.formats.dicom_parse import read_header
from radiobject.formats.dicom_series import OTHER_FRAME, DicomSeries
from radiobject.formats.guards import DEFAULT_LIMITS, Limits
from radiobject.formats.image import LoadedImage, Scalar
from radiobject.formats.pattern import compiled
from radiobject.formats.source import SourceFile, read_file
from radiobject.geometry.orientation import (
    LPS_TO_RAS,
    OrientationInfo,
    orientation_info_to_metadata,
)
from radiobject.indexing import shortened

PLANE_TOLERANCE = 0.1
"""Largest distance of a contour's points from their common plane, in slices."""

SLICE_TOLERANCE = 0.25
"""Largest distance of a contour's plane from a slice, in slices."""

_WANTED = (
    "SOPClassUID", "StructureSetROISequence", "ROINumber", "ROIName", "ROIContourSequence",
    "ReferencedROINumber", "ContourSequence", "ContourGeometricType", "ContourData",
    "RTROIObservationsSequence", "RTROIInterpretedType", "ReferencedFrameOfReferenceUID",
    "ReferencedFrameOfReferenceSequence", "FrameOfReferenceUID",
)  # fmt: skip
_SAME_POINT = 3
"""Decimals of a pixel to which the points of two contours agree that are one."""
_FILLED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")


@dataclass(frozen=True)
class _Structure:
    """A structure: its number, its name and kind, and its contours, (n, 3) LPS+ mm each.

    ``frame_uid`` is the frame of reference of its points: compared, and neither kept nor said.
    """

    number: int
    name: str
    kind: str
    contours: tuple[NDArray[np.float64], ...]
    frame_uid: str = ""


@dataclass(frozen=True)
class _Filled:
    """The voxels of a structure, shape (X, Y, Z), and what is doubtful about them."""

    mask: NDArray[np.bool_]
    warnings: tuple[str, ...]


def load_rtstruct(
    path: str | Path,
    *,
    reference: LoadedImage | DicomSeries,
    named: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> LoadedImage:
    """Read the contours of a structure set as a label volume.

    Parameters
    ----------
    path : path-like
        The structure set.
    reference : LoadedImage or DicomSeries
        The image on whose slices the contours were drawn.
    named : str, optional
        Pattern (`radiobject.formats.pattern`) that the names of the structures to read must match.
    limits : Limits
        What the file may hold.

    Returns
    -------
    LoadedImage
        uint8 or uint16, shape (X, Y, Z): 0 is background, else the ROI number. Their names are in
        ``metadata["segments"]``, as JSON. Its warnings name structures that leave slices out, cross
        themselves, are there twice, or hold no voxel.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If it is no structure set, nothing of it is filled, a contour is oblique to the slices or
        lies between them, two planes of contours fall on one slice, structures overlap, or one was
        drawn in the frame of reference of other images.
    AlignmentError
        If a contour leaves the image.
    """
    source = Path(path)
    content = read_file(source, limits)
    shape = tuple(reference.shape[:3])
    affine = np.asarray(reference.affine, dtype=np.float64)
    inverse: NDArray[np.float64] = np.linalg.inv(affine).astype(np.float64)
    chosen, frame_uids = _structures(source, named)
    warnings = _check_frames(source.name, chosen, frame_uids, reference)
    highest = max(one.number for one in chosen)
    labels = np.zeros(shape, dtype=np.uint8 if highest < 256 else np.uint16)
    for structure in chosen:
        filled = _filled(structure, inverse, shape, source.name)
        mask = filled.mask
        warnings += filled.warnings
        other = int(labels[mask].max(initial=0))
        if other:
            first = next(one.name for one in chosen if one.number == other)
            raise IngestError(
                f"{source.name}: the structures {first!r} and {structure.name!r} overlap, and a "
                "voxel has one label; choose by name (--label-name PATTERN, named=)"
            )
        labels[mask] = structure.number
    columns: dict[str, Scalar] = {"modality": "RTSTRUCT", "orientation_source": "dicom_iop"}
    columns |= SourceFile.of_bytes(source.name, content).columns()
    orientation = OrientationInfo.from_affine(affine, "dicom_iop", "header")
    metadata: dict[str, Scalar] = dict(orientation_info_to_metadata(orientation))
    metadata["segments"] = json.dumps(
        {str(one.number): {"label": one.name, "kind": one.kind} for one in chosen}
    )
    return LoadedImage(labels, affine, columns, metadata, warnings=warnings)


def _check_frames(
    file: str,
    chosen: Sequence[_Structure],
    known: frozenset[str],
    reference: LoadedImage | DicomSeries,
) -> tuple[str, ...]:
    """Refuse structures of other images' frame of reference; return a warning about unknown ones.

    `known` are the frames of reference whose images the file lists.
    """
    own = reference.frame_uid if isinstance(reference, DicomSeries) else ""
    others = [one for one in chosen if own and one.frame_uid not in ("", own)]
    stray = [one.name for one in others if {own, one.frame_uid} <= known]
    if stray:
        raise IngestError(
            f"{file}: {shortened(stray)} were drawn in the frame of reference of other images than "
            "those whose grid is asked for; choose by name (--label-name PATTERN, named=)"
        )
    return (OTHER_FRAME,) if others else ()


def _structures(path: Path, named: str | None) -> tuple[list[_Structure], frozenset[str]]:
    """Return the structures with filled contours whose name is asked for.

    The frames of reference whose images the file lists come with them.
    """
    try:
        with path.open("rb") as stream:
            fields = read_header(stream, Wanted.of(_WANTED)).fields
    except HeaderError as error:
        raise IngestError(f"{path.name}: damaged DICOM file ({error})") from error
    if text_of(fields, "SOPClassUID") != CONTOUR_CLASS:
        raise IngestError(f"{path.name}: not a structure set (RTSTRUCT)")
    pattern = None if named is None else compiled(named)
    listed = fields.get("StructureSetROISequence") or ()
    names = {item.get("ROINumber"): text_of(item, "ROIName") for item in listed}
    frame_uids = {item.get("ROINumber"): text_of(item, "ReferencedFrameOfReferenceUID")
                  for item in listed}  # fmt: skip
    kinds = {item.get("ReferencedROINumber"): text_of(item, "RTROIInterpretedType")
             for item in fields.get("RTROIObservationsSequence") or ()}  # fmt: skip
    found = []
    for item in fields.get("ROIContourSequence") or ():
        number = item.get("ReferencedROINumber")
        name = names.get(number, "")
        contours = tuple(_contours(item, path.name, name))
        if contours and (pattern is None or pattern.search(name)):
            if not isinstance(number, int) or not 0 < number < 1 << 16:
                raise IngestError(f"{path.name}: ROI number {number!r} of {name!r} is no label")
            frame_uid = frame_uids.get(number, "")
            found.append(_Structure(number, name, kinds.get(number, ""), contours, frame_uid))
    if not found:
        raise IngestError(
            f"{path.name}: no closed contours"
            + (f" of a structure named like {named!r}" if named is not None else "")
            + f"; the structures are {', '.join(map(repr, names.values())) or 'none'}"
        )
    referred = fields.get("ReferencedFrameOfReferenceSequence") or ()
    return found, frozenset(text_of(item, "FrameOfReferenceUID") for item in referred)


def _contours(item: Fields, file: str, name: str) -> Iterator[NDArray[np.float64]]:
    for contour in item.get("ContourSequence") or ():
        if text_of(contour, "ContourGeometricType") not in _FILLED:
            continue
        data = contour.get("ContourData")
        if not isinstance(data, tuple) or len(data) % 3 or len(data) < 9:
            raise IngestError(f"{file}: a contour of {name!r} is no list of at least 3 points")
        points = np.array(data, dtype=np.float64).reshape(-1, 3)
        if not np.isfinite(points).all():
            raise IngestError(f"{file}: a contour of {name!r} has points that are no numbers")
        yield points


def _filled(
    structure: _Structure, inverse: NDArray[np.float64], shape: tuple[int, ...], file: str
) -> _Filled:
    """Return which voxels a structure holds."""
    mask = np.zeros(shape, dtype=bool)
    doubled = crossed = 0
    by_slice = _by_slice(structure, inverse, shape, file)
    for slice_, contours in by_slice.items():
        distinct = {_points_of(points): points for points in contours}
        doubled += len(contours) - len(distinct)
        plane = mask[:, :, slice_]
        crossed += _fill(plane, list(distinct.values()))
    return _Filled(mask, tuple(_doubts(structure.name, mask, sorted(by_slice), doubled, crossed)))


def _by_slice(
    structure: _Structure, inverse: NDArray[np.float64], shape: Sequence[int], file: str
) -> dict[int, list[NDArray[np.float64]]]:
    """Return the contours of each slice, (n, 2) voxel indices each."""
    found: dict[int, list[NDArray[np.float64]]] = {}
    height: dict[int, float] = {}
    for points in structure.contours:
        index = points @ LPS_TO_RAS[:3, :3] @ inverse[:3, :3].T + inverse[:3, 3]
        planes = index[:, 2]
        if np.ptp(planes) > PLANE_TOLERANCE:
            raise IngestError(
                f"{file}: a contour of {structure.name!r} is oblique to the slices of its images "
                f"(it spans {np.ptp(planes):.2f} slices); only contours in their planes are read"
            )
        slice_ = round(float(planes.mean()))
        if abs(float(planes.mean()) - slice_) > SLICE_TOLERANCE:
            raise IngestError(
                f"{file}: a contour of {structure.name!r} lies between slices {slice_} and its "
                "neighbour: it was drawn on other images"
            )
        if abs(float(planes.mean()) - height.setdefault(slice_, float(planes.mean()))) > (
            PLANE_TOLERANCE
        ):
            raise IngestError(
                f"{file}: contours of {structure.name!r} in two planes fall on slice {slice_}: "
                "they were drawn on thinner slices"
            )
        inside = (index[:, :2] > -1).all() and (index[:, :2] < np.array(shape[:2])).all()
        if not 0 <= slice_ < shape[2] or not inside:
            raise AlignmentError(
                f"{file}: a contour of {structure.name!r} leaves the image of shape {tuple(shape)}"
            )
        found.setdefault(slice_, []).append(index[:, :2])
    return found


def _points_of(points: NDArray[np.float64]) -> bytes:
    """Return what is equal for one contour, wherever it begins and which way it runs."""
    rounded = np.unique(points.round(_SAME_POINT), axis=0) + 0.0
    return rounded.tobytes()


def _fill(plane: NDArray[np.bool_], contours: Sequence[NDArray[np.float64]]) -> bool:
    """Turn over what each contour encloses; return whether two of them cross."""
    if len(contours) == 1:
        toggle_polygon(plane, contours[0])
        return False
    enclosed = []
    for points in contours:
        own = np.zeros_like(plane)
        toggle_polygon(own, points)
        enclosed.append(np.flatnonzero(own))
    depth = np.zeros(plane.shape, np.intp)
    flat, crossed = depth.reshape(-1), False
    # From the largest on, each of a nest lies in all of the one before or in none of it.
    for pixels in sorted(enclosed, key=len, reverse=True):
        crossed |= len(pixels) > 0 and bool(np.ptp(flat[pixels]))
        flat[pixels] += 1
    plane ^= depth % 2 == 1
    return crossed


def _doubts(
    name: str, mask: NDArray[np.bool_], slices: Sequence[int], doubled: int, crossed: int
) -> Iterator[str]:
    """Yield what is to be said of a structure's voxels."""
    if doubled:
        yield f"{doubled} contours of {name!r} are there twice; each was taken once"
    if crossed:
        yield (
            f"contours of {name!r} cross each other in {crossed} slices; what an even number of "
            "them encloses is background"
        )
    left_out = slices[-1] - slices[0] + 1 - len(slices)
    if left_out:
        yield (
            f"{name!r} has contours on {len(slices)} of the {left_out + len(slices)} slices from "
            "its first to its last; the others are background: interpolate it if it was drawn on "
            "some slices only"
        )
    if not mask.any():
        yield f"the contours of {name!r} enclose the centre of no voxel: it is not in the labels"


def toggle_polygon(plane: NDArray[np.bool_], points: NDArray[Any]) -> None:
    """Turn over the pixels (x, y) whose centre lies inside a closed polygon, by even-odd."""
    after = np.roll(points, -1, axis=0)
    first = max(math.ceil(float(points[:, 1].min())), 0)
    last = min(math.floor(float(points[:, 1].max())), plane.shape[1] - 1)
    for row in range(first, last + 1):
        crossing = (points[:, 1] <= row) != (after[:, 1] <= row)
        one, two = points[crossing], after[crossing]
        share = (row - one[:, 1]) / (two[:, 1] - one[:, 1])
        at = np.sort(one[:, 0] + share * (two[:, 0] - one[:, 0]))
        for left, right in at.reshape(-1, 2):
            plane[max(math.ceil(left), 0) : max(math.ceil(right), 0), row] ^= True
