"""Volumes of several collections that belong together, and the plan of what becomes of them."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from radiobject.exceptions import AlignmentError, ConfigurationError, StoreExistsError
from radiobject.geometry.grids import spacing_of
from radiobject.indexing import shortened
from radiobject.selection import VolumeSelection
from radiobject.storage.ids import are_of_two_scans, scan_name
from radiobject.storage.io import layout
from radiobject.storage.schema.label_index import fingerprint
from radiobject.transform.jobs import VolumeJob, jobs_of
from radiobject.transform.resample import check_rules

SOURCE, STEPS, MADE_FROM = "source_obs_id", "preprocessing", "preprocessing_source"
PROVENANCE = (SOURCE, STEPS, MADE_FROM)
"""Columns that say what a preprocessed volume was made from, and how."""


@dataclass(frozen=True)
class Steps:
    """What is done to every scan: resampled, then cropped.

    Parameters
    ----------
    spacing_mm : tuple of float, optional
        Distances between voxels along the volume's own axes.
    reference : str, optional
        The collection on whose grids all others are put.
    labels : tuple of str, optional
        Collections that hold labels. None: they were not named, and what looks like labels is
        refused.
    interpolation, label_interpolation : str
        See `radiobject.transform.resample`.
    fill : float, optional
        What images have outside the volume, in its units; None for its smallest value.
    antialias : bool
        Whether images are smoothed before, along axes that get coarser.
    crop : str, optional
        The collection whose foreground decides what is kept.
    above : float, optional
        Its foreground; without, every label but 0.
    margin_mm : float
        Kept around it.
    """

    spacing_mm: tuple[float, float, float] | None = None
    reference: str | None = None
    labels: tuple[str, ...] | None = None
    interpolation: str = "linear"
    label_interpolation: str = "nearest"
    fill: float | None = None
    crop: str | None = None
    above: float | None = None
    margin_mm: float = 0.0
    antialias: bool = False

    def __post_init__(self) -> None:
        check_rules(self.interpolation, self.label_interpolation)
        if self.spacing_mm is not None:
            x, y, z = spacing_of(self.spacing_mm).tolist()
            object.__setattr__(self, "spacing_mm", (x, y, z))
        if not self.margin_mm >= 0:
            raise ConfigurationError(f"margin_mm must not be below 0, got {self.margin_mm}")

    @property
    def moves_voxels(self) -> bool:
        """Whether voxels are interpolated."""
        return self.spacing_mm is not None or self.reference is not None

    @property
    def label_collections(self) -> set[str]:
        """The collections that are known to hold labels."""
        cropped = {self.crop} if self.crop is not None and self.above is None else set()
        return {*(self.labels or ()), *cropped}

    @property
    def anchor(self) -> str | None:
        """The collection that decides the grid of the others."""
        return self.reference or self.crop

    def to_json(self) -> str:
        """Return the steps as they are kept with every volume."""
        # What is off by default is not said: it would part these steps from those of before.
        given = {
            name: value
            for name, value in asdict(self).items()
            if value is not None and value is not False and value != ()
        }
        return json.dumps(given, sort_keys=True)


@dataclass(frozen=True)
class ScanVolume:
    """One volume of a scan."""

    collection: str
    job: VolumeJob
    is_label: bool

    @property
    def obs_id(self) -> str:
        """Its id, which stays."""
        return str(self.job.row[layout.OBS_ID])

    @property
    def subject_id(self) -> str:
        """Its subject."""
        return str(self.job.row[layout.SUBJECT_ID])


@dataclass(frozen=True)
class Scan:
    """Volumes that are brought to one grid, the one that decides it first."""

    volumes: tuple[ScanVolume, ...]
    steps: Steps

    @property
    def made_from(self) -> str:
        """Digest of all of its voxels and places: each may decide what becomes of the others."""
        digest = hashlib.sha256()
        for volume in self.volumes:
            digest.update(f"{volume.collection} {fingerprint(volume.job.locator)} ".encode())
            digest.update(volume.job.affine.tobytes())
        return digest.hexdigest()[:32]

    def columns(self, volume: ScanVolume) -> dict[str, str]:
        """Return what is kept with what becomes of a volume."""
        return {SOURCE: volume.obs_id, STEPS: self.steps.to_json(), MADE_FROM: self.made_from}


def scans_of(collections: Mapping[str, VolumeSelection], steps: Steps) -> list[Scan]:
    """Return the scans of a selection, each volume in one of them.

    Volumes belong together by subject where the deciding collection has one of it, else by the rest
    of their ids too; those that are of another scan of the subject by their ids are warned of.
    Where no collection decides, each volume is a scan of its own.

    Parameters
    ----------
    collections : mapping of str to VolumeSelection
    steps : Steps

    Raises
    ------
    ConfigurationError
        If the steps name a collection that is not there.
    AlignmentError
        If a volume has no partner that decides its grid.
    """
    for name in (steps.reference, steps.crop, *(steps.labels or ())):
        if name is not None and name not in collections:
            raise ConfigurationError(f"there is no collection {name!r}; there are {[*collections]}")
    volumes = {
        name: [ScanVolume(name, job, name in steps.label_collections) for job in jobs_of(selection)]
        for name, selection in collections.items()
    }
    if steps.anchor is None:
        return [Scan((one,), steps) for group in volumes.values() for one in group]
    anchors = volumes.pop(steps.anchor)
    members = {one.obs_id: [one] for one in anchors}
    by_subject: dict[str, list[ScanVolume]] = {}
    for one in anchors:
        by_subject.setdefault(one.subject_id, []).append(one)
    alone = [
        other
        for group in volumes.values()
        for other in group
        if not _joined(other, by_subject.get(other.subject_id, []), members)
    ]
    if alone:
        raise AlignmentError(
            f"{len(alone)} volumes have no partner in {steps.anchor!r}, which decides their grid: "
            f"{shortened([one.obs_id for one in alone])}; select the subjects that have one"
        )
    _warn_of_other_scans(members.values())
    scans = [Scan(_crop_second(group, steps), steps) for group in members.values()]
    if steps.crop is not None:
        _refuse_undecided(scans, steps.crop)
    return scans


def _joined(
    one: ScanVolume, anchors: Sequence[ScanVolume], members: Mapping[str, list[ScanVolume]]
) -> bool:
    """Put a volume beside the one that decides its grid; return whether there is one."""
    if len(anchors) > 1:
        name = _scan_of(one)
        anchors = [anchor for anchor in anchors if _scan_of(anchor) == name]
    if len(anchors) != 1:
        return False
    members[anchors[0].obs_id].append(one)
    return True


def _warn_of_other_scans(groups: Iterable[Sequence[ScanVolume]]) -> None:
    """Say which volumes are brought to the grid of another scan than their own, by their ids."""
    apart = [
        f"{one.obs_id!r} with {anchor.obs_id!r}"
        for anchor, *others in groups
        for one in others
        if are_of_two_scans(anchor.obs_id, anchor.collection, one.obs_id, one.collection)
    ]
    if apart:
        warnings.warn(
            f"{len(apart)} volumes are put on the grid of the one scan that their subject has, and "
            f"are of another by their ids: {shortened(apart, quoted=False)}; select the volumes of "
            "one scan, unless they lie in one place all the same",
            stacklevel=2,
        )


def _refuse_undecided(scans: Sequence[Scan], crop: str) -> None:
    counted = {s.volumes[0].obs_id: [v.collection for v in s.volumes].count(crop) for s in scans}
    wrong = [obs_id for obs_id, count in counted.items() if count != 1]
    if wrong:
        raise AlignmentError(
            f"{len(wrong)} scans have not one volume in {crop!r}, which decides what is kept: "
            f"{shortened(wrong)}; select the subjects that have one"
        )


def _scan_of(one: ScanVolume) -> str:
    return scan_name(one.obs_id, one.subject_id, one.collection)


def _crop_second(group: Iterable[ScanVolume], steps: Steps) -> tuple[ScanVolume, ...]:
    """Return the volumes of a scan, the ones that decide first."""
    rank = {steps.reference: 0, steps.crop: 1}
    return tuple(sorted(group, key=lambda one: rank.get(one.collection, 2)))


def unfinished(
    scans: Sequence[Scan], rows: Mapping[str, Mapping[str, Mapping[str, str]]]
) -> Iterator[Scan]:
    """Yield the scans that are still to be made.

    Parameters
    ----------
    scans : sequence of Scan
    rows : mapping of str to mapping
        What each collection has at the target: the provenance of each volume, by its id.

    Raises
    ------
    StoreExistsError
        If a volume there was made in another way, or from other voxels.
    """
    for scan in scans:
        there = [rows.get(v.collection, {}).get(v.obs_id) for v in scan.volumes]
        for volume, row in zip(scan.volumes, there, strict=True):
            if row is not None and dict(row) != scan.columns(volume):
                wanted = scan.columns(volume)
                differ = "; ".join(f"{n} was {row.get(n)!r}, is {wanted[n]!r}" for n in PROVENANCE)
                raise StoreExistsError(
                    f"the volume {volume.obs_id!r} that is there was not made from what is given "
                    f"now: {differ}. Choose another address, or delete what lies there"
                )
        if any(row is None for row in there):
            yield scan
