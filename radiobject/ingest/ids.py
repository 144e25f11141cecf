"""Which id each planned image gets, and which of them are stored already."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from radiobject.exceptions import AlignmentError, RadiObjectError
from radiobject.formats.dicom import only_series
from radiobject.formats.discovery import ImageFormat
from radiobject.formats.guards import DEFAULT_LIMITS
from radiobject.formats.nifti_header import located
from radiobject.formats.source import SourceFile, read_file
from radiobject.ingest.plan import PlannedImage
from radiobject.storage.ids import FreeIds
from radiobject.storage.io import layout
from radiobject.storage.schema.collection import CollectionStore
from radiobject.storage.schema.subjects import Subjects

_DIGEST = "source_sha256"


@dataclass(frozen=True)
class _Present:
    """What is stored: ids, and for a resumed run the collection and the sources of each.

    A source is the SHA-256 of its bytes, counted once per volume, by subject and collection.
    """

    taken: set[str] = field(default_factory=set)
    places: dict[str, str] = field(default_factory=dict)
    sources: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, stores: Mapping[str, CollectionStore], before: Subjects | None, *, resumed: bool
    ) -> _Present:
        found = cls()
        if not resumed and before is not None:
            lists = before.rows[layout.OBS_IDS].to_list()
            found.taken.update(obs_id for text in lists for obs_id in json.loads(text or "[]"))
            return found
        for name, store in stores.items():
            if not resumed:
                found.taken.update(store.position)
                continue
            columns = [_DIGEST] if _DIGEST in store.columns else []
            table = store.read(columns)
            ids, subjects = table[layout.OBS_ID].values, table[layout.SUBJECT_ID].values
            found.places.update(dict.fromkeys(map(str, ids), name))
            digests = table[_DIGEST].filled("") if columns else [""] * len(ids)
            for subject, digest in zip(subjects, digests, strict=True):
                found.sources.setdefault((str(subject), name), Counter())[str(digest)] += 1
        found.taken.update(found.places)
        return found


def identified(
    images: Sequence[PlannedImage],
    stores: Mapping[str, CollectionStore],
    before: Subjects | None,
    *,
    resumed: bool,
) -> Iterator[tuple[PlannedImage, str]]:
    """Yield the images to write with their ids; when resuming, those that are there are left out.

    Parameters
    ----------
    images : sequence of PlannedImage
    stores : mapping of str to CollectionStore
        The collections that are there.
    before : Subjects, optional
        The table of their subjects, which lists every volume's id.
    resumed : bool
        Whether images that are stored already are left out.

    Raises
    ------
    AlignmentError
        If two images have one id, or one is taken.
    """
    present = _Present.of(stores, before, resumed=resumed)
    planned = Counter((image.obs_subject_id, image.collection) for image in images)
    used = {image.obs_id for image in images if image.obs_id is not None} | set(present.taken)
    free = {name: FreeIds(name, used) for name in {image.collection for image in images}}
    given: set[str] = set()
    for image in images:
        key = (image.obs_subject_id, image.collection)
        if resumed and _is_there(image, present, planned[key]):
            continue
        obs_id = image.obs_id or free[image.collection].next(image.obs_subject_id)
        if obs_id in given or obs_id in present.taken:
            there = (name for name, store in stores.items() if obs_id in store.position)
            where = next(there, image.collection)
            raise AlignmentError(
                f"volume id {obs_id!r} is used twice: by an image for {image.collection!r}, and "
                f"by another in {where!r}"
            )
        given.add(obs_id)
        for ids in free.values():
            ids.take(obs_id)
        yield image, obs_id


def _is_there(image: PlannedImage, present: _Present, planned: int) -> bool:
    """Return whether an image is stored; `planned` are those of its subject and collection."""
    if image.obs_id is not None:
        return present.places.get(image.obs_id) == image.collection
    known = present.sources.get((image.obs_subject_id, image.collection), Counter())
    if not known or planned == known.total() == 1:
        return bool(known)
    # Numbers follow the order of the files, which may have changed: ask the content.
    digest = _digest(image)
    if digest is None or not known[digest]:
        return False
    known[digest] -= 1
    return True


def _digest(image: PlannedImage) -> str | None:
    """Return the SHA-256 that the obs table has for a volume from this image."""
    source = image.source
    try:
        if not isinstance(source, Path):
            paths = source.files
        elif image.format is ImageFormat.DICOM:
            paths = only_series(source).files
        else:
            paths = tuple(dict.fromkeys(located(source)))
        parts = [SourceFile.of_bytes(path.name, read_file(path, DEFAULT_LIMITS)) for path in paths]
    except (RadiObjectError, OSError):
        # It is refused, or stops the run, when it is loaded.
        return None
    return (parts[0] if len(parts) == 1 else SourceFile.of_many("", parts)).sha256
