"""What a DICOM file's header says of the file as a whole: whose it is, pixels, allowed fields."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_elements import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
)
from radiobject.formats.engines import pixels as codecs
from radiobject.formats.engines import pydicom
from radiobject.formats.privacy import ALLOWED_KEYWORDS, NUMBER_KEYWORDS

_PARSE_ERRORS = (
    EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError, NotImplementedError,
    OverflowError, OSError, struct.error, zlib.error, RecursionError,
)  # fmt: skip

_WHOLE_VOLUMES = ("RTDOSE", "NM")
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
NATIVE_SYNTAXES = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED)
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"


def parse_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return what pydicom raises for a file that is damaged, and `others`."""
    own = (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException)
    return (*own, *_PARSE_ERRORS, *others)


class NotDicomError(IngestError):
    """The file is no DICOM object, so it is passed over rather than refused."""


class OtherObjectError(IngestError):
    """A DICOM object that is not meant to be a slice: a scout, a report, a segmentation.

    ``sop_class`` is its SOP class.
    """

    def __init__(self, reason: str, sop_class: str = "") -> None:
        super().__init__(reason)
        self.sop_class = sop_class


class RefusedFileError(IngestError):
    """A DICOM file that cannot be part of a volume.

    ``identity`` and ``description`` say which series it belongs to, None and empty where unknown.
    ``harmless`` is True for an object that is not meant to be a slice, so that a volume is whole
    without it; ``sop_class`` then says what it is.
    """

    def __init__(
        self,
        reason: str,
        identity: SeriesIdentity | None = None,
        description: str = "",
        harmless: bool = False,
        sop_class: str = "",
    ) -> None:
        super().__init__(reason)
        self.identity = identity
        self.description = description
        self.harmless = harmless
        self.sop_class = sop_class

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID, empty where it is not known."""
        return "" if self.identity is None else self.identity.series_uid


@dataclass(frozen=True, slots=True)
class SeriesIdentity:
    """What makes images one series; compared while scanning, and never stored.

    A SeriesInstanceUID alone does not: anonymisers write one for everything.
    """

    patient: str = field(repr=False)
    study_uid: str = field(repr=False)
    series_uid: str
    modality: str
    number: str

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> SeriesIdentity:
        """Return the identity that a header states."""
        number = fields.get("SeriesNumber")
        return cls(
            text_of(fields, "PatientID"),
            text_of(fields, "StudyInstanceUID"),
            text_of(fields, "SeriesInstanceUID"),
            text_of(fields, "Modality"),
            "" if number is None else str(number),
        )


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How one frame's voxels are coded.

    ``inverted`` is True for MONOCHROME1, or where the presentation shape says so: it is meant for
    display, after all transforms (PS3.3 C.7.6.3.1.2), and leaves the values as they are.
    ``has_table`` is True where a modality lookup table stands in place of slope and intercept.
    ``padding`` has the ranges of stored values that are no pixels, None where none are stated.
    ``bits_below`` counts the bits under a value that belong to none: HighBit + 1 - BitsStored.
    """

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    inverted: bool
    has_table: bool = False
    padding: tuple[tuple[int, int], ...] | None = None
    bits_below: int = 0

    @property
    def dtype(self) -> np.dtype:
        """Native type of a stored value."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.bits_allocated // 8}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one decoded frame."""
        return self.rows * self.columns * self.bits_allocated // 8


@dataclass(frozen=True)
class DicomFile:
    """A DICOM image file, without its pixels.

    ``pixel_offset`` is where the Pixel Data element starts in the file, or in what a deflated one
    holds; ``surplus`` counts its bytes beyond the frames that are declared. ``fields`` holds the
    allowed header fields by keyword. ``agreement`` holds what images of one volume must agree in,
    by keyword. ``burned_in`` says that the pixels hold text, which may name the patient. ``piece``
    has identifier, number, count of pieces (0 where not stated) and first frame in a concatenation.
    ``more_places`` counts the places that the header lists beyond the frames.
    """

    path: Path
    identity: SeriesIdentity
    syntax: str
    pixels: PixelFormat
    frames: int
    pixel_offset: int | None
    fields: dict[str, Any]
    image_type: tuple[str, ...]
    sop_uid: str = field(default="", repr=False)
    agreement: Mapping[str, str] = field(default_factory=dict, repr=False)
    study_time: float | None = None
    burned_in: bool = False
    surplus: int = 0
    piece: tuple[str, int, int, int] | None = field(default=None, repr=False)
    more_places: int = 0

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID."""
        return self.identity.series_uid

    @property
    def is_whole_volume(self) -> bool:
        """Whether the file is a volume by itself: a grid of doses, a reconstruction of NM."""
        return self.frames > 1 and self.identity.modality in _WHOLE_VOLUMES


def describe(fields: Any) -> str:
    """Return modality and series description of a header or of its fields, for a report."""
    named = (fields.get(name) for name in ("Modality", "SeriesDescription"))
    return " ".join(str(value) for value in named if value)


def text_of(fields: Mapping[str, Any], keyword: str) -> str:
    """Return a value as text, several of them as DICOM joins them; empty where absent."""
    value = fields.get(keyword)
    if value is None:
        return ""
    if type(value) is str:
        return value.strip()
    return "\\".join(map(str, value)) if isinstance(value, tuple) else str(value).strip()


def element_header_bytes(syntax: str) -> int:
    """Return the bytes of tag, type and length in front of native pixels."""
    return 8 if syntax == IMPLICIT_LITTLE else 12


@lru_cache(maxsize=64)
def undecodable(syntax: str) -> str:
    """Return why pixels of a transfer syntax cannot be decoded here; empty if they can."""
    if syntax in (*NATIVE_SYNTAXES, ENCAPSULATED_UNCOMPRESSED):
        return ""
    name = pydicom.uid.UID(syntax).name
    try:
        decoder = codecs.get_decoder(pydicom.uid.UID(syntax))
    except NotImplementedError:
        return (
            f"its transfer syntax {name!r} cannot be decoded; convert it first (dcmdjpeg, gdcmconv)"
        )
    if decoder.is_available:
        return ""
    return (
        f"its transfer syntax {name!r} needs a codec that is not installed: "
        f"{'; '.join(decoder.missing_dependencies)}"
    )


def pixel_format(fields: Mapping[str, Any]) -> PixelFormat:
    """Return the pixel format, or refuse what is no grey-scale image."""
    missing = [name for name in ("Rows", "Columns", "BitsAllocated") if not fields.get(name)]
    if missing:
        raise OtherObjectError("not an image: it has no rows and columns")
    photometric = text_of(fields, "PhotometricInterpretation") or "MONOCHROME2"
    samples = _integer(fields, "SamplesPerPixel", 1)
    if samples != 1 or photometric not in _MONOCHROME:
        raise OtherObjectError(f"a colour image ({photometric}); only grey values make a volume")
    allocated = _integer(fields, "BitsAllocated", 0)
    if allocated not in (8, 16, 32):
        raise IngestError(f"{allocated} bits per pixel; 8, 16 and 32 can be read")
    stored = _integer(fields, "BitsStored", allocated)
    if not 0 < stored <= allocated:
        raise IngestError(f"BitsStored is {stored} but BitsAllocated {allocated}")
    shape = text_of(fields, "PresentationLUTShape")
    signed = _integer(fields, "PixelRepresentation", 0) == 1
    return PixelFormat(
        rows=_integer(fields, "Rows", 0),
        columns=_integer(fields, "Columns", 0),
        bits_allocated=allocated,
        bits_stored=stored,
        signed=signed,
        inverted=shape == "INVERSE" if shape else photometric == "MONOCHROME1",
        has_table=bool(fields.get("ModalityLUTSequence")),
        padding=_padding(fields, signed, allocated, stored),
        bits_below=_bits_below(fields, stored, allocated),
    )


def _bits_below(fields: Mapping[str, Any], stored: int, allocated: int) -> int:
    """Return how many bits lie below a value; a HighBit that cannot be is passed over."""
    high = _integer(fields, "HighBit", stored - 1)
    return high + 1 - stored if stored <= high < allocated else 0


def _integer(fields: Mapping[str, Any], keyword: str, default: int) -> int:
    value = fields.get(keyword)
    if value is None or value == "":
        return default
    if not isinstance(value, int | float):
        raise IngestError(f"{keyword} must be one number, got {value!r}")
    return int(value)


def _padding(
    fields: Mapping[str, Any], signed: bool, allocated: int, stored: int
) -> tuple[tuple[int, int], ...] | None:
    """Return the ranges of stored values that mean "no pixel here", None where none are stated.

    A value may use more bits than BitsStored: whoever writes it so fills the whole pixel. One that
    no pixel can hold is in no range.
    """
    value = fields.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    other = fields.get("PixelPaddingRangeLimit")
    ends = [value, other if isinstance(other, int) else value]
    if signed:
        ends = [_signed_end(end, allocated, stored) for end in ends]
    elif allocated < 16:
        # -1 as US: the pixel has its lowest bits.
        ends = [
            end - (1 << 16) if end >= (1 << 16) - (1 << (allocated - 1)) else end for end in ends
        ]
    low, high = min(ends), max(ends)
    least = -(1 << (allocated - 1))
    if low < least or high >= (1 << (allocated - 1 if signed else allocated)):
        return ()
    if signed:
        return ((low, high),)
    wide = 1 << allocated
    if low >= 0:
        # A range from a value of the image to one beyond it is none: its ends are.
        parted = low < 1 << stored <= high
        return ((low, low), (high, high)) if parted else ((low, high),)
    below = (low + wide, min(high, -1) + wide)
    return (below,) if high < 0 else ((0, high), below)


def _signed_end(value: int, allocated: int, stored: int) -> int:
    """Return a padding value of signed pixels: US or SS, with the sign written out or not."""
    for bits in (16, allocated, stored):
        if 1 << (bits - 1) <= value < 1 << bits:
            value -= 1 << bits
    return value


def stored_number(value: int, pixels: PixelFormat) -> int:
    """Return a stored value that a header names, which has 16 bits, with the sign of the pixels.

    It is US or SS by PixelRepresentation, and the type that is written is not always that.
    """
    return value - (1 << 16) if pixels.signed and 1 << 15 <= value < 1 << 16 else value


def header_fields(fields: Mapping[str, Any], keep: Sequence[str]) -> dict[str, Any]:
    """Return the allowed and asked-for header fields, by keyword; None where absent.

    A number that cannot be read only describes the scan: it is left out, the scan is not refused.
    """
    names = (*ALLOWED_KEYWORDS, *keep)
    found = {name: _plain(fields[name]) if name in fields else None for name in names}
    for name in NUMBER_KEYWORDS:
        found[name] = number_of(fields, name)
    return found


def number_of(fields: Mapping[str, Any], keyword: str) -> float | None:
    """Return a number, the first of several; None where there is none."""
    value = fields.get(keyword)
    if isinstance(value, tuple) and value:
        value = value[0]
    if isinstance(value, int | float):
        return float(value)
    try:
        return float(value) if isinstance(value, str) and value.strip() else None
    except ValueError:
        return None


def _plain(value: Any) -> str | float | None:
    """Return a header value as a plain scalar; several values are joined as DICOM writes them."""
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, tuple | list):
        return "\\".join(str(part) for part in value)
    return str(value)
