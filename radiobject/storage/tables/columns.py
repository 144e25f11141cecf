"""The columns of tables: which types they have, and their values in libtiledb's buffers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from numbers import Integral, Rational
from typing import Any

import numpy as np
import numpy.typing as npt
import tiledb
import tiledb.libtiledb as lt

from radiobject.ctx import get_tiledb_ctx
from radiobject.exceptions import SchemaError
from radiobject.jsonable import MAX_EXACT_INTEGER
from radiobject.lazy import pd

TEXT = np.dtype("U")
BLOB = np.dtype("S")
"""Column of raw bytes, never filtered on."""

TIME = np.dtype("datetime64[ns]")
_ZONED = re.compile(r"[T ].*[Zz+-]")
_EPOCH = np.datetime64(0, "ns")
_LONGEST_NS = 2**63 - 1
_TIMES = (np.datetime64, np.timedelta64)


@dataclass(frozen=True)
class Column:
    """Values of one column, and which of them are there."""

    values: np.ndarray
    valid: npt.NDArray[np.bool_] | None = None

    def take(self, rows: npt.NDArray[np.intp]) -> Column:
        """Return the chosen rows, in that order."""
        valid = None if self.valid is None else self.valid[rows]
        return Column(self.values[rows], valid)

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which values are there."""
        return np.ones(len(self.values), dtype=bool) if self.valid is None else self.valid

    def filled(self, missing: Any) -> np.ndarray:
        """Return the values with `missing` where there is none."""
        return self.values if self.valid is None else np.where(self.valid, self.values, missing)

    def to_list(self) -> list[Any]:
        """Return plain values, None where there is none."""
        # tolist() would turn times into bare integers.
        listed = list(self.values) if self.values.dtype.kind == "M" else self.values.tolist()
        if self.valid is None:
            return listed
        return [v if there else None for v, there in zip(listed, self.valid, strict=True)]


def storable_dtype(dtype: Any, name: str) -> np.dtype:
    """Return the stored type of a column declared as `dtype`.

    Raises
    ------
    TypeError
        If no column can have it.
    """
    if dtype in (str, "str", "string"):
        return TEXT
    if dtype in (bytes, "blob"):
        return BLOB
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"column {name!r} cannot have the type {dtype!r}: {error}") from error
    if found.kind in "UO":
        return TEXT
    if found.kind == "M":
        return TIME
    if found.kind in "biuf" and found.itemsize <= 8 and found != np.float16:
        return found.newbyteorder("=")
    if found.kind == "S":
        return BLOB
    raise TypeError(f"column {name!r} cannot have the type {found}; use a number, bool or string")


def attribute_of(name: str, dtype: np.dtype) -> tiledb.Attr:
    """Return the attribute that stores a column."""
    ctx = get_tiledb_ctx()
    filters = tiledb.FilterList([tiledb.ZstdFilter(level=3, ctx=ctx)], ctx=ctx)
    if dtype == TEXT:
        return tiledb.Attr(name=name, dtype="U", var=True, nullable=True, filters=filters, ctx=ctx)
    if dtype == BLOB:
        return tiledb.Attr(
            name=name, dtype="blob", var=True, nullable=False, filters=filters, ctx=ctx
        )
    return tiledb.Attr(name=name, dtype=dtype, nullable=True, filters=filters, ctx=ctx)


def column_dtype(attribute: tiledb.Attr) -> np.dtype:
    """Return the type of the column that an attribute stores."""
    dtype = np.dtype(attribute.dtype)
    if dtype.kind == "U":
        return TEXT
    return BLOB if dtype.kind in "SV" else dtype


def value_column(found: np.ndarray, dtype: np.dtype) -> Column:
    """Return what libtiledb read of an attribute as a column."""
    if dtype.kind in "SV":
        values = np.empty(len(found), dtype=object)
        values[:] = [bytes(item) for item in found]
        return Column(values)
    if isinstance(found, np.ma.MaskedArray):
        values, valid = found.data, ~np.ma.getmaskarray(found)
    else:
        values, valid = found, np.ones(len(found), dtype=bool)
    if dtype.kind == "M":
        values = values.astype("int64", copy=False).view(TIME)
    return Column(np.asarray(values), valid)


def set_attribute(
    query: lt.Query, attribute: tiledb.Attr, dtype: np.dtype, values: Any, alive: list[Any]
) -> None:
    """Give a query the values of an attribute; `alive` keeps its buffers until it is done."""
    name = attribute.name
    if attribute.isvar:
        present = ~np.asarray(pd.isna(as_objects(values)), dtype=bool)
        texts = [
            _as_text(v, dtype, name) if p else "" for v, p in zip(values, present, strict=True)
        ]
        validity = present.astype(np.uint8) if attribute.isnullable else None
        set_variable(query, name, texts, validity, alive)
        return
    present, data = _fixed(values, dtype, name)
    alive.append(data)
    query.set_data_buffer(name, data, np.uint64(data.size))
    if attribute.isnullable:
        validity = present.astype(np.uint8)
        alive.append(validity)
        query.set_validity_buffer(name, validity, validity.size)


def as_objects(values: Any) -> np.ndarray:
    """Return a sequence as an object array, whatever its items are."""
    listed = list(values)
    array = np.empty(len(listed), dtype=object)
    array[:] = listed
    return array


def _fixed(
    values: Any, dtype: np.dtype, name: str
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[Any]]:
    typed = isinstance(values, np.ndarray) and values.dtype.kind in "biufM"
    listed = values.copy() if typed else as_objects(values)
    present = ~np.asarray(pd.isna(listed), dtype=bool)
    if dtype.kind == "M":
        return present, _times(listed, present, name)
    kinds = {listed.dtype.type} if typed else {type(value) for value in listed}
    if not kinds.isdisjoint(_TIMES):
        raise SchemaError(
            f"column {name!r} of type {dtype} cannot hold a time; declare it as one or as "
            "text, or give the number of seconds, days or years that is meant"
        )
    listed[~present] = 0
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            data = np.ascontiguousarray(listed, dtype=dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise SchemaError(f"column {name!r} cannot hold its values as {dtype}: {error}") from error
    wrong = _altered(listed, data)
    if wrong.size:
        raise _would_change(name, dtype, listed[wrong[0]])
    return present, data


def _would_change(name: str, dtype: np.dtype, value: Any) -> SchemaError:
    return SchemaError(
        f"column {name!r} of type {dtype} cannot hold {value!r} unchanged; "
        "declare the column with a wider type, or as text"
    )


def _times(
    listed: npt.NDArray[Any], present: npt.NDArray[np.bool_], name: str
) -> npt.NDArray[np.datetime64]:
    """Return values as times; each is what it was, or the first that cannot be is refused."""
    if listed.dtype == TIME:
        return np.where(present, listed, _EPOCH)
    data = np.zeros(len(listed), np.int64)
    for at in np.flatnonzero(present):
        value = listed[at]
        # An integer is nanoseconds.
        plain = isinstance(value, Integral) and not isinstance(value, bool | np.timedelta64)
        found = int(value) if plain else nanoseconds(value)
        if found is None or abs(found) > _LONGEST_NS:
            raise _would_change(name, TIME, value)
        data[at] = found
    return data.view(TIME)


def nanoseconds(value: Any) -> int | None:
    """Return how many nanoseconds after 1970 a time or its text is, None if a column cannot say it.

    That is one beyond the reach of 64 bits, one with a fraction of a nanosecond, and one of a time
    zone: a column holds no zones, and among times without any its moment would be another.
    """
    if getattr(value, "tzinfo", None) is not None:
        return None
    if isinstance(value, str) and _ZONED.search(value):  # NumPy would make it one of Greenwich
        return None
    if isinstance(value, pd.Timestamp):
        value = value.to_datetime64()
    try:
        if isinstance(value, date | str):
            value = np.datetime64(value)
        if not isinstance(value, np.datetime64):
            return None
        found = value.astype(TIME)
        # What is out of reach comes back as another year.
        same = bool(found.astype(value.dtype) == value)
    except (ValueError, OverflowError):
        return None
    return int(found.astype(np.int64)) if same else None


def _altered(listed: npt.NDArray[Any], data: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return which values became others; fractions may be rounded, whole numbers not."""
    is_float = data.dtype.kind == "f"
    bits = np.finfo(data.dtype if is_float else np.float64).nmant + 1
    # From there on NumPy calls integers equal to the floats beside them.
    far = (data >= 2.0**bits) | (data <= -(2.0**bits))
    wrong = np.zeros(len(data), bool) if is_float else data != listed
    for at in np.flatnonzero(far & ~wrong):
        wrong[at] = not _is_same(listed[at], data[at])
    return np.flatnonzero(wrong)


def _is_same(value: Any, stored: np.generic) -> bool:
    if stored.dtype.kind == "f" and not is_count(value):
        return bool(np.isfinite(stored)) or not np.isfinite(float(value))
    try:
        return int(value) == int(stored)
    except (ValueError, OverflowError):
        return False


def is_count(value: Any) -> bool:
    """Return whether a number is whole, so that no unit of it may be lost.

    Beyond 2**53 a float is a measure: it has no units itself.
    """
    if isinstance(value, float | np.floating):
        return float(value).is_integer() and abs(float(value)) <= MAX_EXACT_INTEGER
    if isinstance(value, Decimal):
        return value.is_finite() and value == value.to_integral_value()
    return isinstance(value, Rational) and value.denominator == 1


def _as_text(value: Any, dtype: np.dtype, name: str) -> str | bytes:
    if isinstance(value, bytes if dtype == BLOB else str):
        return value
    expected = "bytes" if dtype == BLOB else "strings"
    raise SchemaError(f"column {name!r} holds {expected}, got {type(value).__name__} {value!r}")


def set_variable(
    query: lt.Query,
    name: str,
    values: list[str | bytes],
    validity: np.ndarray | None,
    alive: list[Any],
) -> None:
    """Give a query values of any length; see `set_attribute`."""
    raw = [value if isinstance(value, bytes) else value.encode() for value in values]
    offsets = np.zeros(len(raw), dtype=np.uint64)
    np.cumsum([len(item) for item in raw[:-1]], out=offsets[1:])
    joined = b"".join(raw)
    data = np.frombuffer(joined or b"\0", dtype=np.uint8).copy()
    alive += [data, offsets]
    query.set_data_buffer(name, data, np.uint64(len(joined)))
    query.set_offsets_buffer(name, offsets, offsets.size)
    if validity is not None:
        alive.append(validity)
        query.set_validity_buffer(name, validity, validity.size)
