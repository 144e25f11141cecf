"""Which bits of a stored pixel are its value, and which pixels are none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_header import PixelFormat

Ranges = Sequence[tuple[int, int]]


def padding_pixels(stored: NDArray[Any], ranges: Ranges) -> NDArray[np.bool_]:
    """Return where stored values mean "no pixel here" (PS3.3 C.7.5.1.1.2), ends included."""
    found = np.zeros(stored.shape, dtype=bool)
    for low, high in ranges:
        found |= (stored >= low) & (stored <= high)
    return found


def padding_beyond(pixels: PixelFormat) -> Ranges:
    """Return the ranges of padding that use more bits than BitsStored."""
    low, high = _bounds(pixels)
    return [ends for ends in pixels.padding or () if ends[0] < low or ends[1] > high]


def used_bits(
    name: str, stored: NDArray[Any], pixels: PixelFormat, heard: list[str], *, clipped: bool = False
) -> NDArray[Any]:
    """Return values with the bits above BitsStored replaced by the sign, or by zeros.

    Old files keep overlays there (PS3.5 8.1.1), and others state too few bits: it is said. Padding
    that uses them is left whole: without them it would pass for a value of tissue. That is said
    unless it will be `clipped`.

    Raises
    ------
    IngestError
        If HighBit says that values lie higher, and the bits below are used all the same.
    """
    unused = pixels.bits_allocated - pixels.bits_stored
    if unused == 0:
        return stored
    if pixels.bits_below:
        return _moved_down(name, stored, pixels)
    low, high = _bounds(pixels)
    if low <= int(stored.min()) and int(stored.max()) <= high:
        return stored
    above = stored >> pixels.bits_stored
    more = (above != 0) & (above != -1 if pixels.signed else True)
    used = (stored << unused) >> unused
    beyond = padding_beyond(pixels)
    if beyond:
        padding = padding_pixels(stored, beyond)
        used[padding] = stored[padding]
        more &= ~padding
        if padding.any() and not clipped:
            heard.append(
                f"pixels of PixelPaddingValue {_words(beyond)}, beyond the {pixels.bits_stored} "
                "bits of BitsStored, keep it as their value; clip_padding=True (--clip-padding) "
                "gives them the lowest of the others"
            )
    if more.any():
        heard.append(
            f"bits above the {pixels.bits_stored} of BitsStored are used and were left out, as "
            "those of an overlay: if they belong to the values, BitsStored is wrong"
        )
    return used


def _bounds(pixels: PixelFormat) -> tuple[int, int]:
    """Return the lowest and highest value that BitsStored can hold."""
    span = 1 << pixels.bits_stored
    return (-(span // 2), span // 2 - 1) if pixels.signed else (0, span - 1)


def _words(ranges: Ranges) -> str:
    return ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in ranges)


def _moved_down(name: str, stored: NDArray[Any], pixels: PixelFormat) -> NDArray[Any]:
    """Return values that lie above unused bits, as old files have them, where these are empty.

    The standard has wanted HighBit to be BitsStored - 1 since; a header that says otherwise may
    as well be wrong, which bits below that are used would show.
    """
    below = pixels.bits_below
    if (stored & ((1 << below) - 1)).any():
        raise IngestError(
            f"{name}: its HighBit is {below + pixels.bits_stored - 1} and its BitsStored "
            f"{pixels.bits_stored}, so that values lie in the bits from {below} on, but lower bits "
            "are used too: where the values lie is not known; correct the header"
        )
    above = pixels.bits_allocated - pixels.bits_stored - below
    return (stored << above) >> (above + below)
