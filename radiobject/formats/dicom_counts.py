"""How many images a series says it has: slices that are missing at an end leave no gap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from radiobject.formats.dicom_frames import Frame
from radiobject.formats.dicom_header import DicomFile
from radiobject.formats.dicom_keys import PLACES_OF_MAKERS
from radiobject.formats.source import readable_name
from radiobject.indexing import shortened

_VOLUMES = ("NumberOfTemporalPositions", "NumberOfTimeSlices", "NumberOfTimeSlots")


def fewer_than_stated(frames: Sequence[Frame]) -> Iterator[str]:
    """Yield warnings about a series of fewer images than its headers, or its pieces, say."""
    # One acquisition may be all of them: of several, one has no more than all have.
    count = _stated(frames, "ImagesInAcquisition")
    if count > len(frames):
        yield (
            f"{len(frames)} images are there and ImagesInAcquisition states {count}: slices may be "
            "missing at an end"
        )
    places = len({frame.position for frame in frames})
    for name, _ in PLACES_OF_MAKERS.values():
        count = _stated(frames, name)
        if count > places:
            yield (
                f"slices at {places} places are there and {name} states {count}: slices may be "
                "missing at an end"
            )
    yield from _volumes_missing(frames)
    files = {frame.file.path: frame.file for frame in frames}.values()
    more = [file for file in files if file.more_places]
    if more:
        first = more[0]
        yield (
            f"{len(more)} files have fewer frames than their headers list places of, such as "
            f"{readable_name(first.path.name)} ({first.frames} of "
            f"{first.frames + first.more_places}): the first places were taken, and slices may be "
            "missing"
        )
    pieces: dict[str, list[DicomFile]] = {}
    for file in files:
        if file.piece is not None:
            pieces.setdefault(file.piece[0], []).append(file)
    for parts in pieces.values():
        yield from _pieces_missing(parts)


def slices_missing(volume: Sequence[Frame]) -> Iterator[str]:
    """Yield warnings about a volume of fewer slices than their headers say."""
    slices = len(volume)
    count = _stated(volume, "NumberOfSlices")
    if count > slices:
        yield (
            f"{slices} slices are there and NumberOfSlices states {count}: slices may be missing "
            "at an end"
        )
    numbers = [frame.keys.in_stack for frame in volume if frame.keys.in_stack is not None]
    if len(set(numbers)) == slices < max(numbers, default=0):
        yield (
            f"{slices} slices are there, numbered {min(numbers)} to {max(numbers)} in their stack "
            "(InStackPositionNumber): slices may be missing at an end"
        )


def _volumes_missing(frames: Sequence[Frame]) -> Iterator[str]:
    """Yield a warning about fewer volumes than are stated, of whatever kinds."""
    name = next((name for name in _VOLUMES if _stated(frames, name)), "")
    count = _stated(frames, name)
    if name == "NumberOfTimeSlots":
        count *= max(_stated(frames, "NumberOfRRIntervals"), 1)
    moments = {frame.keys.temporal for frame in frames}
    there = len(moments)
    if None in moments:
        there = max(Counter(frame.position for frame in frames).values())
    if count > there:
        yield f"{there} volumes are there and {name} states {count}: volumes may be missing"
        return
    numbers = {moment for moment in moments if moment is not None}
    missing = sorted(set(range(1, max(numbers, default=0) + 1)) - numbers)
    # Of other numbers than 1, 2, 3 ... most would be.
    if None not in moments and 0 < len(missing) < len(numbers):
        shown = shortened(missing)
        yield f"no image has the temporal position {shown}: volumes may be missing"


def _stated(frames: Sequence[Frame], name: str) -> int:
    """Return what all frames state, 0 where some do not or they disagree."""
    found = {dict(frame.keys.counts).get(name, 0) for frame in frames}
    return found.pop() if len(found) == 1 else 0


def _pieces_missing(files: Sequence[DicomFile]) -> Iterator[str]:
    """Yield a warning about a concatenation of which pieces are missing."""
    pieces = {file.piece[1]: file for file in files if file.piece is not None}
    total = max(max(pieces), *(file.piece[2] for file in files if file.piece is not None))
    missing = [number for number in range(1, total + 1) if number not in pieces]
    if missing:
        yield (
            f"{len(pieces)} of {total} files of a concatenation are there "
            f"(InConcatenationNumber {shortened(map(str, missing), quoted=False)} is missing): the "
            "volume is not whole"
        )
