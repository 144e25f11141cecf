"""Tables joined without a change of their values.

pandas makes floats of integers and of booleans where a row has none: an identifier above 2^53 would
become another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from radiobject.lazy import pd

_NULLABLE = frozenset(
    ["boolean", *(f"{sign}Int{size}" for sign in ("", "U") for size in (8, 16, 32, 64))]
)


def outer_join(left: pd.DataFrame, right: pd.DataFrame, on: str) -> pd.DataFrame:
    """Return the rows of both tables, those of one key as one; types stay, with gaps or without."""
    return _settled(_with_gaps(left).merge(_with_gaps(right), how="outer", on=on))


def concatenated(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of tables one after the other; a column that one lacks is missing there."""
    return _settled(pd.concat([_with_gaps(table) for table in tables], ignore_index=True))


def _with_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose integers and booleans may be missing and remain such."""
    kinds = {name: _nullable(kind) for name, kind in table.dtypes.items()}
    return table.astype({name: kind for name, kind in kinds.items() if kind is not None})


def _settled(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns without a gap are NumPy's again."""
    plain = {
        name: kind.numpy_dtype
        for name, kind in table.dtypes.items()
        if str(kind) in _NULLABLE and table[name].notna().all()
    }
    return table.astype(plain)


def _nullable(kind: Any) -> Any:
    if not isinstance(kind, np.dtype) or kind.kind not in "biu":
        return None
    return (
        "boolean" if kind.kind == "b" else kind.name.replace("uint", "UInt").replace("int", "Int")
    )
