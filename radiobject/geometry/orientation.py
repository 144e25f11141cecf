"""Where a volume's axes point: affines, axis codes and reorientation without resampling.

An affine here is always a (4, 4) float64 matrix from voxel index to RAS+ millimetres: the first
world axis grows to the patient's right, the second to the front, the third to the head.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import ConfigurationError, IngestError, ShapeError

Confidence = Literal["header", "inferred", "unknown"]
OrientationSource = Literal[
    "nifti_sform", "nifti_qform", "dicom_iop", "nrrd_space", "metaimage", "mgh_ras",
    "ome_orientation", "stated", "identity",
]  # fmt: skip

COSINE_TOLERANCE = 1e-3
"""Largest cosine between two voxel axes that still count as perpendicular."""

DETERMINANT_RANGE = (1e-6, 1e6)
"""Plausible volumes of one voxel in mm^3; outside it the header is damaged."""

MAX_SPACING_MM = 1e6
"""A form with larger voxels is damaged."""

MAX_QUATERNION_LENGTH = 1.001
"""A quaternion of a qform up to this long was a unit one before it was rounded."""

_QUATERNION = ("quatern_b", "quatern_c", "quatern_d")
WORLD_LETTERS = ("LR", "PA", "IS")
"""The letters of the two directions of each axis of the world, the negative one first."""

MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 1e-3}
"""Length of the unit that the low bits of a NIfTI header's xyzt_units name."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From the patient's axes of DICOM to those of NIfTI and of this library."""


ORIGINAL_AFFINE = "original_affine"
"""Key of a volume's metadata: the affine of its file, where the axes were moved since."""


@dataclass(frozen=True)
class OrientationInfo:
    """What a header says about a volume's axes.

    Parameters
    ----------
    axcodes : tuple of str
        Where each voxel axis points to: one of L/R, P/A, I/S per axis.
    affine : list of list of float
        The (4, 4) affine, voxel index to RAS+ mm.
    is_canonical : bool
        True when the axes are R, A, S in this order.
    confidence : {"header", "inferred", "unknown"}
        "header" when the file states the geometry, "inferred" when a part of it was missing,
        "unknown" when it states none.
    source : str
        Which part of the header the affine was taken from: "nifti_sform", "nifti_qform",
        "dicom_iop", "nrrd_space", "metaimage", "mgh_ras", "ome_orientation"; "stated" where a file
        beside an array says it, "identity" where nothing does.
    """

    axcodes: tuple[str, str, str]
    affine: list[list[float]]
    is_canonical: bool
    confidence: Confidence
    source: OrientationSource

    @classmethod
    def from_affine(
        cls, affine: NDArray[np.floating], source: OrientationSource, confidence: Confidence
    ) -> OrientationInfo:
        """Return the description of `affine`, shape (4, 4)."""
        codes = axis_codes(affine)
        return cls(codes, affine_to_list(affine), codes == ("R", "A", "S"), confidence, source)


def affine_to_list(affine: NDArray[np.floating]) -> list[list[float]]:
    """Return a (4, 4) affine as nested lists, for JSON."""
    return [[float(value) for value in row] for row in np.asarray(affine, dtype=np.float64)]


def spacing_mm(affine: NDArray[np.floating]) -> tuple[float, float, float]:
    """Return the distance in mm between neighbouring voxels along each voxel axis."""
    x, y, z = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return float(x), float(y), float(z)


def axis_directions(affine: NDArray[np.floating]) -> tuple[tuple[int, int], ...]:
    """Return, per voxel axis, the world axis it runs along and the sign of that run.

    The axis whose direction is clearest is assigned first, so two voxel axes never share one
    world axis. Shear is removed first (nearest rotation, by singular value decomposition).

    Raises
    ------
    ShapeError
        If the affine is not a finite (4, 4) matrix with three independent axes.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ShapeError(f"an affine is a finite (4, 4) matrix, got\n{matrix}")
    return _directions(matrix.tobytes())


# One volume's affine is looked at several times, and all volumes of a grid have the same.
@lru_cache(maxsize=256)
def _directions(content: bytes) -> tuple[tuple[int, int], ...]:
    matrix = np.frombuffer(content).reshape(4, 4)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    if not spacing.all() or np.linalg.matrix_rank(matrix[:3, :3] / spacing) < 3:
        raise ShapeError(f"an affine needs three independent voxel axes, got\n{matrix}")
    left, _, right = np.linalg.svd(matrix[:3, :3] / spacing)
    cosines = left @ right
    free = np.abs(cosines)
    chosen: dict[int, tuple[int, int]] = {}
    for _ in range(3):
        world, voxel = np.unravel_index(int(np.argmax(free)), free.shape)
        chosen[int(voxel)] = (int(world), 1 if cosines[world, voxel] > 0 else -1)
        free[world, :] = -1.0
        free[:, voxel] = -1.0
    return tuple(chosen[axis] for axis in range(3))


def axis_codes(affine: NDArray[np.floating]) -> tuple[str, str, str]:
    """Return where each voxel axis points, as in ("R", "A", "S")."""
    x, y, z = (WORLD_LETTERS[world][sign > 0] for world, sign in axis_directions(affine))
    return x, y, z


def parse_axis_codes(target: str) -> tuple[tuple[int, int], ...]:
    """Return the world axis and sign of each letter of `target`, such as "RAS" or "LPS".

    Raises
    ------
    ConfigurationError
        If `target` does not name each of the three body axes once.
    """
    directions = [
        (world, 1 if letter == pair[1] else -1)
        for letter in target
        for world, pair in enumerate(WORLD_LETTERS)
        if letter in pair
    ]
    if len(target) != 3 or sorted(world for world, _ in directions) != [0, 1, 2]:
        raise ConfigurationError(
            f"orientation target {target!r} must name one of L/R, one of P/A and one of I/S, "
            'for example "RAS" or "LPS"'
        )
    return tuple(directions)


def reorient_to_canonical(
    data: NDArray[Any], affine: NDArray[np.floating], target: str = "RAS"
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Permute and flip the voxel axes so that they point to `target`; no voxel is resampled.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z) or (X, Y, Z, T)
        Voxels; only the first three axes move.
    affine : ndarray, shape (4, 4)
        Voxel index to RAS+ mm.
    target : str
        Where the axes shall point, such as "RAS", "LAS" or "LPS".

    Returns
    -------
    data : ndarray
        A view of the input.
    affine : ndarray, shape (4, 4), float64
        Voxel index of the returned array to the same RAS+ mm.

    Raises
    ------
    ConfigurationError
        If `target` is not a set of axis codes.
    ShapeError
        If `data` has fewer than three axes or the affine is not invertible.
    """
    if data.ndim < 3:
        raise ShapeError(f"only a volume can be reoriented, got shape {data.shape}")
    wanted = parse_axis_codes(target)
    present = axis_directions(affine)
    old_axis = {world: axis for axis, (world, _) in enumerate(present)}
    order = [old_axis[world] for world, _ in wanted]
    step = np.zeros((4, 4))
    step[3, 3] = 1.0
    slices: list[slice] = [slice(None)] * 3
    for new, (world, sign) in enumerate(wanted):
        old = old_axis[world]
        flipped = present[old][1] != sign
        step[old, new] = -1.0 if flipped else 1.0
        step[old, 3] = data.shape[old] - 1 if flipped else 0.0
        slices[new] = slice(None, None, -1) if flipped else slice(None)
    moved = data.transpose(*order, *range(3, data.ndim))
    return moved[tuple(slices)], np.asarray(affine, dtype=np.float64) @ step


def nifti_geometry(header: Any) -> tuple[NDArray[np.float64], OrientationSource]:
    """Return the affine a NIfTI header states, in RAS+ mm, and which field it came from.

    The sform is used if it has a code, else the qform, else the voxel sizes alone, in the
    placement that nibabel gives such files. A coded form that cannot be inverted is passed over.
    Units of metres or micrometres are converted.

    Parameters
    ----------
    header : nibabel.Nifti1Header
        Or any header with its ``get_sform``, ``get_qform`` and ``get_base_affine``.
    """
    for source, coded_form in (("nifti_sform", header.get_sform), ("nifti_qform", _qform(header))):
        with np.errstate(invalid="ignore"):
            # A damaged header may hold a signalling NaN; it is no number, and passed over below.
            matrix, code = coded_form(coded=True)
        if matrix is not None and code > 0 and _invertible(matrix):
            return _in_mm(matrix, header), source  # type: ignore[return-value]
    return _in_mm(header.get_base_affine(), header), "identity"


def _qform(header: Any) -> Any:
    """Return a ``get_qform`` that mends a quaternion a little too long, and passes over others."""

    def get(coded: bool) -> tuple[NDArray[np.floating] | None, int]:
        quaternion = np.array([float(header[name]) for name in _QUATERNION])
        # NIfTI stores three of the four parts of a unit quaternion: their squares cannot add up
        # to more than one. Rounding makes them, and niftilib and ITK then normalise.
        length = float(np.linalg.norm(quaternion))
        if not length <= MAX_QUATERNION_LENGTH:
            return None, 0
        if length <= 1.0:
            return header.get_qform(coded=coded)
        mended = header.copy()
        for name, part in zip(_QUATERNION, quaternion / length, strict=True):
            mended[name] = part
        return mended.get_qform(coded=coded)

    return get


def _invertible(matrix: NDArray[np.floating]) -> bool:
    if not np.isfinite(matrix).all():
        return False
    with np.errstate(over="ignore"):
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    if not spacing.all() or spacing.max() > MAX_SPACING_MM:
        return False
    return bool(np.linalg.matrix_rank(matrix[:3, :3] / spacing) == 3)


def _in_mm(matrix: NDArray[np.floating], header: Any) -> NDArray[np.float64]:
    affine = np.array(matrix, dtype=np.float64)
    affine[:3] *= MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    return affine


def detect_nifti_orientation(img: Any) -> OrientationInfo:
    """Return the orientation of a nibabel NIfTI image.

    Raises
    ------
    IngestError
        If `img` has no NIfTI header.
    """
    header = getattr(img, "header", None)
    if not hasattr(header, "get_sform"):
        raise IngestError(f"expected a nibabel NIfTI image, got {type(img).__name__}")
    affine, source = nifti_geometry(header)
    confidence: Confidence = "unknown" if source == "identity" else "header"
    return OrientationInfo.from_affine(affine, source, confidence)


def is_orientation_valid(info: OrientationInfo) -> bool:
    """Return whether the affine comes from a header and describes a plausible grid."""
    affine = np.asarray(info.affine, dtype=np.float64)
    if info.source == "identity" or affine.shape != (4, 4) or not np.isfinite(affine).all():
        return False
    low, high = DETERMINANT_RANGE
    if not low < abs(float(np.linalg.det(affine[:3, :3]))) < high:
        return False
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = directions.T @ directions - np.eye(3)
    return bool(np.abs(cosines).max() <= COSINE_TOLERANCE)


def orientation_info_to_metadata(
    info: OrientationInfo, original_affine: NDArray[np.floating] | None = None
) -> dict[str, str]:
    """Return `info` as array metadata; `original_affine` is the file's, before a reorientation."""
    metadata = {
        "orientation_axcodes": "".join(info.axcodes),
        "orientation_affine": json.dumps(info.affine),
        "orientation_source": info.source,
        "orientation_confidence": info.confidence,
    }
    if original_affine is not None:
        metadata[ORIGINAL_AFFINE] = json.dumps(affine_to_list(original_affine))
    return metadata


def metadata_to_orientation_info(metadata: Mapping[str, Any]) -> OrientationInfo | None:
    """Return the orientation kept in array metadata, or None where there is none."""
    codes = metadata.get("orientation_axcodes")
    text = metadata.get("orientation_affine")
    if not codes or not text:
        return None
    x, y, z = list(str(codes))
    return OrientationInfo(
        axcodes=(x, y, z),
        affine=json.loads(text),
        is_canonical=(x, y, z) == ("R", "A", "S"),
        confidence=metadata.get("orientation_confidence", "unknown"),
        source=metadata.get("orientation_source", "identity"),
    )
