"""Types of columns that widen with their values: integers to floats, anything to text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from radiobject.exceptions import SchemaError
from radiobject.jsonable import MAX_EXACT_INTEGER
from radiobject.lazy import pd
from radiobject.storage.tables.columns import BLOB, TEXT, TIME, is_count, nanoseconds

_INTEGER, _FLOAT, _BOOL = np.dtype(np.int64), np.dtype(np.float64), np.dtype(bool)
_FLOAT_BITS = 1024


def widened(dtype: np.dtype, values: Sequence[Any], name: str) -> np.dtype:
    """Return the narrowest type from `dtype` upwards that holds `values` unchanged.

    Parameters
    ----------
    dtype : dtype
        The column's type: bool, a number, text or a time.
    values : sequence
        Plain values; missing ones count nothing.
    name : str
        The column, for the error.

    Raises
    ------
    SchemaError
        If a value is none that any column holds, such as a list.
    """
    if dtype == BLOB:
        return dtype
    before = dtype
    for value in values:
        if dtype == TEXT and isinstance(value, str):
            continue
        if not _is_missing(value):
            dtype = _with(dtype, value, name)
    # An integer that came before the first fraction may be too large for a float.
    crossed = before.kind in "iu" and dtype.kind == "f"
    return widened(dtype, values, name) if crossed else dtype


def _is_missing(value: Any) -> bool:
    if value is None or isinstance(value, str):
        return value is None
    if isinstance(value, int | float):
        return value != value  # NaN differs from itself
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _with(dtype: np.dtype, value: Any, name: str) -> np.dtype:
    """Return the narrowest type that holds what `dtype` holds, and `value`."""
    kind = _kind(value)
    if kind not in "biufUM" or np.ndim(value):
        raise SchemaError(
            f"column {name!r} cannot hold {value!r}, a {type(value).__name__}; "
            "give a number, a boolean, a time or text"
        )
    if dtype == TEXT or kind == "U":
        return TEXT
    if "M" in (kind, dtype.kind):
        return dtype if kind == dtype.kind and nanoseconds(value) is not None else TEXT
    if dtype.kind == "b":
        return dtype if value in (0, 1) else _with(_INTEGER, value, name)
    if dtype.kind in "iu":
        return _wider_integer(dtype, value)
    if kind in "iu" and not _exact_as_float(int(value)):
        return TEXT
    if dtype == _FLOAT:
        return dtype
    with np.errstate(over="ignore"):
        held = float(dtype.type(value))
    same = held == int(value) if is_count(value) else np.isclose(held, float(value), atol=0)
    return dtype if same else _FLOAT


def _wider_integer(dtype: np.dtype, value: Any) -> np.dtype:
    whole = float(value).is_integer() if isinstance(value, float | np.floating) else True
    if not whole:
        return _FLOAT
    for wider in (dtype, _INTEGER):
        bounds = np.iinfo(wider)
        if bounds.min <= int(value) <= bounds.max:
            return wider
    return _FLOAT if _exact_as_float(int(value)) else TEXT


def _exact_as_float(value: int) -> bool:
    if abs(value) <= MAX_EXACT_INTEGER:
        return True
    return value.bit_length() < _FLOAT_BITS and int(float(value)) == value


def _kind(value: Any) -> str:
    if hasattr(value, "isoformat") and not isinstance(value, timedelta):
        return "M"
    # An integer beyond 64 bits is an object to NumPy.
    return (
        "i"
        if isinstance(value, int) and not isinstance(value, bool)
        else (np.asarray(value).dtype.kind)
    )


def converted(values: Sequence[Any], dtype: np.dtype) -> list[Any]:
    """Return values as a column of `dtype` takes them: all as text where it holds text."""
    if dtype != TEXT:
        return list(values)
    return [None if _is_missing(value) else as_text(value) for value in values]


def as_text(value: Any) -> str:
    """Return a value as text: 2.0 is "2", a time is ISO 8601."""
    if isinstance(value, str):
        return value
    if isinstance(value, np.datetime64):
        return str(value)
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value.item() if isinstance(value, np.generic) else value)


def common_dtype(values: Sequence[Any], name: str) -> np.dtype:
    """Return the narrowest type that holds all of `values`; NaN is a float, other gaps nothing.

    Raises
    ------
    SchemaError
        As `widened`.
    """
    dtype: np.dtype | None = None
    for value in values:
        if _is_missing(value) and not isinstance(value, float):
            continue
        dtype = _first(value) if dtype is None else dtype
        dtype = _with(dtype, value, name)
    if dtype is None:
        return TEXT
    return widened(dtype, values, name) if dtype == _FLOAT else dtype


def _first(value: Any) -> np.dtype:
    return {"b": _BOOL, "i": _INTEGER, "u": _INTEGER, "f": _FLOAT, "M": TIME}.get(
        _kind(value), TEXT
    )
