"""A NIfTI header, read and checked once: layout of the voxels, scale, geometry, kept fields."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import IngestError, ShapeError
from radiobject.formats.engines import nifti1, nifti2
from radiobject.formats.guards import DEFAULT_LIMITS, Limits, is_archive
from radiobject.formats.gzip_stream import GZIP_MAGIC, gunzip_head
from radiobject.formats.metadata import NiftiMetadata
from radiobject.formats.surfaces import doubt_of_surface, why_surface
from radiobject.geometry.orientation import (
    OrientationSource,
    affine_to_list,
    axis_codes,
    nifti_geometry,
    spacing_mm,
)

_HOPELESS = 40

FORMS_TOLERANCE_MM = 0.1
"""A qform that puts a voxel farther than this from where the sform does is worth a warning."""

HEADER_BYTES = 540
"""A NIfTI-2 header; a NIfTI-1 header has 348."""

NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz")

_DAMAGED = (ValueError, ArithmeticError, np.linalg.LinAlgError)
"""What NumPy, and nibabel beside its own error, raise over numbers that no header should hold."""

_UNITS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
_SINGLE, _PAIR = (b"n+1", b"n+2"), (b"ni1", b"ni2")

# Numbers only: the text fields (descrip, db_name, aux_file, intent_name) may hold a patient's name.
_KEPT_FIELDS = (
    "dim_info", "intent_p1", "intent_p2", "intent_p3", "intent_code", "pixdim", "slice_start",
    "slice_end", "slice_code", "slice_duration", "toffset", "cal_max", "cal_min", "xyzt_units",
    "scl_slope", "scl_inter", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip

TEXT_FIELDS = ("descrip", "aux_file", "intent_name", "db_name")
"""Text of the header, kept only when asked for by name."""


@dataclass(frozen=True)
class NiftiLayout:
    """Where the voxels of a NIfTI file are and what they mean.

    Parameters
    ----------
    name : str
        File name without its folder.
    header : nibabel.Nifti1Header
        As parsed, in the byte order of the file.
    version : int
        1 or 2.
    shape : tuple of int
        (X, Y, Z) or (X, Y, Z, T): axes of one voxel beyond the third are dropped.
    dtype : numpy.dtype
        Type in the file, with its byte order.
    offset : int
        First byte of the voxels in their file.
    affine : ndarray, shape (4, 4), float64
        Voxel index to RAS+ mm.
    source : str
        Which header field the affine came from.
    mended : tuple of str
        What was wrong with the header, and put right.
    """

    name: str
    header: Any
    version: int
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    affine: NDArray[np.float64]
    source: OrientationSource
    mended: tuple[str, ...] = ()

    @property
    def voxel_bytes(self) -> int:
        """Bytes of the voxels in the file."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def scale(self) -> tuple[float, float]:
        """(slope, intercept); (1, 0) when the header states none: a slope of 0 or not finite."""
        slope, intercept = float(self.header["scl_slope"]), float(self.header["scl_inter"])
        if slope == 0 or not np.isfinite(slope):
            return 1.0, 0.0
        if not np.isfinite(intercept):
            raise IngestError(
                f"{self.name}: scl_slope is {slope:g} but scl_inter is {intercept}; "
                "the intensity scale cannot be known: repair the header"
            )
        return slope, intercept

    def fields(self) -> dict[str, Any]:
        """Return what the header says beside the grid, by obs column."""
        header, (slope, intercept) = self.header, self.scale
        units = int(header["xyzt_units"])
        return {
            "datatype": int(header["datatype"]),
            "bitpix": int(header["bitpix"]),
            "scl_slope": slope,
            "scl_inter": intercept,
            "xyzt_units": units,
            "spatial_units": _UNITS.get(units & 7, "unknown"),
            "qform_code": int(header["qform_code"]),
            "sform_code": int(header["sform_code"]),
            "orientation_source": self.source,
            "source_path": self.name,
        }

    def columns(self) -> NiftiMetadata:
        """Return the header's obs columns, with the grid that the file states."""
        return NiftiMetadata(
            voxel_spacing=str(spacing_mm(self.affine)),
            dimensions=str(self.shape),
            axcodes="".join(axis_codes(self.affine)),
            affine_json=json.dumps(affine_to_list(self.affine)),
            **self.fields(),
        )

    def warnings(self) -> tuple[str, ...]:
        """Return what is doubtful about where the voxels are, a sentence each."""
        sform, qform = int(self.header["sform_code"]), int(self.header["qform_code"])
        found = [*self.mended, *doubt_of_surface(self.shape)]
        if self.source == "identity":
            found.append("neither sform nor qform; left and right are assumed, not known")
        elif self.source == "nifti_qform" and sform > 0:
            found.append("its sform has a code but cannot be inverted; the qform is used")
        elif self.source == "nifti_sform" and sform == qform:
            apart = self._qform_distance()
            if apart > FORMS_TOLERANCE_MM:
                found.append(f"sform and qform are {apart:.3g} mm apart; the sform is used")
        return tuple(f"{self.name}: {text}" for text in found)

    def _qform_distance(self) -> float:
        """Return how far the qform puts a corner voxel from its place by the sform, in mm."""
        bare = self.header.copy()
        bare["sform_code"] = 0
        other, source = nifti_geometry(bare)
        if source != "nifti_qform":
            return 0.0
        last = np.array(self.shape[:3]) - 1
        corners = np.array([[*(np.array(i) * last), 1] for i in np.ndindex(2, 2, 2)])
        return float(np.linalg.norm(corners @ (other - self.affine).T, axis=1).max())

    def kept_fields(self) -> str:
        """Return the header's numbers as JSON, for an export that restores them."""
        fields: dict[str, Any] = {
            name: np.asarray(self.header[name]).tolist() for name in _KEPT_FIELDS
        }
        fields["dim"] = [int(side) for side in self.header["dim"]]
        return json.dumps(fields)


def is_nifti(path: Path) -> bool:
    """Return whether the file name is that of a NIfTI file or of one of a pair."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def pair_paths(path: Path) -> tuple[Path, Path]:
    """Return the header file and the voxel file of `path`; for ``.nii`` they are the same."""
    name = path.name
    for ending, other, is_header in ((".hdr", ".img", True), (".img", ".hdr", False)):
        for packed in ("", ".gz"):
            if not name.lower().endswith(ending + packed):
                continue
            stem = name[: -len(ending + packed)]
            # Both are in capitals where a program of old wrote one so.
            endings = [other + zipped for zipped in (packed, "" if packed else ".gz")]
            endings += [one.upper() for one in endings]
            candidates = (path.with_name(stem + one) for one in endings)
            partner = next((one for one in candidates if one.is_file()), None)
            if partner is None:
                raise IngestError(f"{name}: half of a pair; {stem}{other} is not beside it")
            return (path, partner) if is_header else (partner, path)
    return path, path


def parse_header(path: Path, head: bytes, limits: Limits = DEFAULT_LIMITS) -> NiftiLayout:
    """Check the first bytes of a NIfTI file and return what they say.

    Parameters
    ----------
    path : Path
        The header's file, for its name.
    head : bytes
        At least the header, decompressed: `HEADER_BYTES`, or the whole file if shorter.
    limits : Limits
        What the header may declare.

    Raises
    ------
    IngestError
        If this is not NIfTI (Analyze included), the volume is not 3-D or 4-D, its voxels are not
        real numbers, or it is over a limit.
    """
    version, paired = _flavour(path.name, head)
    kind = {
        (1, False): nifti1.Nifti1Header,
        (1, True): nifti1.Nifti1PairHeader,
        (2, False): nifti2.Nifti2Header,
        (2, True): nifti2.Nifti2PairHeader,
    }[version, paired]
    try:
        header = kind(head[: kind.template_dtype.itemsize], check=False)
        mended = _mend(header)
        shape = tuple(int(side) for side in header.get_data_shape())
        dtype = header.get_data_dtype()
    except (nifti1.HeaderDataError, *_DAMAGED) as error:
        raise IngestError(f"{path.name}: damaged NIfTI header ({error})") from error
    why = why_surface(path.name, header, shape)
    if why:
        raise IngestError(f"{path.name}: {why}")
    shape = _volume_shape(path.name, shape)
    check_dtype(path.name, dtype)
    limits.check_volume(path.name, shape, dtype.itemsize)
    stated = float(header["vox_offset"])
    offset = int(stated) if np.isfinite(stated) else -1
    smallest = 0 if paired else kind.template_dtype.itemsize
    if not smallest <= offset <= limits.max_bytes:
        raise IngestError(f"{path.name}: vox_offset {stated:g} is not behind the header")
    affine, source = _geometry(path.name, header)
    return NiftiLayout(path.name, header, version, shape, dtype, offset, affine, source, mended)


class _Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _mend(header: Any) -> tuple[str, ...]:
    """Let nibabel mend what can be mended in a header; return what it says of it."""
    # A logger of this one header: what is said belongs to its file, and is printed nowhere.
    logger, kept = logging.Logger(__name__), _Kept()
    logger.addHandler(kept)
    header.check_fix(logger=logger, error_level=_HOPELESS)
    return tuple(kept.lines)


def _geometry(name: str, header: Any) -> tuple[NDArray[np.float64], OrientationSource]:
    try:
        affine, source = nifti_geometry(header)
        axis_codes(affine)
    except (ShapeError, nifti1.HeaderDataError, *_DAMAGED) as error:
        raise IngestError(f"{name}: its header places voxels nowhere: {error}") from error
    return affine, source


def read_header(path: Path, limits: Limits = DEFAULT_LIMITS) -> NiftiLayout:
    """Return the layout of a NIfTI file from its first bytes; the voxels are not touched.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        As `parse_header`, or if the name is not that of a NIfTI file.
    """
    header_path, _ = located(path)
    with header_path.open("rb") as stream:
        head = stream.read(1 << 16)
    return parse_header(header_path, unpacked_head(header_path.name, head), limits)


def located(path: Path) -> tuple[Path, Path]:
    """Return the header and voxel files of an existing NIfTI file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If the name is that of an archive or of no NIfTI file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    if is_archive(path):
        raise IngestError(f"{path.name}: archives are not opened; unpack it first")
    if not is_nifti(path):
        raise IngestError(
            f"{path.name}: not a NIfTI name; expected one of {', '.join(NIFTI_SUFFIXES)}"
        )
    return pair_paths(path)


def unpacked_head(name: str, head: bytes) -> bytes:
    """Return the start of a file, decompressed when it is gzip by its first bytes."""
    return gunzip_head(name, head, HEADER_BYTES) if head.startswith(GZIP_MAGIC) else head


def _flavour(name: str, head: bytes) -> tuple[int, bool]:
    """Return the NIfTI version and whether header and voxels are two files."""
    if len(head) < 348:
        raise IngestError(f"{name}: {len(head)} bytes are too short for a NIfTI header")
    for version, magic in ((1, head[344:347]), (2, head[4:7])):
        known = (_SINGLE[version - 1], _PAIR[version - 1])
        if magic in known:
            if version == 2 and len(head) < HEADER_BYTES:
                raise IngestError(f"{name}: {len(head)} bytes are too short for a NIfTI-2 header")
            return version, magic == known[1]
    if head[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c"):
        raise IngestError(
            f"{name}: an Analyze 7.5 header, which does not say where left and right are; "
            f"if you know (here: its axes point left, front and up), say it: {_analyze(name)}"
        )
    raise IngestError(f"{name}: not a NIfTI file (no magic n+1, ni1, n+2 or ni2)")


def _analyze(name: str) -> str:
    stem = name[: name.lower().rfind(".")]
    return (
        f"python -c \"import nibabel as n, numpy as np; i = n.load('{name}'); "
        "n.save(n.Nifti1Image(np.asarray(i.dataobj), np.diag([-1, 1, 1, 1]) * "
        f"[*i.header.get_zooms()[:3], 1]), '{stem}.nii.gz')\""
    )


def _volume_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return (X, Y, Z) or (X, Y, Z, T), or refuse; a vector of ITK, (X, Y, Z, 1, C), has no T."""
    kept = shape[:3] + shape[4:] if len(shape) == 5 and shape[3] == 1 else shape
    while len(kept) > 3 and kept[-1] == 1:
        kept = kept[:-1]
    if len(kept) < 3:
        raise IngestError(f"{name}: a {len(kept)}-D image of shape {shape} is not a volume")
    if len(kept) > 4:
        raise IngestError(
            f"{name}: a {len(kept)}-D image of shape {shape}; only 3-D and 4-D can be stored: "
            "split the vector or tensor components into volumes of their own"
        )
    return kept


def check_dtype(name: str, dtype: np.dtype) -> None:
    """Refuse voxels that are no real numbers of at most 64 bits, with an `IngestError`."""
    if dtype.fields is not None:
        raise IngestError(
            f"{name}: colour voxels (RGB) have no intensity; split the channels into volumes"
        )
    if dtype.kind == "c":
        raise IngestError(
            f"{name}: complex voxels ({dtype.name}) cannot be stored; "
            "save magnitude and phase as two volumes"
        )
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise IngestError(
            f"{name}: voxels of type {dtype.name} cannot be stored; "
            "convert them to float64 or to an integer type first"
        )
