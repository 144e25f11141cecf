"""What a DICOM file's header says of the file as a whole: pixel format and allowed fields."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radiobject.exceptions import IngestError
from radiobject.formats.engines import pydicom
from radiobject.formats.privacy import ALLOWED_KEYWORDS, NUMBER_KEYWORDS

_PARSE_ERRORS = (
    EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError, NotImplementedError,
    OverflowError, OSError, struct.error, zlib.error, RecursionError,
)  # fmt: skip

_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
NATIVE_SYNTAXES = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG)
DEFLATED = "1.2.840.10008.1.2.1.99"


def parse_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return what pydicom raises for a file that is damaged, and `others`."""
    own = (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException)
    return (*own, *_PARSE_ERRORS, *others)


class NotDicomError(IngestError):
    """The file is no DICOM object, so it is passed over rather than refused."""


class OtherObjectError(IngestError):
    """A DICOM object that is not meant to be a slice: a scout, a report, a segmentation."""


class RefusedFileError(IngestError):
    """A DICOM file that cannot be part of a volume.

    ``series_uid`` and ``description`` say which series it belongs to, empty where unknown.
    ``harmless`` is True for an object that is not meant to be a slice, so that a volume is whole
    without it.
    """

    def __init__(
        self, reason: str, series_uid: str = "", description: str = "", harmless: bool = False
    ) -> None:
        super().__init__(reason)
        self.series_uid = series_uid
        self.description = description
        self.harmless = harmless


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How one frame's voxels are coded.

    ``inverted`` is True for MONOCHROME1, or where the presentation shape says so: the smallest
    stored value is then the brightest.
    """

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    inverted: bool

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

    ``pixel_offset`` is where the Pixel Data element starts in the file, None where the file must
    be parsed anew (deflated). ``fields`` holds the allowed header fields by keyword.
    """

    path: Path
    series_uid: str
    syntax: str
    pixels: PixelFormat
    frames: int
    pixel_offset: int | None
    fields: dict[str, Any]
    image_type: tuple[str, ...]


def describe(fields: Any) -> str:
    """Return modality and series description of a data set or of its fields, for a report."""
    named = (fields.get(name) for name in ("Modality", "SeriesDescription"))
    return " ".join(str(value) for value in named if value)


def element_header_bytes(syntax: str) -> int:
    """Return the bytes of tag, type and length in front of native pixels."""
    return 8 if syntax == IMPLICIT_LITTLE else 12


def file_meta(dataset: Any, keyword: str) -> str:
    """Return a field of the file meta information as text, empty where it is absent."""
    return str(getattr(dataset, "file_meta", {}).get(keyword, ""))


def pixel_format(dataset: Any) -> PixelFormat:
    """Return the pixel format, or refuse what is no grey-scale image."""
    if "Rows" not in dataset or "Columns" not in dataset or "BitsAllocated" not in dataset:
        raise OtherObjectError("not an image: it has no rows and columns")
    photometric = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2").strip()
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if samples != 1 or photometric not in _MONOCHROME:
        raise OtherObjectError(f"a colour image ({photometric}); only grey values make a volume")
    if "ModalityLUTSequence" in dataset:
        raise IngestError("a modality lookup table instead of a slope; convert the series first")
    allocated = int(dataset.BitsAllocated)
    if allocated not in (8, 16, 32):
        raise IngestError(f"{allocated} bits per pixel; 8, 16 and 32 can be read")
    stored = int(dataset.get("BitsStored") or allocated)
    if not 0 < stored <= allocated:
        raise IngestError(f"BitsStored is {stored} but BitsAllocated {allocated}")
    shape = str(dataset.get("PresentationLUTShape") or "").strip()
    return PixelFormat(
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        bits_allocated=allocated,
        bits_stored=stored,
        signed=int(dataset.get("PixelRepresentation") or 0) == 1,
        inverted=shape == "INVERSE" if shape else photometric == "MONOCHROME1",
    )


def header_fields(dataset: Any, keep: Sequence[str]) -> dict[str, Any]:
    """Return the allowed and asked-for header fields, by keyword; None where absent.

    A number that cannot be read only describes the scan: it is left out, the scan is not refused.
    """
    fields = {name: _plain(dataset.get(name)) for name in (*ALLOWED_KEYWORDS, *keep)}
    for name in NUMBER_KEYWORDS:
        value = fields[name]
        try:
            fields[name] = None if value is None else float(value)
        except ValueError:
            fields[name] = None
    return fields


def _plain(value: Any) -> str | float | int | None:
    """Return a header value as a plain scalar; several values are joined as DICOM writes them."""
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Sequence):
        return "\\".join(str(part) for part in value)
    return str(value)
