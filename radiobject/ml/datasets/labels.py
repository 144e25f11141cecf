"""Labels of volumes, from whatever holds them, complete before the first batch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from radiobject._types import OBS_ID, SUBJECT_ID, LabelSource
from radiobject.exceptions import AlignmentError, SchemaError
from radiobject.indexing import shortened
from radiobject.lazy import is_dataframe, is_pandas_na, pd

_SHOWN = 10


class LabelledRows(Protocol):
    """What labels are looked up in: a `VolumeSource`, or rows of several."""

    @property
    def obs_ids(self) -> list[str]:
        """Ids of the volumes, in order."""
        ...

    @property
    def subject_ids(self) -> list[str]:
        """Subject of each volume."""
        ...

    def to_obs(self) -> pd.DataFrame:
        """Return the rows of the volumes."""
        ...


Labels = torch.Tensor | list[Any]
"""One label for each volume."""


def load_labels(source: LabelledRows, labels: LabelSource) -> dict[str, Any] | None:
    """Return the label of every volume of a source by obs_id, or None without labels.

    Parameters
    ----------
    source : VolumeSource
        The collection whose volumes are labelled.
    labels
        A column of ``obs``, or of ``obs_meta`` where the collection knows its data set; a
        DataFrame with `obs_id` or `obs_subject_id` as a column or the index, whose first other
        column is the label; a mapping keyed by volume id or subject id; or a function of the
        volume id.

    Raises
    ------
    SchemaError
        If the column is not there, or the table has no key or no label column.
    AlignmentError
        If volumes have no label, or a missing value; the ids are listed.
    """
    if labels is None:
        return None
    ids, subjects = list(source.obs_ids), list(source.subject_ids)
    if callable(labels):
        found = {obs_id: labels(obs_id) for obs_id in ids}
    else:
        keyed = _column(source, labels) if isinstance(labels, str) else _keyed(labels)
        found = {
            obs_id: keyed[obs_id] if obs_id in keyed else keyed.get(subject)
            for obs_id, subject in zip(ids, subjects, strict=True)
        }
    missing = [obs_id for obs_id, value in found.items() if _absent(value)]
    if missing:
        raise AlignmentError(
            f"{len(missing)} of {len(ids)} volumes have no label: {shortened(missing, _SHOWN)}; "
            "add them, or leave these volumes out with a filter"
        )
    return found


def labels_of(
    source: LabelledRows, labels: LabelSource | Sequence[str], obs_ids: list[str]
) -> Labels | dict[str, Labels] | None:
    """Return the labels in the order of `obs_ids`: of several columns by their names.

    Parameters
    ----------
    source : VolumeSource
        The collection whose volumes are labelled.
    labels
        As in `load_labels`, or a list of columns.
    obs_ids : list of str
        The volumes that a label is wanted for, in this order.

    Raises
    ------
    SchemaError, AlignmentError
        As in `load_labels`.
    """
    if isinstance(labels, str | Mapping) or labels is None or callable(labels):
        return label_values(load_labels(source, labels), obs_ids)
    if is_dataframe(labels):
        return label_values(load_labels(source, labels), obs_ids)
    columns: list[Any] = list(labels)
    if not columns or not all(isinstance(c, str) for c in columns):
        raise SchemaError(f"several labels are a list of column names, got {labels!r:.80}")
    if len(set(columns)) < len(columns):
        raise SchemaError(f"labels {columns} name a column twice")
    found = {column: label_values(load_labels(source, column), obs_ids) for column in columns}
    return {column: values for column, values in found.items() if values is not None}


def label_values(
    labels: Mapping[str, Any] | None, obs_ids: list[str]
) -> torch.Tensor | list | None:
    """Return the labels in the order of `obs_ids`: a tensor of numbers (int64, float32 or bool),
    else a list as given."""
    if labels is None:
        return None
    values = [labels[obs_id] for obs_id in obs_ids]
    if all(isinstance(v, bool | np.bool_) for v in values):
        return torch.tensor([bool(v) for v in values])
    if all(isinstance(v, int | np.integer) for v in values):
        return torch.tensor([int(v) for v in values], dtype=torch.int64)
    if all(isinstance(v, int | float | np.integer | np.floating) for v in values):
        return torch.tensor([float(v) for v in values], dtype=torch.float32)
    return values


def _column(source: LabelledRows, name: str) -> Mapping[str, Any]:
    obs = source.to_obs()
    if name in obs.columns:
        return dict(zip(obs[OBS_ID].astype(str), obs[name], strict=True))
    subjects = _subject_rows(source)
    if subjects is not None and name in subjects.columns:
        return dict(zip(subjects[SUBJECT_ID].astype(str), subjects[name], strict=True))
    known = [c for c in obs.columns if c not in (OBS_ID, SUBJECT_ID)]
    if subjects is not None:
        known += [c for c in subjects.columns if c != SUBJECT_ID]
    raise SchemaError(f"Label column {name!r} not found; columns are {known}")


def _subject_rows(source: LabelledRows) -> pd.DataFrame | None:
    """Return the table of subjects of the data set that a collection belongs to, if to any."""
    rows: pd.DataFrame = (
        source.subject_rows() if hasattr(source, "subject_rows") else pd.DataFrame()
    )
    return rows if SUBJECT_ID in rows.columns else None


def _keyed(labels: pd.DataFrame | Mapping[str, Any]) -> Mapping[str, Any]:
    if not is_dataframe(labels):
        if not isinstance(labels, Mapping):
            raise SchemaError(
                "labels must be a column name, a DataFrame, a mapping or a function, "
                f"got {type(labels).__name__}"
            )
        return labels
    for key in (OBS_ID, SUBJECT_ID):
        if key in labels.columns or labels.index.name == key:
            table = labels if labels.index.name == key else labels.set_index(key)
            break
    else:
        raise SchemaError(
            f"a label table needs {OBS_ID!r} or {SUBJECT_ID!r} as a column or the index, "
            f"got columns {list(labels.columns)}"
        )
    values = [c for c in table.columns if c not in (OBS_ID, SUBJECT_ID)]
    if not values:
        raise SchemaError("a label table needs a column beside its ids")
    if len(values) > 1:
        warnings.warn(
            f"the label table has the columns {values}; the first, {values[0]!r}, is the label and "
            "the others are not delivered",
            stacklevel=5,
        )
    twice = table.index[table.index.duplicated()].unique()
    if len(twice):
        raise AlignmentError(f"the label table has several rows for {list(twice[:_SHOWN])}")
    return dict(zip(table.index.astype(str), table[values[0]], strict=True))


def _absent(value: Any) -> bool:
    return (
        value is None
        or is_pandas_na(value)
        or (isinstance(value, float | np.floating) and np.isnan(value))
    )
