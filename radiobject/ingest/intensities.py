"""Statistics of intensities, taken while volumes are ingested: what normalisation asks for later.

What is counted of a volume alone is counted where it is written, of voxels that are in memory.
What its mask decides is counted when all masks are there. Both are what the first use would work
out, bit by bit, and replace it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject import executors
from radiobject.exceptions import AlignmentError, ConfigurationError
from radiobject.executors import ExecutorLike
from radiobject.geometry.corners import SAME_PLACE_MM, corner_distance_mm
from radiobject.geometry.regrid import Regrid
from radiobject.sampling.intensities import IntensitySummary
from radiobject.storage.ids import scan_name
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.schema.collection import CollectionStore
from radiobject.storage.schema.intensity_index import (
    Region,
    summary_of,
    summary_of_voxels,
    without_intensities,
    write_intensities,
)
from radiobject.storage.schema.volume_rows import VolumeRecord

Where = float | str | None
"""All voxels; those above a number, in the volumes' units; or those that a collection labels."""
Statistics = Mapping[str, Where | Sequence[Where]] | Sequence[str]
"""What is counted of which collection: several regions, or one; of those only named, all voxels."""


@dataclass(frozen=True)
class AskedStatistics:
    """Which statistics of which collections are taken.

    Parameters
    ----------
    above : mapping of str to sequence of float or None
        Thresholds, None for all voxels, by collection.
    labelled : mapping of str to sequence of str
        Collections of masks, by collection.
    """

    above: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    labelled: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Statistics) -> AskedStatistics:
        """Return what was asked for.

        Raises
        ------
        ConfigurationError
            If something is neither a threshold nor a name.
        """
        if isinstance(given, str):
            raise ConfigurationError(
                f"statistics are asked for by collection, got {given!r}: pass [{given!r}]"
            )
        asked = given if isinstance(given, Mapping) else dict.fromkeys(given)
        above: dict[str, list[float | None]] = {}
        labelled: dict[str, list[str]] = {}
        for name, where in asked.items():
            several: Sequence[Any] = where if isinstance(where, list | tuple) else [where]
            for one in several:
                if isinstance(one, str):
                    labelled.setdefault(name, []).append(one)
                elif _is_threshold(one):
                    above.setdefault(name, []).append(None if one is None else float(one))
                else:
                    raise ConfigurationError(
                        f"statistics of {name!r} are of all voxels (None), of those above a "
                        f"number, or of those that a collection labels (its name), got {one!r}"
                    )
        return cls(above, labelled)

    @property
    def collections(self) -> set[str]:
        """Every collection that is named."""
        return {*self.above, *self.labelled}.union(*self.labelled.values())

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Refuse collections that there are not.

        Raises
        ------
        AlignmentError
        """
        unknown = sorted(self.collections - set(known))
        if unknown:
            raise AlignmentError(
                f"statistics names the collection {unknown[0]!r}, there are {sorted(known)}"
            )

    def of_voxels(
        self, name: str, voxels: NDArray[Any], volume: VolumeLocator
    ) -> tuple[IntensitySummary, ...]:
        """Return the summaries of a volume of collection `name` that was just written."""
        return tuple(
            summary_of_voxels(voxels, volume, Region(above)) for above in self.above.get(name, ())
        )

    def rows(
        self, name: str, volume: VolumeLocator, summaries: Sequence[IntensitySummary]
    ) -> Iterator[tuple[VolumeLocator, Region, IntensitySummary]]:
        """Yield what is to be stored of a volume, of what `of_voxels` returned."""
        for above, summary in zip(self.above.get(name, ()), summaries, strict=True):
            yield volume, Region(above), summary


def _is_threshold(value: object) -> bool:
    if value is None:
        return True
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Placed:
    """A volume, whose it is, and where it lies."""

    subject_id: str
    locator: VolumeLocator
    affine: NDArray[np.float64]


class LabelledStatistics:
    """Volumes and masks of a run, until those are counted that belong together.

    Parameters
    ----------
    asked : AskedStatistics
        What is to be counted.
    stores : mapping of str to CollectionStore
        The collections as they were before the run.
    """

    def __init__(self, asked: AskedStatistics, stores: Mapping[str, CollectionStore]) -> None:
        self._asked = asked
        self._wanted = {*asked.labelled}.union(*asked.labelled.values())
        self._placed: dict[str, dict[str, _Placed]] = {name: {} for name in self._wanted}
        for name in self._wanted & set(stores):
            rows = stores[name].rows
            for row, locator in enumerate(stores[name].locators(np.arange(len(rows)))):
                subject, affine = str(rows.subject_ids[row]), rows.affines[row]
                self._placed[name][str(locator.obs_id)] = _Placed(subject, locator, affine)

    def add(self, name: str, record: VolumeRecord) -> None:
        """Remember a volume that was written, where it matters."""
        if name in self._wanted:
            self._placed[name][record.obs_id] = _Placed(
                record.obs_subject_id, record.locator, record.affine
            )

    def store(self, uris: Mapping[str, str], executor: ExecutorLike | None) -> list[str]:
        """Count what has a mask and is not stored, and store it; return what there is to say.

        Parameters
        ----------
        uris : mapping of str to str
            Where each collection is.
        executor : str, Client or concurrent.futures.Executor, optional
            Where volumes are read; threads by default, see `executors.run`.
        """
        notes = []
        for name, masks in self._asked.labelled.items():
            for mask in masks:
                pairs = list(self._pairs(name, mask))
                if left := len(self._placed[name]) - len(pairs):
                    notes.append(
                        f"intensities of {left} volumes of {name!r} were not counted: they have no "
                        f"mask of their own in {mask!r}"
                    )
                todo = without_intensities(uris[name], pairs)
                found = list(executors.run(_counted, todo, executor=executor, places=[uris[name]]))
                write_intensities(uris[name], found)
        return notes

    def _pairs(self, name: str, mask: str) -> Iterator[tuple[VolumeLocator, Region]]:
        """Yield volumes with the region of their masks, paired by subject and scan."""
        images, masks = (_by_scan(self._placed[each], each) for each in (name, mask))
        for subject, scans in images.items():
            others = masks.get(subject, {})
            if len(scans) == len(others) == 1:
                others = dict(zip(scans, others.values(), strict=True))
            for scan, image in scans.items():
                if scan in others and (region := _region(image, others[scan])) is not None:
                    yield image.locator, region


def _by_scan(placed: Mapping[str, _Placed], name: str) -> dict[str, dict[str, _Placed]]:
    found: dict[str, dict[str, _Placed]] = {}
    for obs_id, one in placed.items():
        found.setdefault(one.subject_id, {})[scan_name(obs_id, one.subject_id, name)] = one
    return found


def _region(image: _Placed, mask: _Placed) -> Region | None:
    """Return what a mask labels of an image, on whose grid it is put; None where that cannot be."""
    shape, other = image.locator.shape, mask.locator.shape
    if len(shape) == len(other) == 4 and shape[3] != other[3]:
        return None
    sides = np.array([shape[:3]])
    apart = corner_distance_mm(image.affine[None], mask.affine[None], sides)
    if shape[:3] == other[:3] and apart[0] <= SAME_PLACE_MM:
        return Region(None, mask.locator)
    try:
        regrid = Regrid.between(image.affine, shape, mask.affine, other)
    except AlignmentError:
        return None
    return Region(None, mask.locator, regrid)


def _counted(
    pair: tuple[VolumeLocator, Region],
) -> tuple[VolumeLocator, Region, IntensitySummary]:
    """Count one volume, wherever this runs."""
    return (*pair, summary_of(*pair))
