"""Which volume of one collection belongs to which of another: by subject and scan, never by row."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import AlignmentError, ShapeError
from radiobject.geometry.corners import SAME_PLACE_MM, corner_distance_mm
from radiobject.geometry.regrid import Regrid
from radiobject.indexing import shortened
from radiobject.ml.datasets.source import VolumeSource, VolumeTable
from radiobject.storage.ids import are_of_two_scans, scan_name

_SHOWN = 5


def pair_rows(first: VolumeTable, second: VolumeTable) -> NDArray[np.intp]:
    """Return, for each volume of `first`, the row of its partner in `second`.

    Volumes pair by subject where each subject has one in both; a subject with several scans pairs
    them by the rest of their ids (``sub-1_CT_acq-2`` with ``sub-1_seg_acq-2``). A volume that a
    selection repeats has the same partner each time, whether or not that is repeated too.

    Raises
    ------
    AlignmentError
        If the numbers or the subjects differ, or scans cannot be told apart.
    """
    here, there = _by_subject(first), _by_subject(second)
    expected, found = (sum(map(len, rows.values())) for rows in (here, there))
    if found != expected:
        raise AlignmentError(
            f"collection {second.name!r} has {found} volumes, expected {expected} as in "
            f"{first.name!r}{_difference(first, second)}"
        )
    if here.keys() != there.keys():
        raise AlignmentError(
            f"Subject mismatch between {first.name!r} and {second.name!r}"
            f"{_difference(first, second)}"
        )
    partner: dict[str, int] = {}
    apart: list[str] = []
    for subject, rows in here.items():
        others = there[subject]
        if len(rows) == len(others) == 1:
            one, other = first.obs_ids[rows[0]], second.obs_ids[others[0]]
            partner[one] = others[0]
            if are_of_two_scans(one, first.name, other, second.name):
                apart.append(f"{one!r} and {other!r}")
        else:
            partner |= _pair_scans(first, second, subject, rows, others)
    if apart:
        warnings.warn(
            f"{len(apart)} volumes of {first.name!r} and {second.name!r} pair, as each subject has "
            f"one in both, and are of two scans by their ids: {_listed(apart)}; select the volumes "
            "of one scan, unless they lie in one place all the same",
            stacklevel=2,
        )
    return np.array([partner[obs_id] for obs_id in first.obs_ids], np.intp)


def _pair_scans(
    first: VolumeTable, second: VolumeTable, subject: str, rows: list[int], others: list[int]
) -> dict[str, int]:
    here = {scan_of(first, i): i for i in rows}
    there = {scan_of(second, i): i for i in others}
    if here.keys() != there.keys() or not len(here) == len(rows) == len(others):
        raise AlignmentError(
            f"scans of subject {subject!r} cannot be paired: {first.name!r} has "
            f"{[first.obs_ids[i] for i in rows]}, {second.name!r} has "
            f"{[second.obs_ids[i] for i in others]}; ids must agree after the collection's name"
        )
    return {first.obs_ids[row]: there[scan] for scan, row in here.items()}


def scan_of(table: VolumeTable, row: int) -> str:
    """Return what tells a subject's scans apart: the id without subject and collection."""
    return scan_name(table.obs_ids[row], table.subject_ids[row], table.name)


def check_geometry(first: VolumeTable, second: VolumeTable) -> None:
    """Refuse paired volumes that do not lie on the same voxels.

    Parameters
    ----------
    first, second : VolumeTable
        Rows in the same order.

    Raises
    ------
    ShapeError
        If a pair differs in its spatial shape, or in its time points where both have them.
    AlignmentError
        If a corner of one volume lies more than `SAME_PLACE_MM` from the other's.
    """
    axes = min(first.shapes.shape[1], second.shapes.shape[1])
    differ = (first.shapes[:, :axes] != second.shapes[:, :axes]).any(axis=1)
    _refuse_shapes(first, second, differ)
    gap = corner_distance_mm(first.affines, second.affines, first.shapes)
    apart = np.flatnonzero(~(gap <= SAME_PLACE_MM)).tolist()
    if apart:
        raise AlignmentError(
            f"{first.name!r} and {second.name!r} have another geometry: "
            + _listed(
                f"{first.obs_ids[i]!r} and {second.obs_ids[i]!r} lie {gap[i]:.3g} mm apart"
                for i in apart
            )
            + "; masks are put on the image's grid with resample_masks=True; if only the headers "
            "are wrong, pass check_geometry=False"
        )


def seen_in_grid_of(first: VolumeTable, second: VolumeTable) -> VolumeTable:
    """Return the volumes of `second` as they are seen in the grids of their partners in `first`.

    Pairs that lie on the same voxels within `SAME_PLACE_MM` are left as they are.

    Parameters
    ----------
    first, second : VolumeTable
        Rows in the same order.

    Raises
    ------
    ShapeError
        If both have time and a pair differs in it.
    AlignmentError
        If an affine has no inverse.
    """
    if first.shapes.shape[1] == second.shapes.shape[1] == 4:
        _refuse_shapes(first, second, (first.shapes != second.shapes)[:, 3])
    same = (first.shapes[:, :3] == second.shapes[:, :3]).all(axis=1)
    same &= corner_distance_mm(first.affines, second.affines, first.shapes) <= SAME_PLACE_MM
    if same.all():
        return second
    regrids = [None if same[i] else _regrid(first, second, i) for i in range(len(first))]
    shapes = np.concatenate((first.shapes[:, :3], second.shapes[:, 3:]), axis=1)
    return replace(second, shapes=shapes, affines=first.affines, regrids=regrids)


def _regrid(first: VolumeTable, second: VolumeTable, row: int) -> Regrid:
    try:
        return Regrid.between(
            first.affines[row], first.shapes[row], second.affines[row], second.shapes[row]
        )
    except AlignmentError as error:
        raise AlignmentError(
            f"{second.obs_ids[row]!r} cannot be put on the grid of {first.obs_ids[row]!r}: {error}"
        ) from error


def _refuse_shapes(first: VolumeTable, second: VolumeTable, differ: NDArray[np.bool_]) -> None:
    if differ.any():
        raise ShapeError(
            f"Shape mismatch between {first.name!r} and {second.name!r}: "
            + _listed(
                f"{first.obs_ids[i]!r} {tuple(first.shapes[i].tolist())} and "
                f"{second.obs_ids[i]!r} {tuple(second.shapes[i].tolist())}"
                for i in np.flatnonzero(differ).tolist()
            )
            + "; masks of another grid are resampled with resample_masks=True"
        )


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
    """Return the rows of each subject, of a repeated volume the first."""
    first_row = {obs_id: row for row, obs_id in reversed(list(enumerate(table.obs_ids)))}
    rows: dict[str, list[int]] = defaultdict(list)
    for row in sorted(first_row.values()):
        rows[table.subject_ids[row]].append(row)
    return rows


def _difference(first: VolumeTable, second: VolumeTable) -> str:
    here, there = set(first.subject_ids), set(second.subject_ids)
    notes = [
        f"only in {name!r}: {_listed(repr(s) for s in sorted(only))}"
        for name, only in ((first.name, here - there), (second.name, there - here))
        if only
    ]
    return "; " + "; ".join(notes) if notes else ""


def _listed(items: Iterable[str]) -> str:
    return shortened(items, _SHOWN, quoted=False)
