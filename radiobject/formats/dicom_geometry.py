"""Slices to a grid: order and spacing by position along the slice normal. Pure NumPy.

DICOM states positions in LPS+ millimetres (PS3.3 C.7.6.2.1.1); everything that leaves this module
is RAS+.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import IngestError
from radiobject.geometry.orientation import LPS_TO_RAS

ORIENTATION_TOLERANCE = 1e-3
"""Largest difference of a direction cosine between slices of one volume."""

DUPLICATE_TOLERANCE = 0.02
"""Slices closer than this share of a pixel's side, along the normal, are at the same position."""

SPACING_TOLERANCE = 0.01
"""Largest relative deviation of a slice gap from the mean that is regular."""

SPACING_WARNING = 0.05
"""Up to this relative deviation slices are accepted with a warning; beyond it they are not."""

ROUNDING_MM = 0.1
"""Error of a gap whose positions were written with one decimal; worth no more than a warning."""

MISSING_RATIO = 1.5
"""A gap over this many times the median gap means that slices are missing, or the step changes."""

MULTIPLE_TOLERANCE = 0.15
"""Missing slices leave gaps that are whole multiples of the median, this far off at most."""

_RUN = 3
"""So many wide gaps in a row are another spacing, and not slices missing each time."""

TILT_TOLERANCE_DEG = 0.5
"""Largest angle between the slice normal and the line through the slice positions."""

LATERAL_TOLERANCE_MM = 0.1
"""Largest sideways distance of a slice from the line through the first and the last."""


@dataclass(frozen=True)
class SliceStack:
    """Slices in order, and the grid they make.

    Parameters
    ----------
    order : tuple of int
        Indices of the given slices, along the normal.
    affine : ndarray, shape (4, 4), float64
        (column, row, slice) index to RAS+ mm.
    warnings : tuple of str
        What is doubtful about the grid.
    assumed : bool
        True when the slice step was not measured from positions: there is one slice only.
    """

    order: tuple[int, ...]
    affine: NDArray[np.float64]
    warnings: tuple[str, ...] = ()
    assumed: bool = False


def slice_normal(orientation: Sequence[float]) -> NDArray[np.float64]:
    """Return the unit normal of a slice, LPS+, from its six direction cosines.

    Raises
    ------
    IngestError
        If the cosines are not two perpendicular unit vectors.
    """
    cosines = np.asarray(orientation, dtype=np.float64)
    if cosines.shape != (6,) or not np.isfinite(cosines).all():
        raise IngestError(f"ImageOrientationPatient must be six numbers, got {list(orientation)}")
    row, column = cosines[:3], cosines[3:]
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    off = max(float(np.abs(lengths - 1).max()), abs(float(row @ column)))
    if off > ORIENTATION_TOLERANCE:
        raise IngestError(
            f"ImageOrientationPatient {list(orientation)} is not two perpendicular unit vectors"
        )
    normal = np.cross(row, column)
    return normal / np.linalg.norm(normal)


def same_orientation(first: Sequence[float], second: Sequence[float]) -> bool:
    """Return whether two slices are parallel, within `ORIENTATION_TOLERANCE` per cosine."""
    difference = np.abs(np.asarray(first, float) - np.asarray(second, float))
    return bool(difference.max() <= ORIENTATION_TOLERANCE)


def distances_mm(
    positions: NDArray[np.float64], orientation: Sequence[float]
) -> NDArray[np.float64]:
    """Return the distance of each position, shape (n, 3), along the slice normal."""
    return np.asarray(positions, dtype=np.float64) @ slice_normal(orientation)


def duplicate_tolerance_mm(spacing_mm: Sequence[float]) -> float:
    """Return how close along the normal two slices are at one position."""
    return DUPLICATE_TOLERANCE * min(spacing_mm)


def has_duplicates(
    positions: Sequence[Sequence[float]], orientation: Sequence[float], spacing_mm: Sequence[float]
) -> bool:
    """Return whether two slices are at one position along the normal."""
    gaps = np.diff(np.sort(distances_mm(np.array(positions), orientation)))
    return bool((gaps <= duplicate_tolerance_mm(spacing_mm)).any())


def stack_slices(
    positions: NDArray[np.float64],
    orientation: Sequence[float],
    spacing_mm: tuple[float, float],
    thickness_mm: float | None = None,
    *,
    allow_tilt: bool = False,
) -> SliceStack:
    """Put slices in order and return the grid they make.

    Parameters
    ----------
    positions : ndarray, shape (n, 3)
        ImagePositionPatient of each slice, LPS+ mm, in any order.
    orientation : sequence of six float
        ImageOrientationPatient, the same for all.
    spacing_mm : tuple of float
        PixelSpacing: distance between rows, then between columns.
    thickness_mm : float, optional
        SliceThickness. Used only for a single slice, which has no distance to another.
    allow_tilt : bool
        Accept a gantry tilt; the affine is then sheared, and true.

    Returns
    -------
    SliceStack

    Raises
    ------
    IngestError
        If slices share a position, are missing, unevenly spaced, tilted or shifted sideways; the
        message says where.
    """
    points = np.asarray(positions, dtype=np.float64)
    if points.ndim != 2 or points.shape[1:] != (3,) or not np.isfinite(points).all():
        raise IngestError("ImagePositionPatient must be three finite numbers in every slice")
    if not all(math.isfinite(step) and step > 0 for step in spacing_mm):
        raise IngestError(f"PixelSpacing must be positive, got {spacing_mm}")
    normal = slice_normal(orientation)
    along = points @ normal
    order = np.argsort(along, kind="stable")
    points, along = points[order], along[order]
    if len(points) == 1:
        step, warnings = _assumed_step(normal, thickness_mm)
        assumed = True
    else:
        warnings = _check_gaps(np.diff(along), order, duplicate_tolerance_mm(spacing_mm))
        step = (points[-1] - points[0]) / (len(points) - 1)
        warnings += _check_line(points, step, normal, allow_tilt)
        assumed = False
    affine = np.eye(4)
    affine[:3, 0] = np.asarray(orientation[:3], float) * spacing_mm[1]
    affine[:3, 1] = np.asarray(orientation[3:], float) * spacing_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = points[0]
    return SliceStack(tuple(int(i) for i in order), LPS_TO_RAS @ affine, warnings, assumed)


def _assumed_step(
    normal: NDArray[np.float64], thickness_mm: float | None
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    if thickness_mm is not None and math.isfinite(thickness_mm) and thickness_mm > 0:
        return normal * thickness_mm, (
            f"a single slice: its step of {thickness_mm:g} mm is SliceThickness, not measured",
        )
    return normal, ("a single slice without SliceThickness: a step of 1 mm is assumed",)


def _check_gaps(
    gaps: NDArray[np.float64], order: NDArray[np.intp], closest_mm: float
) -> tuple[str, ...]:
    """Refuse gaps that make no grid; return warnings about those that nearly do."""
    closest = int(np.argmin(gaps))
    if gaps[closest] <= closest_mm:
        raise IngestError(
            f"slices {int(order[closest])} and {int(order[closest + 1])} are at the same position"
        )
    median, mean = float(np.median(gaps)), float(gaps.mean())
    widest = int(np.argmax(gaps))
    if gaps[widest] > MISSING_RATIO * median:
        raise IngestError(_wide_gap(gaps, median, widest))
    uneven_mm = float(np.abs(gaps - mean).max())
    text = f"slice gaps run from {gaps.min():.3f} to {gaps.max():.3f} mm around {mean:.3f} mm"
    if uneven_mm > max(SPACING_WARNING * mean, ROUNDING_MM):
        raise IngestError(f"{text}: not evenly spaced; resample the series to an even grid first")
    return (f"{text}; an even spacing is stored",) if uneven_mm > SPACING_TOLERANCE * mean else ()


def _wide_gap(gaps: NDArray[np.float64], median: float, widest: int) -> str:
    """Return what a wide gap is: slices missing, or another spacing from there on."""
    wide = gaps > MISSING_RATIO * median
    ratios = gaps[wide] / median
    whole = bool((np.abs(ratios - np.rint(ratios)) <= MULTIPLE_TOLERANCE).all())
    run = max(map(len, "".join("x" if one else " " for one in wide).split()))
    if whole and run < _RUN:
        missing = int((np.rint(ratios) - 1).sum())
        return (
            f"a gap of {gaps[widest]:.3f} mm behind slice {widest + 1} of {len(gaps) + 1}, where "
            f"the spacing is {median:.3f} mm: {missing} missing in all; find the files, or take "
            "the parts as series of their own"
        )
    first = int(np.argmax(wide))
    return (
        f"the spacing changes behind slice {first + 1} of {len(gaps) + 1}, from {median:.3f} to "
        f"{gaps[first]:.3f} mm: not evenly spaced; split the series there, or resample it to an "
        "even grid first"
    )


def _check_line(
    points: NDArray[np.float64],
    step: NDArray[np.float64],
    normal: NDArray[np.float64],
    allow_tilt: bool,
) -> tuple[str, ...]:
    """Refuse slices that are not stacked along their normal; return warnings."""
    line = points[0] + np.arange(len(points))[:, None] * step
    offsets = points - line
    sideways = np.linalg.norm(offsets - np.outer(offsets @ normal, normal), axis=1)
    worst = int(np.argmax(sideways))
    if sideways[worst] > LATERAL_TOLERANCE_MM:
        raise IngestError(
            f"slice {worst + 1} of {len(points)} is {sideways[worst]:.2f} mm beside the line "
            "through the others: the slices do not form one grid"
        )
    along = float(step @ normal)
    drift_mm = float(np.linalg.norm(step - along * normal))
    tilt = math.degrees(math.atan2(drift_mm, along))
    if tilt <= TILT_TOLERANCE_DEG or drift_mm * (len(points) - 1) <= LATERAL_TOLERANCE_MM:
        return ()
    if not allow_tilt:
        raise IngestError(
            f"slices are stacked at {tilt:.1f} degrees to their normal (gantry tilt); resample "
            "the series to a right-angled grid, or pass allow_tilt=True to keep a sheared affine"
        )
    return (f"gantry tilt of {tilt:.1f} degrees: the affine is sheared",)
