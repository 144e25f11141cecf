"""Voxels with a place become a `LoadedImage`: what every reader beside NIfTI and DICOM ends in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import IngestError, ShapeError
from radiobject.formats.guards import Limits
from radiobject.formats.image import LoadedImage, Scalar
from radiobject.formats.metadata import infer_series_type
from radiobject.formats.nifti_header import check_dtype
from radiobject.formats.readers import stem_of
from radiobject.formats.source import SourceFile, read_file
from radiobject.geometry.orientation import (
    MAX_SPACING_MM,
    OrientationInfo,
    OrientationSource,
    axis_codes,
    orientation_info_to_metadata,
    reorient_to_canonical,
    spacing_mm,
)


def checked_affine(name: str, affine: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return a (4, 4) affine that places voxels somewhere, in float64.

    Raises
    ------
    IngestError
        If it is not finite, not invertible, or has voxels of more than a kilometre.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    try:
        axis_codes(matrix)
    except (ShapeError, ValueError, np.linalg.LinAlgError) as error:
        raise IngestError(f"{name}: its header places voxels nowhere: {error}") from error
    if max(spacing_mm(matrix)) > MAX_SPACING_MM:
        raise IngestError(f"{name}: its header has voxels of {max(spacing_mm(matrix)):g} mm")
    return matrix


def placed_image(
    path: Path,
    data: NDArray[Any],
    affine: NDArray[np.floating],
    origin: OrientationSource,
    source: SourceFile,
    *,
    reorient: str | None,
    metadata: Mapping[str, Scalar] | None = None,
    warnings: Sequence[str] = (),
) -> LoadedImage:
    """Return the volume of voxels that know where they lie.

    Parameters
    ----------
    path : Path
        The file, for its name.
    data : ndarray, shape (X, Y, Z) or (X, Y, Z, T)
        Voxels in any byte order.
    affine : ndarray, shape (4, 4)
        Voxel index to RAS+ mm.
    origin : str
        Where the affine stands.
    source : SourceFile
        The bytes that all this was read from.
    reorient : str, optional
        Axis codes to turn the axes to.
    metadata : mapping, optional
        What the volume carries beside.
    warnings : sequence of str
        What was doubtful.

    Raises
    ------
    IngestError
        If the voxels are no real numbers, or the affine places them nowhere.
    """
    name = path.name
    check_dtype(name, data.dtype)
    matrix, original = checked_affine(name, affine), None
    voxels = data.astype(data.dtype.newbyteorder("="), copy=False)
    if reorient is not None:
        original = matrix
        voxels, matrix = reorient_to_canonical(voxels, matrix, reorient)
    info = OrientationInfo.from_affine(matrix, origin, "header")
    columns: dict[str, Scalar] = {"series_type": infer_series_type(stem_of(path))}
    columns |= source.columns()
    kept: dict[str, Scalar] = dict(orientation_info_to_metadata(info, original))
    return LoadedImage(voxels, matrix, columns, kept | dict(metadata or {}), None, tuple(warnings))


def source_of(path: Path, parts: Sequence[Path], limits: Limits) -> SourceFile:
    """Return the provenance of an image of one or several files, each read once."""
    files = [SourceFile.of_bytes(part.name, read_file(part, limits)) for part in parts]
    return files[0] if len(files) == 1 else SourceFile.of_many(path.name, files)


def beside(header: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """Return the files beside a header that it names.

    Raises
    ------
    IngestError
        If one is named by a path that leaves the header's folder, or is not there.
    """
    found = []
    for name in names:
        place = header.parent / name
        if Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name:
            raise IngestError(f"{header.name}: its voxels are in {name!r}, outside of its folder")
        if not place.is_file():
            raise IngestError(f"{header.name}: its voxels are in {name!r}, which is not there")
        found.append(place)
    return tuple(found)
