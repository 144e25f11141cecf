"""What images must agree in to be one series: an absent field is not a value of its own.

What is compared here may identify a patient: it stays in this process, and no message says it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from radiobject.formats.dicom_frames import AGREEING, Frame
from radiobject.formats.dicom_geometry import has_duplicates
from radiobject.formats.dicom_header import SeriesIdentity
from radiobject.indexing import shortened

_WORDS = {
    "patient": "PatientID", "study_uid": "StudyInstanceUID", "modality": "Modality",
    "number": "SeriesNumber",
}  # fmt: skip
_SAID = frozenset({"ConvolutionKernel", "SeriesDescription"})
_ARBITRARY = "FrameOfReferenceUID"
"""Some anonymisers write a new one into every image, which then says nothing."""


def shared_uids(identities: Iterable[SeriesIdentity]) -> dict[str, tuple[str, ...]]:
    """Return a warning for each SeriesInstanceUID that several series have."""
    by_uid: dict[str, list[SeriesIdentity]] = {}
    for identity in identities:
        by_uid.setdefault(identity.series_uid, []).append(identity)
    notes: dict[str, tuple[str, ...]] = {}
    for uid, sharing in by_uid.items():
        if len(sharing) < 2:
            continue
        differing = [
            words
            for name, words in _WORDS.items()
            if len({getattr(one, name) for one in sharing}) > 1
        ]
        notes[uid] = (
            f"one SeriesInstanceUID is used by {len(sharing)} series that differ in "
            f"{', '.join(differing)}; each is its own volume",
        )
    return notes


def doubtful(
    series: Mapping[SeriesIdentity, Sequence[Frame]],
) -> list[tuple[list[SeriesIdentity], str]]:
    """Return series that could be one, where some images do not say whose they are, and why.

    Images without a PatientID beside images of patient A under one SeriesInstanceUID are A's, or
    they are another's: a volume of either part alone would be a guess.
    """
    found: list[tuple[list[SeriesIdentity], str]] = []
    by_uid: dict[str, list[SeriesIdentity]] = {}
    for identity in series:
        by_uid.setdefault(identity.series_uid, []).append(identity)
    for sharing in by_uid.values():
        left = list(sharing)
        while left:
            group = [left.pop(0)]
            for one in group:
                near = [other for other in left if _could_be_one(one, other)]
                group += near
                left = [other for other in left if other not in near]
            if len(group) > 1:
                found.append((group, _what_is_missing(group, series)))
    return found


def _could_be_one(one: SeriesIdentity, other: SeriesIdentity) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in _WORDS]
    return all(first == second or not first or not second for first, second in pairs)


def _what_is_missing(
    group: Sequence[SeriesIdentity], series: Mapping[SeriesIdentity, Sequence[Frame]]
) -> str:
    total = sum(len(series[one]) for one in group)
    parts = []
    for name, words in _WORDS.items():
        without = [one for one in group if not getattr(one, name)]
        if 0 < len(without) < len(group):
            frames = [frame for one in without for frame in series[one]]
            files = dict.fromkeys(frame.file.path.name for frame in frames)
            shown = shortened(files, quoted=False)
            parts.append(f"{words} is missing in {len(frames)} of {total} images ({shown})")
    return (
        f"{', '.join(parts)}: whether they belong to this series is not known; restore the "
        "headers, or leave these files out"
    )


def agreeing(frames: list[Frame]) -> Iterator[tuple[list[Frame], tuple[str, ...]]]:
    """Yield the frames of a series in groups that say the same of all `AGREEING` fields.

    Each group comes with warnings that say what they differ in.
    """
    notes: tuple[str, ...] = ()
    for keyword in AGREEING:
        groups: dict[str, list[Frame]] = {}
        for frame in frames:
            groups.setdefault(frame.file.agreement[keyword], []).append(frame)
        if len(set(groups) - {""}) < 2:
            continue
        if keyword == _ARBITRARY and _says_nothing(frames, groups):
            notes = (f"another {keyword} in every image: it says nothing, and was passed over",)
            continue
        said = f" ({', '.join(sorted(map(repr, groups)))})" if keyword in _SAID else ""
        note = f"images of the series differ in {keyword}{said}; each is its own volume"
        for group in groups.values():
            for inner, others in agreeing(group):
                yield inner, (note, *others)
        return
    yield frames, notes


def _says_nothing(frames: Sequence[Frame], groups: Mapping[str, Sequence[Frame]]) -> bool:
    return len(groups) == len(frames) > 2 and not has_duplicates(
        [frame.position for frame in frames], frames[0].orientation, frames[0].spacing_mm
    )
