"""What a DICOM header is read into: the elements that are wanted, and their values."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from radiobject.formats.engines import pydicom

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
UNDEFINED_LENGTH = 0xFFFFFFFF

_BINARY = {
    b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d", b"UV": "Q", b"SV": "q",
}  # fmt: skip
_BYTES = frozenset({b"OB", b"OW", b"UN", b"OF", b"OD", b"OL", b"OV"})

Fields = dict[str, Any]
"""Values by keyword: text, number or tuple of them, bytes, or a list of `Fields` for a sequence."""


class HeaderError(ValueError):
    """The bytes are not the elements of a DICOM data set."""


@dataclass(frozen=True)
class Wanted:
    """The elements to read, at every depth.

    Parameters
    ----------
    public : mapping of int to (str, bytes)
        Keyword and value representation, by tag.
    private : mapping of (int, str, int) to (str, bytes)
        Name and value representation, by group, creator and last byte of the element.
    """

    public: Mapping[int, tuple[str, bytes]]
    private: Mapping[tuple[int, str, int], tuple[str, bytes]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        keywords: tuple[str, ...],
        private: Mapping[tuple[int, str, int], tuple[str, bytes]] | None = None,
    ) -> Wanted:
        """Return what public keywords and private elements ask for."""
        public = {}
        for keyword in ("SpecificCharacterSet", *keywords):
            tag = pydicom.datadict.tag_for_keyword(keyword)
            if tag is not None:
                public[int(tag)] = (keyword, pydicom.datadict.dictionary_VR(tag)[:2].encode())
        return cls(public, dict(private or {}))


@dataclass
class Header:
    """What a file's header says, and where its pixels are.

    Parameters
    ----------
    syntax : str
        Transfer syntax; guessed from the bytes where the file does not state it.
    fields : dict
        The wanted values.
    pixel_offset : int, optional
        Where the pixel data element starts in the file, or in what a deflated one holds.
    pixel_tag : int
        Tag of that element; 0 where there is none.
    pixel_vr : bytes
        Its value representation, empty in implicit files.
    pixel_length : int, optional
        Its length in bytes, `UNDEFINED_LENGTH` where it is cut into fragments; None if unknown.
    media_class : str
        SOP class of the file meta information.
    stated : bool
        Whether the file states its transfer syntax.
    """

    syntax: str
    fields: Fields
    pixel_offset: int | None = None
    pixel_tag: int = 0
    pixel_vr: bytes = b""
    pixel_length: int | None = None
    media_class: str = ""
    stated: bool = True


def text_value(raw: bytes) -> str | tuple[str, ...]:
    """Return a text of the default characters; several values as a tuple."""
    text = raw.decode("latin-1").strip("\0 ")
    return tuple(part.strip() for part in text.split("\\")) if "\\" in text else text


def _decimal(raw: bytes) -> Any:
    text = raw.decode("latin-1").strip("\0 ")
    try:
        if "\\" in text:
            return tuple([float(part) if part.strip() else None for part in text.split("\\")])
        return float(text) if text else None
    except ValueError:
        return text


def _whole(raw: bytes) -> Any:
    text = raw.decode("latin-1").strip("\0 ")
    try:
        if "\\" in text:
            return tuple([int(part) for part in text.split("\\")])
        return int(text) if text else None
    except ValueError:
        return _whole_number(text)


def _whole_number(text: str) -> Any:
    """Return the number of a text such as "5.0", which some write; else the text."""
    try:
        number = float(text)
        return int(number) if number.is_integer() else text
    except (ValueError, OverflowError):
        return text


def _numbers(code: str) -> Callable[[bytes], Any]:
    size = struct.calcsize(code)
    one = struct.Struct(f"<{code}")

    def decode(raw: bytes) -> Any:
        if len(raw) == size:
            return one.unpack(raw)[0]
        count = len(raw) // size
        return struct.unpack_from(f"<{count}{code}", raw) if count else None

    return decode


def _tags(raw: bytes) -> Any:
    pairs = struct.iter_unpack("<HH", raw[: len(raw) // 4 * 4])
    values = tuple((group << 16) | element for group, element in pairs)
    return values[0] if len(values) == 1 else values


DECODERS: dict[bytes, Callable[[bytes], Any]] = {
    b"DS": _decimal, b"IS": _whole, b"AT": _tags,
    **{vr: _numbers(code) for vr, code in _BINARY.items()},
    **dict.fromkeys(_BYTES, bytes),
}  # fmt: skip
