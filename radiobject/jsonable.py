"""Values of tables and metadata as JSON has them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from radiobject.lazy import is_pandas_na

MAX_EXACT_INTEGER = 2**53
"""Integers up to this are exact as float64."""
_TIMES = ("m", "M")
"""Kinds of NumPy's times and durations."""


def plain(value: Any) -> Any:
    """Return `value` as JSON has it: NaN is null, a NumPy number a number, a path a string."""
    match value:
        case None | bool() | int() | str() if not isinstance(value, Enum):
            return value
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case Enum():
            return value.value
        case float():
            return value if math.isfinite(value) else None
        case datetime() | date():
            return value.isoformat() if value == value else None  # NaT differs from itself
        case Path():
            return str(value)
    if is_pandas_na(value):
        return None
    # As a list, NumPy's times would be bare numbers.
    is_time = getattr(getattr(value, "dtype", None), "kind", "") in _TIMES
    if hasattr(value, "tolist") and not is_time:
        return plain(value.tolist())
    if isinstance(value, Iterable) and getattr(value, "shape", None) != ():
        return [plain(item) for item in value]
    return None if value != value else str(value)
