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
from radiobject.formats.dicom_series import DicomSeries
from radiobject.formats.guards import DEFAULT_LIMITS, Limits
from radiobject.formats.image import LoadedImage, Scalar
from radiobject.formats.pattern import compiled
from radiobject.formats.source import SourceFile, read_file
from radiobject.geometry.orientation import (
    LPS_TO_RAS,
    OrientationInfo,
    orientation_info_to_metadata,
)

PLANE_TOLERANCE = 0.1
"""Largest distance of a contour's points from their common plane, in slices."""

SLICE_TOLERANCE = 0.25
"""Largest distance of a contour's plane from a slice, in slices."""

_WANTED = (
    "SOPClassUID", "StructureSetROISequence", "ROINumber", "ROIName", "ROIContourSequence",
    "ReferencedROINumber", "ContourSequence", "ContourGeometricType", "ContourData",
    "RTROIObservationsSequence", "RTROIInterpretedType",
)  # fmt: skip
_FILLED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")


@dataclass(frozen=True)
class _Structure:
    """A structure: its number, its name and kind, and its contours, (n, 3) LPS+ mm each."""

    number: int
    name: str
    kind: str
    contours: tuple[NDArray[np.float64], ...]


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
        ``metadata["segments"]``, as JSON.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If it is no structure set, nothing of it is filled, a contour is oblique to the slices or
        lies between them, or structures overlap.
    AlignmentError
        If a contour leaves the image.
    """
    source = Path(path)
    content = read_file(source, limits)
    shape = tuple(reference.shape[:3])
    affine = np.asarray(reference.affine, dtype=np.float64)
    inverse: NDArray[np.float64] = np.linalg.inv(affine).astype(np.float64)
    chosen = list(_structures(source, named))
    highest = max(one.number for one in chosen)
    labels = np.zeros(shape, dtype=np.uint8 if highest < 256 else np.uint16)
    for structure in chosen:
        mask = _mask(structure, inverse, shape, source.name)
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
    return LoadedImage(labels, affine, columns, metadata)


def _structures(path: Path, named: str | None) -> Iterator[_Structure]:
    """Yield the structures with filled contours whose name is asked for."""
    try:
        with path.open("rb") as stream:
            fields = read_header(stream, Wanted.of(_WANTED)).fields
    except HeaderError as error:
        raise IngestError(f"{path.name}: damaged DICOM file ({error})") from error
    if text_of(fields, "SOPClassUID") != CONTOUR_CLASS:
        raise IngestError(f"{path.name}: not a structure set (RTSTRUCT)")
    pattern = None if named is None else compiled(named)
    names = {item.get("ROINumber"): text_of(item, "ROIName")
             for item in fields.get("StructureSetROISequence") or ()}  # fmt: skip
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
            found.append(_Structure(number, name, kinds.get(number, ""), contours))
    if not found:
        raise IngestError(
            f"{path.name}: no closed contours"
            + (f" of a structure named like {named!r}" if named is not None else "")
            + f"; the structures are {', '.join(map(repr, names.values())) or 'none'}"
        )
    yield from found


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


def _mask(
    structure: _Structure, inverse: NDArray[np.float64], shape: Sequence[int], file: str
) -> NDArray[np.bool_]:
    """Return which voxels a structure holds, shape (X, Y, Z)."""
    mask = np.zeros(tuple(shape), dtype=bool)
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
        inside = (index[:, :2] > -1).all() and (index[:, :2] < np.array(shape[:2])).all()
        if not 0 <= slice_ < shape[2] or not inside:
            raise AlignmentError(
                f"{file}: a contour of {structure.name!r} leaves the image of shape {tuple(shape)}"
            )
        toggle_polygon(mask[:, :, slice_], index[:, :2])
    return mask


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
