"""Which volume of one collection belongs to which of another: by subject and scan, never by row."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import AlignmentError, ShapeError
from radiobject.ml.source import VolumeSource, VolumeTable

GEOMETRY_TOLERANCE_MM = 0.05
"""How far apart the same corner of two paired volumes may lie."""

_SHOWN = 5
_ACQUISITION = re.compile(r"_acq-(?P<number>.+)$")


def pair_rows(first: VolumeTable, second: VolumeTable) -> NDArray[np.intp]:
    """Return, for each volume of `first`, the row of its partner in `second`.

    Volumes pair by subject where each subject has one in both; a subject with several scans pairs
    them by the rest of their ids (``sub-1_CT_acq-2`` with ``sub-1_seg_acq-2``).

    Raises
    ------
    AlignmentError
        If the numbers or the subjects differ, or scans cannot be told apart.
    """
    if len(first) != len(second):
        raise AlignmentError(
            f"collection {second.name!r} has {len(second)} volumes, expected {len(first)} as in "
            f"{first.name!r}{_difference(first, second)}"
        )
    if set(first.subject_ids) != set(second.subject_ids):
        raise AlignmentError(
            f"Subject mismatch between {first.name!r} and {second.name!r}"
            f"{_difference(first, second)}"
        )
    here, there = _by_subject(first), _by_subject(second)
    partner = np.empty(len(first), np.intp)
    for subject, rows in here.items():
        others = there[subject]
        if len(rows) == len(others) == 1:
            partner[rows[0]] = others[0]
        else:
            _pair_scans(first, second, subject, (rows, others), partner)
    return partner


def _pair_scans(
    first: VolumeTable,
    second: VolumeTable,
    subject: str,
    rows: tuple[list[int], list[int]],
    partner: NDArray[np.intp],
) -> None:
    here = {scan_of(first, i): i for i in rows[0]}
    there = {scan_of(second, i): i for i in rows[1]}
    if len(here) < len(rows[0]) or set(here) != set(there) or len(rows[0]) != len(rows[1]):
        raise AlignmentError(
            f"scans of subject {subject!r} cannot be paired: {first.name!r} has "
            f"{[first.obs_ids[i] for i in rows[0]]}, {second.name!r} has "
            f"{[second.obs_ids[i] for i in rows[1]]}; ids must agree after the collection's name"
        )
    for scan, row in here.items():
        partner[row] = there[scan]


def scan_of(table: VolumeTable, row: int) -> str:
    """Return what tells a subject's scans apart: the id without subject and collection."""
    obs_id = table.obs_ids[row]
    prefix = f"{table.subject_ids[row]}_{table.name}"
    if obs_id.startswith(prefix):
        return obs_id[len(prefix) :]
    found = _ACQUISITION.search(obs_id)
    return found.group(0) if found else obs_id.replace(table.name, "")


def check_geometry(first: VolumeTable, second: VolumeTable) -> None:
    """Refuse paired volumes that do not lie on the same voxels.

    Parameters
    ----------
    first, second : VolumeTable
        Rows in the same order.

    Raises
    ------
    ShapeError
        If a pair differs in its spatial shape.
    AlignmentError
        If a corner of one volume lies more than `GEOMETRY_TOLERANCE_MM` from the other's.
    """
    differ = (first.shapes[:, :3] != second.shapes[:, :3]).any(axis=1)
    if differ.any():
        raise ShapeError(
            f"Shape mismatch between {first.name!r} and {second.name!r}: "
            + _listed(
                f"{first.obs_ids[i]!r} {tuple(first.shapes[i])} and {second.obs_ids[i]!r} "
                f"{tuple(second.shapes[i])}"
                for i in np.flatnonzero(differ)
            )
        )
    gap = corner_distance_mm(first.affines, second.affines, first.shapes)
    apart = np.flatnonzero(~(gap <= GEOMETRY_TOLERANCE_MM))
    if apart.size:
        raise AlignmentError(
            f"{first.name!r} and {second.name!r} have another geometry: "
            + _listed(
                f"{first.obs_ids[i]!r} and {second.obs_ids[i]!r} lie {gap[i]:.3g} mm apart"
                for i in apart
            )
            + "; resample one onto the other, or pass check_geometry=False if the headers are wrong"
        )


def corner_distance_mm(
    a: NDArray[np.float64], b: NDArray[np.float64], shapes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the largest distance, over the eight corners, between paired volumes, shape (n,)."""
    unit = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(8, 3)
    corners = unit[None] * (shapes[:, None, :3] - 1)
    homogeneous = np.concatenate((corners, np.ones((*corners.shape[:2], 1))), axis=-1)
    apart = np.einsum("nij,ncj->nci", (a - b)[:, :3], homogeneous)
    return np.linalg.norm(apart, axis=-1).max(axis=1)


def check_one_split(sources: Sequence[VolumeSource], *, across_splits: bool) -> None:
    """Refuse volumes whose subjects belong to more than one part of the stored split.

    Raises
    ------
    AlignmentError
        Unless `across_splits`.
    """
    if across_splits:
        return
    parts: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        if hasattr(source, "subject_splits"):
            assigned = source.subject_splits()
            for subject in set(source.subject_ids):
                if subject in assigned:
                    parts[assigned[subject]].add(subject)
    if len(parts) > 1:
        found = {part: len(subjects) for part, subjects in sorted(parts.items())}
        raise AlignmentError(
            f"the volumes span several parts of the split (subjects per part: {found}); take one, "
            "as radi.splits['train'].CT, or pass across_splits=True"
        )


def _by_subject(table: VolumeTable) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, subject in enumerate(table.subject_ids):
        rows[subject].append(row)
    return rows


def _difference(first: VolumeTable, second: VolumeTable) -> str:
    here, there = set(first.subject_ids), set(second.subject_ids)
    notes = [
        f"only in {name!r}: {_listed(repr(s) for s in sorted(only))}"
        for name, only in ((first.name, here - there), (second.name, there - here))
        if only
    ]
    return "; " + "; ".join(notes) if notes else ""


def _listed(items: object) -> str:
    shown = list(items)  # type: ignore[call-overload]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
