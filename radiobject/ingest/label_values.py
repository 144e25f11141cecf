"""One label value for one structure in all volumes of a collection, by the structures' names.

Each DICOM object numbers its structures as it likes: 1 is the liver in one and the spleen in the
next. Where the objects of a collection do not agree, or not with the names that are stored, values
are given by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from radiobject.exceptions import RadiObjectError
from radiobject.formats.dicom_labels import DicomLabels
from radiobject.ingest.plan import PlannedImage
from radiobject.sampling.label_names import LabelNames
from radiobject.storage.schema.collection import CollectionStore

Planned = tuple[PlannedImage, str]


def with_common_values(
    images: Sequence[Planned], stores: Mapping[str, CollectionStore]
) -> tuple[list[Planned], dict[str, LabelNames]]:
    """Return images whose labels have common values, and the names of each collection's values.

    Parameters
    ----------
    images : sequence of (PlannedImage, str)
        With their ids.
    stores : mapping of str to CollectionStore
        The collections that exist; of those that such labels go to, the names are read.
    """
    own = {at: _names(image.source) for at, (image, _) in enumerate(images)
           if isinstance(image.source, DicomLabels)}  # fmt: skip
    known: dict[str, dict[str, int]] = {}
    stored: dict[str, LabelNames] = {}
    for name in dict.fromkeys(images[at][0].collection for at in own):
        stored[name] = stores[name].label_names if name in stores else LabelNames()
        objects = [own[at] for at in own if images[at][0].collection == name]
        known[name] = _values(stored[name].names, objects)
    given = list(images)
    for at, names in own.items():
        image, obs_id = images[at]
        values = {number: known[image.collection][text] for number, text in names.items()}
        if any(number != value for number, value in values.items()):
            source = replace(image.source, values=values)  # type: ignore[type-var]
            given[at] = (replace(image, source=source), obs_id)
    return given, {name: _named(values, stored[name]) for name, values in known.items()}


def _named(values: Mapping[str, int], before: LabelNames) -> LabelNames:
    return LabelNames.of({value: text for text, value in values.items()}, before.regions)


def _values(before: Mapping[int, str], objects: Sequence[Mapping[int, str]]) -> dict[str, int]:
    """Return the value of each name: what is stored, then the objects' own where all agree."""
    pairs = set(before.items()).union(*(names.items() for names in objects))
    if len({number for number, _ in pairs}) == len({text for _, text in pairs}) == len(pairs):
        return {text: number for number, text in sorted(pairs)}
    values = {text: number for number, text in before.items()}
    free = _numbers_from(max(before, default=0) + 1)
    for names in objects:
        for text in names.values():
            if text not in values:
                values[text] = next(free)
    return values


def _numbers_from(first: int) -> Iterator[int]:
    while True:
        yield first
        first += 1


def _names(source: DicomLabels) -> dict[int, str]:
    """Return what an object calls its labels, each name once; nothing of one that is damaged."""
    try:
        stated = source.names()
    except (RadiObjectError, OSError):
        return {}  # Loading it says what is wrong.
    names: dict[int, str] = {}
    for number, text in sorted(stated.items()):
        free = (text if k == 1 else f"{text} ({k})" for k in _numbers_from(1))
        names[number] = next(one for one in free if one not in names.values())
    return names
