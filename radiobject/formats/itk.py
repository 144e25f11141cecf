"""Voxels by SimpleITK, once a header of ours has said where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from radiobject.exceptions import IngestError
from radiobject.formats.engines import sitk


def read_voxels(path: Path, reader: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the voxels of a file.

    Parameters
    ----------
    path : Path
        The file, or the header of several.
    reader : str
        Which of ITK's readers, such as "NrrdImageIO".
    shape : tuple of int
        (X, Y, Z) or (X, Y, Z, C) that the header has.

    Raises
    ------
    IngestError
        If SimpleITK cannot read it, or finds another shape.
    """
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        image = sitk.ReadImage(str(path), imageIO=reader)
    except RuntimeError as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise IngestError(f"{path.name}: {said[-1] if said else error}") from error
    array: NDArray[Any] = sitk.GetArrayFromImage(image)
    # ITK's arrays have the slowest axis first, and the components of a voxel last.
    axes = image.GetDimension()
    data = array.transpose(*reversed(range(axes)), *range(axes, array.ndim))
    # What the axes behind those of space have of one voxel only is no axis.
    data = data.reshape((*data.shape[:3], *(side for side in data.shape[3:] if side != 1)))
    if data.shape != shape:
        raise IngestError(f"{path.name}: voxels of shape {data.shape}, the header has {shape}")
    return data
