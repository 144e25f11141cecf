"""NIfTI out: a volume is streamed to a file slab by slab, and the file appears only when whole."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.formats.engines import nifti1, nifti2
from radiobject.formats.nifti_gradients import (
    axis_of,
    file_affine,
    set_time_step,
    write_gradients,
)
from radiobject.geometry.orientation import (
    COSINE_TOLERANCE,
    MM_PER_UNIT,
    axis_codes,
    nifti_geometry,
)
from radiobject.geometry.rescale import RESCALE_KEYS
from radiobject.system.files import written_whole

_NIFTI1_MAX_SIDE = 32767
_SLAB_BYTES = 4 << 20
_AFFINE_TOLERANCE = 1e-6
_SCANNER, _ALIGNED = 1, 2
_VECTORS = range(1004, 1011)
"""Intents of several values a voxel: matrices, displacements, vectors, points, quaternions."""
_MM = 2

# Fields that name a voxel axis or a slice number: wrong once the axes have moved.
_AXIS_FIELDS = ("dim_info", "slice_start", "slice_end", "slice_code", "slice_duration")
_PLAIN_FIELDS = (
    "intent_p1", "intent_p2", "intent_p3", "intent_code", "toffset", "cal_max", "cal_min",
)  # fmt: skip
_GEOMETRY_FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
    "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip


def save_nifti(
    path: str | Path,
    blocks: NDArray[Any] | Iterable[NDArray[Any]],
    shape: Sequence[int],
    dtype: DTypeLike,
    affine: NDArray[np.floating],
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write a volume as one NIfTI file.

    Parameters
    ----------
    path : path-like
        Ends in ``.nii`` (not compressed) or ``.nii.gz``. An existing file is replaced, at the very
        end, in one step.
    blocks : ndarray or iterable of ndarray
        The voxels as stored: the whole volume, or slabs (X, Y, n) in the order of the file, all Z
        of the first time point before the second. A slab may also be (X, Y, Z, n). Only one is
        held at a time.
    shape : sequence of int
        (X, Y, Z) or (X, Y, Z, T) of the whole volume.
    dtype : dtype-like
        Type of the voxels. bool is written as uint8 and float16 as float32, which NIfTI has.
    affine : ndarray, shape (4, 4)
        Voxel index to RAS+ mm.
    metadata : mapping, optional
        The volume array's metadata. Header fields of the file it was read from are restored; the
        geometry fields bit by bit, unless the affine or the shape is no longer theirs.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ConfigurationError
        If the name ends otherwise, or NIfTI has no such type.
    ShapeError
        If the volume is not 3-D or 4-D, or the blocks do not add up to it.
    """
    target = Path(path)
    if not target.name.lower().endswith((".nii", ".nii.gz")):
        raise ConfigurationError(f"{target.name}: a NIfTI file's name ends in .nii or .nii.gz")
    sides = tuple(int(side) for side in shape)
    if len(sides) not in (3, 4):
        raise ShapeError(f"only 3-D and 4-D volumes can be written as NIfTI, got shape {sides}")
    written_as = _file_dtype(np.dtype(dtype))
    header = export_header(sides, written_as, affine, metadata or {})
    with _replacing(target) as raw, _packed(target, raw) as stream:
        stream.write(header.binaryblock + bytes(4))
        _write_voxels(stream, _slabs(blocks), sides, written_as)
    write_gradients(target, axis_of(metadata or {}, sides), affine)
    return target


def export_header(
    shape: tuple[int, ...],
    dtype: np.dtype,
    affine: NDArray[np.floating],
    metadata: Mapping[str, Any],
) -> Any:
    """Return the nibabel header of a volume, with what `metadata` remembers of its file."""
    kept: dict[str, Any] = json.loads(metadata.get("nifti_fields", "{}"))
    file_shape = _file_shape(shape, kept)
    second = int(metadata.get("nifti_version", 1)) == 2 or max(shape) > _NIFTI1_MAX_SIDE
    header = nifti2.Nifti2Header() if second else nifti1.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(file_shape)
    header["vox_offset"] = header.template_dtype.itemsize + 4
    header["xyzt_units"] = kept.get("xyzt_units", metadata.get("nifti_xyzt_units", _MM))
    _set_scale(header, kept, metadata)
    for name in _PLAIN_FIELDS:
        if name in kept:
            header[name] = kept[name]
    if int(header["intent_code"]) in _VECTORS and len(file_shape) < kept["dim"][0]:
        header["intent_code"] = 0
    if "pixdim" in kept:
        header["pixdim"][4:] = kept["pixdim"][4:]
    else:
        set_time_step(header, axis_of(metadata, shape))
    matrix = np.asarray(affine, dtype=np.float64)
    if not _restore_geometry(header, kept, matrix, file_shape):
        _set_geometry(header, matrix, metadata)
    if _same_axes(kept, matrix, metadata):
        for name in _AXIS_FIELDS:
            header[name] = kept[name]
    return header


def _file_dtype(dtype: np.dtype) -> np.dtype:
    native = dtype.newbyteorder("=")
    if native.kind == "b":
        return np.dtype(np.uint8)
    if native == np.float16:
        return np.dtype(np.float32)
    if native.kind not in "iuf" or native.itemsize > 8:
        raise ConfigurationError(f"NIfTI has no voxel type for {dtype}")
    return native


def _file_shape(shape: tuple[int, ...], kept: Mapping[str, Any]) -> tuple[int, ...]:
    """Return `shape` with the axes of one voxel that the file had behind those of space."""
    dim = kept.get("dim")
    if dim is None:
        return shape
    behind = tuple(dim[4 : dim[0] + 1])
    plain = [side for side in behind if side != 1]
    same = plain == [side for side in shape[3:] if side != 1]
    return (*shape[:3], *behind) if same else shape


def _set_scale(header: Any, kept: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """State the scale that is still to be applied to the voxels; none in the file's own words."""
    slope, intercept = (
        float(metadata.get(key, default))
        for key, default in zip(RESCALE_KEYS, (1.0, 0.0), strict=True)
    )
    stated = kept.get("scl_slope", 1.0)
    if RESCALE_KEYS[0] not in metadata and (stated == 0 or not np.isfinite(stated)):
        slope, intercept = stated, kept["scl_inter"]
    header["scl_slope"], header["scl_inter"] = slope, intercept


def _restore_geometry(
    header: Any, kept: Mapping[str, Any], affine: NDArray[np.float64], shape: tuple[int, ...]
) -> bool:
    """Restore the file's own geometry fields if they still describe the volume."""
    if "srow_x" not in kept or tuple(kept["dim"][1:4]) != shape[:3]:
        return False
    trial = header.copy()
    trial["pixdim"][:4] = kept["pixdim"][:4]
    for name in _GEOMETRY_FIELDS:
        trial[name] = kept[name]
    stated, _ = nifti_geometry(trial)
    if not np.allclose(stated, affine, rtol=_AFFINE_TOLERANCE, atol=_AFFINE_TOLERANCE):
        return False
    header["pixdim"][:4] = kept["pixdim"][:4]
    for name in _GEOMETRY_FIELDS:
        header[name] = kept[name]
    return True


def _set_geometry(header: Any, affine: NDArray[np.float64], metadata: Mapping[str, Any]) -> None:
    """State `affine` as sform and, where a quaternion can hold it, as qform.

    The codes of the file are kept, so that "aligned to a template" stays so; a volume that came
    from DICOM is in scanner coordinates; of any other it is only known that it is aligned.
    """
    in_units = affine.copy()
    in_units[:3] /= MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    from_scanner = metadata.get("orientation_source") == "dicom_iop"
    fallback = _SCANNER if from_scanner else _ALIGNED
    sform = int(metadata.get("nifti_sform_code", 0))
    qform = int(metadata.get("nifti_qform_code", 0))
    code = sform or qform or fallback
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    shear = float(np.abs(directions.T @ directions - np.eye(3)).max())
    header.set_sform(in_units, code=code)
    header.set_qform(in_units, code=(qform or code) if shear <= COSINE_TOLERANCE else 0)


def _same_axes(
    kept: Mapping[str, Any], affine: NDArray[np.float64], metadata: Mapping[str, Any]
) -> bool:
    """Return whether the voxel axes still are the file's own."""
    if not all(name in kept for name in _AXIS_FIELDS):
        return False
    before = file_affine(metadata)
    return before is None or axis_codes(before) == axis_codes(affine)


def _slabs(blocks: NDArray[Any] | Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Yield slabs (X, Y, n) in file order, each small enough to turn over in the cache."""
    for block in (blocks,) if isinstance(blocks, np.ndarray) else blocks:
        if block.ndim not in (3, 4):
            raise ShapeError(f"a block is (X, Y, n) or (X, Y, Z, n), got shape {block.shape}")
        volumes = [block] if block.ndim == 3 else [block[..., t] for t in range(block.shape[3])]
        for volume in volumes:
            plane = max(volume.shape[0] * volume.shape[1] * volume.itemsize, 1)
            step = max(_SLAB_BYTES // plane, 1)
            for first in range(0, volume.shape[2], step):
                yield volume[:, :, first : first + step]


def _write_voxels(
    stream: BinaryIO, slabs: Iterator[NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype
) -> None:
    expected = int(np.prod(shape[2:], dtype=np.int64))
    planes = 0
    for slab in slabs:
        if slab.shape[:2] != shape[:2]:
            raise ShapeError(f"a block of shape {slab.shape} does not fit a volume of {shape}")
        if not np.can_cast(slab.dtype, dtype, casting="safe"):
            raise ShapeError(f"a block of type {slab.dtype} does not fit a file of type {dtype}")
        planes += slab.shape[2]
        stream.write(np.ascontiguousarray(slab.T, dtype=dtype).data.cast("B"))
    if planes != expected:
        raise ShapeError(f"the blocks hold {planes} planes, a volume of {shape} has {expected}")


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    """Yield a new file beside `target` that takes its name when all went well."""
    with written_whole(target) as unfinished, unfinished.open("xb") as stream:
        yield stream


@contextmanager
def _packed(target: Path, raw: BinaryIO) -> Iterator[BinaryIO]:
    """Yield `raw`, or a gzip stream over it without a name or a time, when `target` asks for it."""
    if not target.name.lower().endswith(".gz"):
        yield raw
        return
    try:
        from isal import igzip

        stream: Any = igzip.IGzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
    except ImportError:
        stream = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0)
    with stream:
        yield cast(BinaryIO, stream)
