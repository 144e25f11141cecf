"""Which id each planned image gets, and which of them are stored already."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from radiobject.exceptions import AlignmentError, RadiObjectError
from radiobject.formats.dicom import only_series, series_columns
from radiobject.formats.dicom_labels import STRUCTURES, DicomLabels
from radiobject.formats.dicom_series import DicomSeries
from radiobject.formats.discovery import ImageFormat
from radiobject.formats.guards import DEFAULT_LIMITS
from radiobject.formats.readers import reader_of
from radiobject.formats.report import ReportLine, Verdict
from radiobject.formats.source import SourceFile, read_file
from radiobject.ingest.made_otherwise import TELLING_OF_OPTIONS, VoxelOptions
from radiobject.ingest.plan import PlannedImage
from radiobject.storage.ids import FreeIds, generate_obs_id, scan_name
from radiobject.storage.io import layout
from radiobject.storage.schema.collection import CollectionStore
from radiobject.storage.schema.subjects import MANY, Subjects

_DIGEST, _NAME = "source_sha256", "source_name"
_TELLING = (
    "image_type", "complex_component", "echo_time", "echo_number", "b_value", "flip_angle",
    "inversion_time", "kvp", "corrected_image", "variant", "stack_id", "acquisition_plane",
    STRUCTURES,
)  # fmt: skip
"""Columns that tell the volumes of one DICOM file apart, which have one digest."""
_CHANGED = "changed since it was stored; exists='update' replaces it"


@dataclass(eq=False)
class _Stored:
    """A volume that is there, the file that it was made from, and which volume of that it is."""

    obs_id: str
    sha256: str
    name: str
    kind: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    claimed: bool = False


class _Taken:
    """The ids that stored volumes have, each looked up once."""

    def __init__(self, stores: Iterable[CollectionStore]) -> None:
        self._stores = tuple(stores)
        self._found: dict[str, bool] = {}

    def __contains__(self, obs_id: object) -> bool:
        name = str(obs_id)
        self.look_up([name])
        return self._found[name]

    def look_up(self, obs_ids: Iterable[str]) -> None:
        """Find out about several ids at once, in one read of each collection."""
        new = {obs_id for obs_id in obs_ids if obs_id not in self._found}
        if new:
            self._found |= dict.fromkeys(new, False)
            for store in self._stores:
                self.add(store.present(new))

    def add(self, obs_ids: Iterable[str]) -> None:
        """Note ids that a volume is known to have."""
        self._found |= dict.fromkeys(obs_ids, True)


@dataclass(frozen=True)
class _Present:
    """What is stored: ids, and the volumes per subject and collection that were asked for."""

    taken: _Taken
    volumes: dict[tuple[str, str], list[_Stored]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    """How many volumes a subject has."""

    @classmethod
    def of(
        cls,
        images: Sequence[PlannedImage],
        stores: Mapping[str, CollectionStore],
        before: Subjects | None,
    ) -> _Present:
        """Read what the images can be compared with, and of the rest the ids that they may get."""
        many = not before.is_whole if before is not None else _has_many(stores.values())
        found = cls(_Taken(stores.values() if many else ()))
        asked = {image.obs_subject_id for image in images}
        if before is not None:
            subjects = before.rows[layout.SUBJECT_ID].values
            for subject, text in zip(subjects, before.rows[layout.OBS_IDS].to_list(), strict=True):
                ids = json.loads(text or "[]")
                found.taken.add(ids)
                found.counts[str(subject)] = len(ids)
            asked = {subject for subject in asked if found.counts.get(subject)}
        wanted = {image.collection for image in images if image.obs_subject_id in asked}
        for name, store in stores.items():
            if name in wanted:
                found._read(name, store, asked if many else None)
            elif before is None and not many:
                found.taken.add(store.position)
        return found

    def _read(self, name: str, store: CollectionStore, asked: set[str] | None) -> None:
        asked_of = (*_TELLING, *TELLING_OF_OPTIONS)
        table = store.read_if_there((_DIGEST, _NAME, *asked_of), asked)
        ids, subjects = table[layout.OBS_ID].values, table[layout.SUBJECT_ID].values
        sources = [
            table[column].filled("") if column in table else [""] * len(ids)
            for column in (_DIGEST, _NAME)
        ]
        self.taken.add(map(str, ids))
        named = {column: table[column].to_list() for column in asked_of if column in table}
        for row, (obs_id, subject, *source) in enumerate(zip(ids, subjects, *sources, strict=True)):
            values = {column: values[row] for column, values in named.items()}
            made = {column: values.get(column) for column in TELLING_OF_OPTIONS}
            stored = _Stored(
                str(obs_id), str(source[0] or ""), str(source[1] or ""), _stated(values), made
            )
            here = self.volumes.setdefault((str(subject), name), [])
            here.append(stored)
            self.counts[str(subject)] = max(self.counts.get(str(subject), 0), len(here))


def _stated(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `_TELLING` that are there: no empty text, and not what is no number."""
    kind = {name: columns.get(name) for name in _TELLING}
    return {
        name: value
        for name, value in kind.items()
        if value not in (None, "") and not (isinstance(value, float) and math.isnan(value))
    }


def _has_many(stores: Iterable[CollectionStore]) -> bool:
    return any(store.root.last.n_volumes > MANY for store in stores)


@dataclass
class Assigned:
    """The images to write with their ids, and a line for each that is not written.

    `replaced` are the ids that are there already and get new voxels. `scans` has the scan name of
    each series that was written or is there, by identity: labels that were drawn on it get the
    same, for image and labels pair by it.
    """

    images: list[tuple[PlannedImage, str]] = field(default_factory=list)
    lines: list[ReportLine] = field(default_factory=list)
    replaced: set[str] = field(default_factory=set)
    scans: dict[int, str] = field(default_factory=dict)

    def leave(
        self, image: PlannedImage, verdict: Verdict, why: str, obs_id: str = "", *more: str
    ) -> None:
        """Say of an image that it is not written, and what it is stored as, if it is."""
        self.lines.append(ReportLine(image.place, verdict, (why, *more)))
        if obs_id:
            self.note(image, obs_id)

    def note(self, image: PlannedImage, obs_id: str) -> None:
        """Remember which scan of its subject an image is."""
        self.scans[id(image.source)] = scan_name(obs_id, *image.key)

    def scan_of(self, image: PlannedImage) -> str | None:
        """Return the scan name that an image must have: that of what its labels were drawn on."""
        source = image.source
        return self.scans.get(id(source.series)) if isinstance(source, DicomLabels) else None


def identified(
    images: Sequence[PlannedImage],
    stores: Mapping[str, CollectionStore],
    before: Subjects | None,
    *,
    exists: str,
    asked: VoxelOptions,
) -> Assigned:
    """Give every image an id, and leave out those that are there.

    Parameters
    ----------
    images : sequence of PlannedImage
        What the plan has.
    stores : mapping of str to CollectionStore
        The collections as they are.
    before : Subjects, optional
        The table of their subjects, which lists every volume's id.
    exists : {"raise", "resume", "replace", "update"}
        As in `IngestOptions`. What is equal to a stored volume's source, by SHA-256, is left out
        in any case. Of a file that has changed, "resume" keeps what is stored and says so, and
        "update" writes it anew under the same id; else it is a further scan.
    asked : VoxelOptions
        How voxels are made now; what is stored of the same file may have been made otherwise.

    Raises
    ------
    AlignmentError
        If two images have one id, or one is taken.
    """
    present = _Present.of(images, stores, before)
    numbers: dict[tuple[str, str], int] = {}
    for image in images:
        numbers[image.key] = numbers.get(image.key, 0) + 1
    present.taken.look_up(_possible_ids(images, numbers, present.counts))
    free = {i.collection: FreeIds(i.collection, present.taken) for i in images}
    for image in images:
        for ids in free.values() if image.obs_id is not None else ():
            ids.take(str(image.obs_id))
    done, given, seen = Assigned(), set(), set()
    for image in images:
        if isinstance(image.source, Path):
            again = (*image.key, image.source.resolve())
            if again in seen:
                done.leave(image, Verdict.STORED, "given twice")
                continue
            seen.add(again)
        same = _same_as(image, present, numbers[image.key], exists, asked, done)
        if same is True:
            continue
        obs_id = same or image.obs_id
        if not obs_id and (scan := done.scan_of(image)) is not None:
            obs_id = next(
                one for one in _ids_of_labels(image, scan)
                if one not in given and one not in present.taken
            )  # fmt: skip
        obs_id = obs_id or free[image.collection].next(image.obs_subject_id)
        taken = obs_id in present.taken and obs_id not in done.replaced
        if obs_id in given or taken:
            there = (name for name, store in stores.items() if obs_id in store.position)
            where = next(there, image.collection)
            raise AlignmentError(
                f"volume id {obs_id!r} is used twice: by an image for {image.collection!r}, and "
                f"by another in {where!r}"
            )
        given.add(obs_id)
        done.note(image, obs_id)
        for ids in free.values():
            ids.take(obs_id)
        done.images.append((image, obs_id))
    return done


def _ids_of_labels(image: PlannedImage, scan: str) -> Iterator[str]:
    """Yield the ids that labels of a scan may have; a second opinion pairs with no other scan."""
    first = generate_obs_id(*image.key) + scan
    yield first
    yield from (f"{first}_label-{number}" for number in count(2))


def _possible_ids(
    images: Sequence[PlannedImage],
    numbers: Mapping[tuple[str, str], int],
    counts: Mapping[str, int],
) -> Iterator[str]:
    """Yield the ids that images may get: a subject's next ones come after those that it has."""
    yield from (image.obs_id for image in images if image.obs_id is not None)
    most: dict[str, int] = {}
    for (subject, _), planned in numbers.items():
        most[subject] = max(planned, most.get(subject, 0))
    for subject, collection in numbers:
        # Labels have the number of their scan, of which there may be more than of them.
        for number in range(most[subject] + counts.get(subject, 0)):
            yield generate_obs_id(subject, collection, number or None)


def _same_as(
    image: PlannedImage,
    present: _Present,
    planned: int,
    exists: str,
    asked: VoxelOptions,
    done: Assigned,
) -> str | bool:
    """Return True for an image to leave out, the id of the volume that it replaces, or False."""
    kind = _kind_of(image)
    candidates = [
        one
        for one in present.volumes.get(image.key, [])
        if not one.claimed and all(one.kind.get(name, kind[name]) == kind[name] for name in kind)
    ]
    if image.obs_id is not None:
        candidates = [one for one in candidates if one.obs_id == image.obs_id]
    if not candidates:
        return False
    resumed = exists in ("resume", "update")
    likely = _likely(image, _of_one_scan(image, candidates, done), planned)
    digest = _digest(image, asked)
    equal = next((one for one in candidates if digest and one.sha256 == digest), None)
    if equal is None and resumed and likely is not None and not likely.sha256:
        # Nothing tells what it was made from: its place alone says that it is there.
        equal = likely
    if equal is not None:
        equal.claimed = True
        otherwise = asked.not_applied(image, equal.made)
        why = f"stored as {equal.obs_id!r}"
        done.leave(image, Verdict.STORED, why, equal.obs_id, *otherwise)
        return True
    if not resumed or likely is None:
        return False
    likely.claimed = True
    if digest is None:
        why = "cannot be read any more; what was stored is kept"
        done.leave(image, Verdict.REFUSED, why, likely.obs_id)
        return True
    if exists == "resume":
        done.leave(image, Verdict.CHANGED, _CHANGED, likely.obs_id)
        return True
    done.replaced.add(likely.obs_id)
    return likely.obs_id


def _of_one_scan(
    image: PlannedImage, candidates: Sequence[_Stored], done: Assigned
) -> Sequence[_Stored]:
    """Return those stored labels that were drawn on the same scan; of other images, all."""
    scan = done.scan_of(image)
    if scan is None:
        return candidates
    return [one for one in candidates if scan_name(one.obs_id, *image.key) == scan]


def _kind_of(image: PlannedImage) -> dict[str, Any]:
    """Return what tells an image from others of its file; nothing of one that is damaged."""
    try:
        if isinstance(image.source, DicomLabels):
            return _stated(image.source.columns())
        if isinstance(image.source, DicomSeries):
            return _stated(series_columns(image.source))
    except (RadiObjectError, OSError):
        pass  # Loading it says what is wrong.
    return {}


def _likely(image: PlannedImage, candidates: Sequence[_Stored], planned: int) -> _Stored | None:
    """Return the volume that an earlier state of this image became, where only one can be it."""
    if candidates and (image.obs_id is not None or planned == len(candidates) == 1):
        return candidates[0]
    named = [one for one in candidates if one.name and one.name == Path(image.place).name]
    return named[0] if len(named) == 1 else None


def _digest(image: PlannedImage, asked: VoxelOptions) -> str | None:
    """Return the SHA-256 that the obs table has for a volume from this image."""
    source = image.source
    try:
        if not isinstance(source, Path):
            paths = source.files
        elif image.format is ImageFormat.DICOM:
            paths = only_series(source, options=asked.dicom).files
        elif image.part is not None:
            paths = image.part.files(source)
        else:
            reader = reader_of(source)
            paths = (source,) if reader is None else reader.files(source)
        parts = [SourceFile.of_bytes(path.name, read_file(path, DEFAULT_LIMITS)) for path in paths]
    except (RadiObjectError, OSError):
        # It is refused, or stops the run, when it is loaded.
        return None
    return (parts[0] if len(parts) == 1 else SourceFile.of_many("", parts)).sha256
