"""What users hand in, transforms, attribute values, labels, and by which columns it is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ForwardRef, TypeAlias

import numpy as np

from radiobject.lazy import pd as pd

if TYPE_CHECKING:
    from pandas import DataFrame, Series
else:
    # Looked up in this module by who asks for the types that a function declares.
    DataFrame = ForwardRef("pd.DataFrame", module=__name__)
    Series = ForwardRef("pd.Series", module=__name__)

OBS_ID = "obs_id"
SUBJECT_ID = "obs_subject_id"
OBS_IDS = "obs_ids"
"""System column of obs_meta: JSON list of the subject's volume ids, sorted."""

AttrValue: TypeAlias = int | float | bool | str
TransformResult: TypeAlias = Any
TransformFn: TypeAlias = Callable[[np.ndarray, Series], TransformResult]
"""``fn(volume, obs_row)`` gives an array, or an array and new column values."""
BatchTransformFn: TypeAlias = Callable[[list[tuple[np.ndarray, Series]]], list[TransformResult]]
LabelSource: TypeAlias = str | DataFrame | Mapping[str, Any] | Callable[[str], Any] | None


def normalize_transform_result(result: TransformResult) -> tuple[Any, dict[str, AttrValue]]:
    """Return what a transform gave as a value and column updates."""
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping):
        return result[0], dict(result[1])
    return result, {}
