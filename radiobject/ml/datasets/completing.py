"""Scans that lack a modality or a mask: their rows, and what stands in place of a volume."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject._types import OBS_ID, SUBJECT_ID
from radiobject.exceptions import AlignmentError
from radiobject.indexing import shortened
from radiobject.lazy import pd
from radiobject.ml.datasets.pairing import scan_of
from radiobject.ml.datasets.source import VolumeSource, VolumeTable

_SHOWN = 5
_Scan = tuple[str, str]
"""Subject, and what tells its scans apart."""


def completed(tables: Sequence[VolumeTable], may_lack: Sequence[bool]) -> list[VolumeTable]:
    """Return tables of one length, with a row for every scan that any of them has.

    Rows follow the first table; scans that it lacks come after, in the order of the others. Where a
    table has no volume, the first that has one stands in its place, and `missing` says so.

    Parameters
    ----------
    tables : sequence of VolumeTable
        The collections of a data set; the first decides the order.
    may_lack : sequence of bool
        Of which of them volumes may be missing.

    Raises
    ------
    AlignmentError
        If another lacks a volume, or scans of a subject cannot be told apart.
    """
    found = [_rows_by_scan(table, _several(tables)) for table in tables]
    _refuse_unpaired(tables, found)
    order = [*_scans_of(tables[0], _several(tables))]
    known = set(order)
    for table in tables[1:]:
        new = [s for s in _scans_of(table, _several(tables)) if s not in known]
        order += dict.fromkeys(new)
        known.update(new)
    rows = np.array([[here.get(scan, -1) for here in found] for scan in order], np.intp)
    for number, table in enumerate(tables):
        lacking = [s for s, row in zip(order, rows[:, number].tolist(), strict=True) if row < 0]
        if lacking and not may_lack[number]:
            raise AlignmentError(
                f"collection {table.name!r} has no volume of "
                f"{shortened(dict.fromkeys(subject for subject, _ in lacking), _SHOWN)}; leave "
                f"these out, or name it in missing={{{table.name!r}: value}}"
            )
    first = np.argmax(rows >= 0, axis=1)
    return [_completed(tables, rows, first, number) for number in range(len(tables))]


def completed_masks(
    table: VolumeTable, images: VolumeTable, scans_of: Sequence[VolumeTable], *, may_lack: bool
) -> VolumeTable:
    """Return a mask for every row of `images`; its first mask stands where there is none.

    Parameters
    ----------
    table : VolumeTable
        The masks.
    images : VolumeTable
        The scans, completed.
    scans_of : sequence of VolumeTable
        The images as they were read, whose ids tell scans apart.
    may_lack : bool
        Whether images may be without a mask.

    Raises
    ------
    AlignmentError
        If a mask is missing that may not, or has no image.
    """
    every = [*scans_of, table]
    several = _several(every)
    names = [t.name for t in scans_of]
    scans = [_scan(images, row, several, names) for row in range(len(images))]
    found = _rows_by_scan(table, several)
    stray = [scan for scan in found if scan not in set(scans)]
    if stray:
        raise AlignmentError(
            f"masks of {table.name!r} have no image: "
            f"{shortened([table.obs_ids[found[s]] for s in stray], _SHOWN)}"
        )
    rows = np.array([found.get(scan, -1) for scan in scans], np.intp)
    if (rows < 0).any() and not may_lack:
        lacking = [images.obs_ids[row] for row in np.flatnonzero(rows < 0).tolist()]
        raise AlignmentError(
            f"collection {table.name!r} has no mask of {shortened(lacking, _SHOWN)}; leave these "
            f"out, or name it in missing"
        )
    return _standing_in(table, rows, images)


def _standing_in(table: VolumeTable, rows: NDArray[np.intp], images: VolumeTable) -> VolumeTable:
    taken = table.take(np.maximum(rows, 0))
    gone = rows < 0
    if not gone.any():
        return taken
    axes = taken.shapes.shape[1]
    shapes = np.where(gone[:, None], 1, taken.shapes)
    shared = min(axes, images.shapes.shape[1])
    shapes[gone, :shared] = images.shapes[gone, :shared]
    return replace(
        taken,
        obs_ids=["" if g else i for g, i in zip(gone, taken.obs_ids, strict=True)],
        subject_ids=images.subject_ids,
        shapes=shapes,
        affines=np.where(gone[:, None, None], images.affines, taken.affines),
        rescales=[None if g else r for g, r in zip(gone, taken.rescales, strict=True)],
        missing=gone,
    )


def _completed(
    tables: Sequence[VolumeTable], rows: NDArray[np.intp], first: NDArray[np.intp], number: int
) -> VolumeTable:
    own = rows[:, number] >= 0
    from_table = np.where(own, number, first)
    places = [(tables[t], int(rows[i, t])) for i, t in enumerate(from_table.tolist())]
    return VolumeTable(
        tables[number].name,
        [table.locators[row] for table, row in places],
        [
            table.obs_ids[row] if is_own or number == 0 else ""
            for (table, row), is_own in zip(places, own.tolist(), strict=True)
        ],
        [table.subject_ids[row] for table, row in places],
        np.array([table.shapes[row] for table, row in places]),
        np.array([table.affines[row] for table, row in places]),
        [table.rescales[row] for table, row in places],
        missing=None if own.all() else ~own,
    )


def _several(tables: Sequence[VolumeTable]) -> set[str]:
    """Return the subjects that have several scans in a table."""
    found: set[str] = set()
    for table in tables:
        each = dict(zip(table.obs_ids, table.subject_ids, strict=True))
        found |= {subject for subject, n in Counter(each.values()).items() if n > 1}
    return found


def _scans_of(table: VolumeTable, several: set[str]) -> list[_Scan]:
    return [_scan(table, row, several) for row in range(len(table))]


def _scan(table: VolumeTable, row: int, several: set[str], names: Sequence[str] = ()) -> _Scan:
    subject = table.subject_ids[row]
    if subject not in several:
        return subject, ""
    obs_id = table.obs_ids[row]
    for name in names:
        if obs_id.startswith(f"{subject}_{name}"):
            return subject, scan_of(replace(table, name=name), row)
    return subject, scan_of(table, row)


def _rows_by_scan(table: VolumeTable, several: set[str]) -> dict[_Scan, int]:
    """Return the row of each scan, of a repeated volume the first."""
    rows: dict[_Scan, int] = {}
    for row, scan in enumerate(_scans_of(table, several)):
        before = rows.setdefault(scan, row)
        if table.obs_ids[before] != table.obs_ids[row]:
            raise AlignmentError(
                f"volumes {table.obs_ids[before]!r} and {table.obs_ids[row]!r} of {table.name!r} "
                "cannot be told apart as scans: ids must differ after the collection's name"
            )
    return rows


def _refuse_unpaired(tables: Sequence[VolumeTable], found: list[dict[_Scan, int]]) -> None:
    """Refuse subjects of several scans of which two tables have no scan in common: it is more
    likely that ids do not agree than that nothing was taken together."""
    by_subject: list[dict[str, set[str]]] = []
    for here in found:
        scans_of: dict[str, set[str]] = defaultdict(set)
        for subject, scan in here:
            scans_of[subject].add(scan)
        by_subject.append(scans_of)
    for number, others in enumerate(by_subject[1:], 1):
        for subject, scans in others.items():
            first = by_subject[0].get(subject)
            if first and not first & scans:
                raise AlignmentError(
                    f"scans of subject {subject!r} cannot be paired: {tables[0].name!r} has "
                    f"{sorted(first)}, {tables[number].name!r} has {sorted(scans)}; ids must agree "
                    "after the collection's name"
                )


class Joined:
    """The rows of several collections together, where labels of completed scans are looked up.

    Parameters
    ----------
    sources : sequence of VolumeSource
        Collections that are seen as one, in their order.
    table : VolumeTable
        The completed scans.
    """

    def __init__(self, sources: Sequence[VolumeSource], table: VolumeTable) -> None:
        self.name, self.uri = table.name, None
        self.obs_ids, self.subject_ids = table.obs_ids, table.subject_ids
        self._sources = sources

    def to_obs(self) -> pd.DataFrame:
        """Return the row of every volume that decides."""
        every = pd.concat([s.to_obs() for s in self._sources], ignore_index=True)
        every = every.drop_duplicates(OBS_ID).set_index(OBS_ID, drop=False)
        return every.loc[list(self.obs_ids)].reset_index(drop=True)

    def subject_rows(self) -> pd.DataFrame:
        """Return the table of subjects of the first that knows one."""
        for source in self._sources:
            rows: Any = source.subject_rows() if hasattr(source, "subject_rows") else None
            if rows is not None and SUBJECT_ID in rows.columns:
                return rows
        return pd.DataFrame()
