"""Rows and columns of the tables that a run writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from radiobject.storage.io import layout
from radiobject.storage.schema import collection as stored
from radiobject.storage.schema import volume_rows
from radiobject.storage.schema.volume_rows import SYSTEM_COLUMNS, VolumeRecord


def stacked(parts: Sequence[Mapping[str, list]]) -> dict[str, list]:
    """Return rows given in parts as one, None where a part has no such column."""
    names = dict.fromkeys(name for part in parts for name in part)
    counts = [len(part[layout.SUBJECT_ID]) for part in parts]
    return {
        name: [
            value
            for part, count in zip(parts, counts, strict=True)
            for value in part.get(name, [None] * count)
        ]
        for name in names
    }


def columns_with_values(records: Sequence[VolumeRecord]) -> dict[str, np.dtype]:
    """Return the columns with a value that a table of these volumes has beside its own."""
    return {
        name: stored.inferred_dtype(values, name)
        for name, values in volume_rows.columns_of(records).items()
        if name not in stored.OBS_KEYS
        and name not in SYSTEM_COLUMNS
        and not name.startswith("_")
        and any(value is not None for value in values)
    }
