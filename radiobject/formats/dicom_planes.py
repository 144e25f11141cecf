"""Planes of objects that state their places in ways of their own: dose, nuclear medicine, UIH."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_geometry import (
    ORIENTATION_TOLERANCE,
    ROUNDING_MM,
    slice_normal,
)
from radiobject.formats.dicom_header import number_of, text_of
from radiobject.formats.dicom_mosaic import MosaicTile, tile_windows

_SLICE_VECTOR = 0x00540080
_LISTS = ("PerFrameFunctionalGroupsSequence", "GridFrameOffsetVector", "SliceVector")
_UIH = "Image Private Header"
UIH_ELEMENTS = {
    (0x0065, _UIH, 0x50): ("UIHSlices", b"DS"),
    (0x0065, _UIH, 0x51): ("UIHFrameSequence", b"SQ"),
}
"""How many slices a grid of United Imaging has, and an item with the place of each."""


def dose_positions(
    view: Mapping[str, Any], count: int, position: Sequence[float], orientation: Sequence[float]
) -> list[tuple[float, ...]]:
    """Return the position of each frame of a dose grid (PS3.3 C.8.8.3.2).

    Offsets count along the normal from the first frame. A vector that starts at the z of the first
    plane, and not at 0, has the z of each: of the patient, wherever the normal points.
    """
    value = view["GridFrameOffsetVector"]
    offsets = value if isinstance(value, tuple) else (value,)
    if len(offsets) < count:
        raise IngestError(f"GridFrameOffsetVector has {len(offsets)} entries for {count} frames")
    if not all(isinstance(part, int | float) and math.isfinite(part) for part in offsets):
        raise IngestError("GridFrameOffsetVector must be finite numbers")
    along = slice_normal(orientation)
    if offsets[0] != 0 and abs(offsets[0] - position[2]) <= ROUNDING_MM:
        if abs(along[2]) < 1 - ORIENTATION_TOLERANCE:
            raise IngestError(
                "GridFrameOffsetVector has coordinates of planes that are not transverse: where "
                "they lie is not known"
            )
        along = np.array([0.0, 0.0, 1.0])
    steps = np.array(offsets[:count]) - offsets[0]
    moved = np.asarray(position, dtype=np.float64) + steps[:, None] * along
    return [tuple(row) for row in moved.tolist()]


def places_listed(fields: Mapping[str, Any]) -> int:
    """Return how many frames a header states the places of, 0 where it has no list of them."""
    lists = (fields.get(name) for name in _LISTS)
    return max(len(one) if isinstance(one, list | tuple) else 0 for one in lists)


def nuclear_frames(view: Mapping[str, Any], count: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each frame of a reconstructed nuclear-medicine object with its own header.

    The detector's item places the first slice; the others follow along the normal, numbered by
    SliceVector (PS3.3 C.8.4.7 and C.8.4.15). SpacingBetweenSlices may be negative.
    """
    kind = text_of(view, "ImageType").upper()
    if "TOMO" not in kind or "RECON" not in kind:
        raise IngestError(
            f"a nuclear-medicine image of the type {kind or 'unknown'!r}: only reconstructed "
            "tomography (RECON TOMO) is a volume"
        )
    detectors = view["DetectorInformationSequence"]
    place = detectors[0] if detectors else {}
    first, orientation = place.get("ImagePositionPatient"), place.get("ImageOrientationPatient")
    if not (isinstance(first, tuple) and isinstance(orientation, tuple) and len(first) == 3):
        raise IngestError("a nuclear-medicine image whose detector states no position")
    step = number_of(view, "SpacingBetweenSlices")
    if step is None:
        step = number_of(view, "SliceThickness")
    if step is None and count > 1:
        raise IngestError("a nuclear-medicine image without SpacingBetweenSlices")
    pointer = view.get("FrameIncrementPointer")
    pointers = pointer if isinstance(pointer, tuple) else (pointer,)
    if count > 1 and pointers not in ((_SLICE_VECTOR,), (None,)):
        raise IngestError("a gated or dynamic nuclear-medicine image is not one volume")
    vector = view.get("SliceVector")
    numbers = vector if isinstance(vector, tuple) else tuple(range(1, count + 1))
    if len(numbers) < count:
        raise IngestError(f"SliceVector has {len(numbers)} entries for {count} frames")
    normal = slice_normal(orientation)
    for index in range(count):
        moved = np.asarray(first) + normal * (step or 0.0) * (numbers[index] - numbers[0])
        yield (
            index,
            {
                **view,
                "ImagePositionPatient": tuple(moved.tolist()),
                "ImageOrientationPatient": orientation,
            },
        )


def is_uih_grid(view: Mapping[str, Any]) -> bool:
    """Return whether an image is a grid of slices as United Imaging writes it."""
    return bool(view.get("UIHFrameSequence")) and (number_of(view, "UIHSlices") or 0) > 1


def uih_tiles(
    view: Mapping[str, Any],
    position: Sequence[float],
    orientation: Sequence[float],
    spacing_mm: tuple[float, float],
    step_mm: float | None,
) -> list[MosaicTile]:
    """Return the slices of a United Imaging grid; each has an item with its own position."""
    items = view["UIHFrameSequence"]
    count = int(number_of(view, "UIHSlices") or 0)
    if len(items) != count:
        raise IngestError(
            f"a grid of {count} slices by the maker's count that lists the places of {len(items)}"
        )
    places = [item.get("ImagePositionPatient") for item in items]
    if not all(isinstance(place, tuple) and len(place) == 3 for place in places):
        raise IngestError("a grid of slices that does not state the position of each")
    windows = tile_windows(count, int(view["Rows"]), int(view["Columns"]))
    return [MosaicTile(window, place) for window, place in zip(windows, places, strict=True)]
