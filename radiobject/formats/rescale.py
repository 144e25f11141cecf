"""Intensity scales: applied on the way in where integers stay integers, else kept for reads."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.sampling.labels import ROUNDED_STEPS

_LARGEST_STEP = 0.1
_SAMPLED = 4096
_BYTE = np.dtype(np.uint8)


def integer_scale(slope: float, intercept: float) -> tuple[int, int] | None:
    """Return slope and intercept as integers, or None when either is not whole."""
    if not (float(slope).is_integer() and float(intercept).is_integer()) or slope == 0:
        return None
    return int(slope), int(intercept)


def scaled_range(data: NDArray[Any], slope: int, intercept: int) -> tuple[int, int]:
    """Return the exact smallest and largest value of ``data * slope + intercept``."""
    ends = (int(data.min()) * slope + intercept, int(data.max()) * slope + intercept)
    return min(ends), max(ends)


def fitting_dtype(low: int, high: int, candidates: Iterable[np.dtype]) -> np.dtype | None:
    """Return the first candidate that holds every integer from `low` to `high`."""
    for dtype in candidates:
        bounds = np.iinfo(dtype)
        if bounds.min <= low and high <= bounds.max:
            return dtype
    return None


def same_width(dtype: np.dtype) -> tuple[np.dtype, ...]:
    """Return the integer types as wide as `dtype`, itself first."""
    return (dtype, np.dtype(f"{'u' if dtype.kind == 'i' else 'i'}{dtype.itemsize}"))


def apply_integer_scale(
    data: NDArray[Any],
    slope: int,
    intercept: int,
    dtype: np.dtype,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return ``data * slope + intercept`` in `dtype`, exact where the result fits.

    `out` takes the result where it is given: an array of `dtype`, or `data` itself seen as such.
    Arithmetic wraps within `dtype`; modulo its range every step is exact, so the final values,
    which fit, are too.
    """
    bits = 8 * dtype.itemsize
    wrap = np.dtype(f"u{dtype.itemsize}")
    if out is None:
        work = data.astype(wrap, order="K")
    else:
        work = out.view(wrap)
        if not np.may_share_memory(work, data):
            np.copyto(work, data, casting="unsafe")
    if slope != 1:
        np.multiply(work, np.array(slope % (1 << bits), dtype=wrap), out=work)
    if intercept:
        np.add(work, np.array(intercept % (1 << bits), dtype=wrap), out=work)
    return work.view(dtype)


def apply_if_lossless(
    data: NDArray[Any], slope: float, intercept: float
) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Apply a scale that keeps integers of the same width exact; else hand it back.

    Parameters
    ----------
    data : ndarray
        Stored values in native byte order.
    slope, intercept : float
        ``value = stored * slope + intercept``. A slope of 0 or a value that is not finite means
        that there is no scale, as in the NIfTI standard.

    Returns
    -------
    data : ndarray
        Scaled integers, or the input itself.
    rescale : tuple of float, optional
        The scale still to be applied on read, None when there is nothing left to do.
    """
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        return data, None
    if slope == 1 and intercept == 0:
        return data, None
    whole = integer_scale(slope, intercept) if data.dtype.kind in "iu" else None
    if whole is not None:
        dtype = fitting_dtype(*scaled_range(data, *whole), same_width(data.dtype))
        if dtype is not None:
            return apply_integer_scale(data, *whole, dtype), None
    labels = _whole_values(data, slope, intercept)
    return (data, (float(slope), float(intercept))) if labels is None else (labels, None)


def _whole_values(data: NDArray[Any], slope: float, intercept: float) -> NDArray[Any] | None:
    """Return the whole numbers that a scale spread over a type; None where values have fractions.

    Programs save a mask of 0, 1 and 2 as -32768, 0 and 32767 with a slope, which read back is 0,
    0.99998 and 2. Steps far smaller than 1 that hit nothing but whole numbers are no coincidence.
    """
    if data.dtype.kind not in "iu" or data.dtype.itemsize > 2 or abs(slope) > _LARGEST_STEP:
        return None
    flat = data.reshape(-1)
    for some in (flat[:: max(1, flat.size // _SAMPLED)], flat):
        stored = np.unique(some)
        values = stored * np.float64(slope) + np.float64(intercept)
        whole = np.rint(values)
        if (np.abs(values - whole) > ROUNDED_STEPS * abs(slope)).any():
            return None
    dtype = fitting_dtype(int(whole.min()), int(whole.max()), (_BYTE, *same_width(data.dtype)))
    return None if dtype is None else whole.astype(dtype)[np.searchsorted(stored, data)]
