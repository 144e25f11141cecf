"""What the slices of one volume should have in common and do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_frames import Frame
from radiobject.formats.dicom_volumes import WORDS
from radiobject.formats.privacy import NUMBER_KEYWORDS
from radiobject.formats.time_axis import TimeAxis
from radiobject.indexing import shortened

_CONSTANT = ("component", "echo", "b_value", "inversion", "flip", "kvp", "corrected")
_ORDERS = {
    "instance": "InstanceNumber", "acquisition": "AcquisitionNumber",
    "dimension": "DimensionIndexValues", "content_time": "ContentTime",
}  # fmt: skip
"""What puts volumes in an order, and does not say of what, by the field of `FrameKeys`."""
_SAME_DIGITS = 2
"""Decimals to which numbers agree that are one: headers round them in ways of their own."""


def mixed_values(volumes: Sequence[Sequence[Frame]]) -> Iterator[str]:
    """Yield warnings about volumes whose slices, in order, were not made in one way.

    Where images share places, such differences part them into volumes. Where they lie beside each
    other, or between, they pass for one.

    Raises
    ------
    IngestError
        If a volume is made of two time points, whose slices lie between each other.
    """
    for name in _CONSTANT:
        found = [_values(volume, name) for volume in volumes]
        most = max(found, key=len)
        if len(most) > 1:
            yield f"slices of one volume differ in {WORDS[name]} ({shortened(list(most))})"
    for volume in volumes:
        if _interleaved(volume, "temporal"):
            raise IngestError(
                "images of several temporal positions (TemporalPositionIdentifier) lie between "
                "each other and not at the same places: they are no one volume; take them as "
                "series of their own"
            )
    if any(_interleaved(volume, "acquisition") for volume in volumes):
        yield (
            "images of several acquisitions (AcquisitionNumber) lie between each other: one scan "
            "in interleaved parts, or several scans that were mixed"
        )


def unnamed_axis(volumes: Sequence[Sequence[Frame]], axis: TimeAxis | None, key: str) -> str:
    """Return a warning about a fourth axis of which nothing says what it is; empty for others.

    Parameters
    ----------
    volumes : sequence of sequence of Frame
        The slices of each volume.
    axis : TimeAxis, optional
        What the fourth axis means.
    key : str
        The field of `FrameKeys` that told the volumes apart.
    """
    if axis is None or axis.kind != "index" or key not in _ORDERS:
        return ""
    views = [[_described(frame) for frame in volume] for volume in volumes]
    differing = []
    for name in dict.fromkeys(name for view in views for one in view for name in one):
        found = [{one.get(name) for one in view} for view in views]
        values = dict.fromkeys(value for one in found for value in one)
        if len(values) > 1 and all(len(one) == 1 for one in found):
            differing.append(f"{name} ({shortened(list(values))})")
    words = ", ".join(differing) or "nothing else that is read"
    return (
        f"nothing says what the fourth axis is: its {len(volumes)} volumes are in the order of "
        f"{_ORDERS[key]}, and differ in {words}"
    )


def _described(frame: Frame) -> dict[str, Any]:
    """Return what is known of how a slice was made, by the words for it."""
    found = {words: getattr(frame.keys, name, None) for name, words in WORDS.items()}
    found[WORDS["units"]] = frame.units
    found[WORDS["thickness"]] = frame.thickness_mm
    found |= {name: frame.file.fields[name] for name in NUMBER_KEYWORDS}
    return {n: v for n, v in (found | dict(frame.keys.making)).items() if v not in (None, "")}


def _values(volume: Sequence[Frame], name: str) -> dict[Any, None]:
    """Return the stated values of a key, each once."""
    stated = (getattr(frame.keys, name) for frame in volume)
    return dict.fromkeys(
        round(value, _SAME_DIGITS) if isinstance(value, float) else value
        for value in stated
        if value not in (None, "")
    )


def _interleaved(volume: Sequence[Frame], name: str) -> bool:
    """Return whether the slices of each of several values lie between those of others."""
    values = [getattr(frame.keys, name) for frame in volume]
    counts = Counter(values)
    if None in counts or len(counts) < 2 or min(counts.values()) < 2:
        return False
    return sum(one != other for one, other in pairwise(values)) >= len(counts)
