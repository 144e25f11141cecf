"""Between stored columns and pandas."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from radiobject.exceptions import SchemaError
from radiobject.lazy import pd
from radiobject.storage.schema.volume_rows import AFFINE, COMPUTED_COLUMNS, SIDES, SPACING
from radiobject.storage.tables.columns import Column, storable_dtype

ComputedColumn = tuple[tuple[str, ...], Callable[["pd.DataFrame"], "pd.Series"]]
"""Stored columns that a column is computed from, and how."""


def frame_schema(df: pd.DataFrame, keys: Sequence[str]) -> dict[str, np.dtype]:
    """Return the stored type of each column of `df` but the keys."""
    schema = {}
    for name in df.columns:
        if name in keys:
            continue
        dtype: Any = df[name].dtype
        if isinstance(dtype, pd.api.extensions.ExtensionDtype):
            dtype = getattr(dtype, "numpy_dtype", None) or (
                bool if isinstance(dtype, pd.BooleanDtype) else str
            )
        elif pd.api.types.is_object_dtype(dtype):
            dtype = _object_dtype(df[name], str(name))
        schema[name] = storable_dtype(dtype, name)
    return schema


def _object_dtype(series: pd.Series, name: str) -> Any:
    kinds = {np.asarray(value).dtype.kind for value in series.dropna()}
    if kinds == {"b"}:
        return bool
    if kinds and kinds <= {"i", "u"}:
        return np.int64
    if kinds and kinds <= {"i", "u", "f"}:
        return np.float64
    if kinds <= {"U"}:
        return str
    raise SchemaError(f"column {name!r} mixes values of different kinds; convert it first")


def frame_rows(df: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the columns of `df` as lists of plain values, None where there is none."""
    missing = df.isna()
    return {
        str(name): [
            None if gone else value
            for value, gone in zip(df[name].tolist(), missing[name], strict=True)
        ]
        for name in df.columns
    }


def to_series(column: Column) -> pd.Series:
    """Return a stored column as a pandas Series; missing integers and booleans become NA."""
    values, valid = column.values, column.valid
    if valid is None or bool(valid.all()):
        return pd.Series(values)
    if values.dtype.kind in "iu":
        return pd.Series(pd.arrays.IntegerArray(values.copy(), ~valid))
    if values.dtype.kind == "b":
        return pd.Series(pd.arrays.BooleanArray(values.copy(), ~valid))
    missing: Any = {"f": np.nan, "M": np.datetime64("NaT", "ns")}.get(values.dtype.kind)
    filled = values.copy()
    filled[~valid] = missing
    return pd.Series(filled)


def plain_rows(table: Mapping[str, Column]) -> dict[str, list[Any]]:
    """Return stored columns as lists of plain values, None where there is none."""
    return {name: column.to_list() for name, column in table.items()}


def _spacing_text(frame: pd.DataFrame) -> pd.Series:
    return frame[list(SPACING)].apply(lambda row: str(tuple(float(v) for v in row)), axis=1)


def _dimensions_text(frame: pd.DataFrame) -> pd.Series:
    sides = frame[list(SIDES)].to_numpy(dtype=int)
    return pd.Series([str(tuple(s.tolist()[: 3 + bool(s[3])])) for s in sides], dtype=object)


def _affine_text(frame: pd.DataFrame) -> pd.Series:
    rows = frame[list(AFFINE)].to_numpy(dtype=float).reshape(len(frame), 3, 4).tolist()
    last = [0.0, 0.0, 0.0, 1.0]
    return pd.Series([json.dumps([*matrix, last]) for matrix in rows], dtype=object)


GEOMETRY_TEXTS: Mapping[str, ComputedColumn] = dict(
    zip(
        COMPUTED_COLUMNS,
        ((SPACING, _spacing_text), (SIDES, _dimensions_text), (AFFINE, _affine_text)),
        strict=True,
    )
)
"""Text forms of geometry, for programs that read them; the stored columns are numbers."""
