"""The wanted elements of a DICOM file's header, read without building a data set.

pydicom makes an object of every element that it passes, which for an object of ten thousand frames
costs seconds. Here elements are passed over by their length, and only those asked for become
values. Explicit and implicit little endian are read (PS3.5 7.1 and 7.5), deflated or not; files in
big endian go through pydicom and come back in the same form.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

from radiobject.formats.dicom_big_endian import big_endian_header
from radiobject.formats.dicom_elements import (
    DECODERS,
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    PIXEL_TAGS,
    UNDEFINED_LENGTH,
    Fields,
    Header,
    HeaderError,
    Wanted,
    text_value,
)
from radiobject.formats.engines import pydicom

_HEAD = struct.Struct("<HH2sH")
_IMPLICIT_HEAD = struct.Struct("<HHI")
_LONG = struct.Struct("<I")
_LONG_TYPES = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_MAX_DEPTH = 12
FIRST_READ = 1 << 15
"""Bytes that are read at once, which hold the header of most images."""
MAX_HEADER_BYTES = 1 << 28
"""Longest header that is read into memory, in bytes: 25 times that of 10,000 frames."""

_FREE_TEXT = frozenset({b"LO", b"SH", b"PN", b"LT", b"ST", b"UT", b"UC"})
_ONE_VALUE = frozenset({b"LT", b"ST", b"UT"})
_ESCAPE = b"\x1b"


class _ShortError(Exception):
    """More bytes are needed; ``header`` has what was read by then."""

    header: Header | None = None


def read_header(
    stream: Any,
    wanted: Wanted,
    enough: Callable[[Fields], bool] | None = None,
    start: bytes | None = None,
) -> Header:
    """Return the header of an open DICOM file.

    Parameters
    ----------
    stream : binary file
        At any position; it is read from its start.
    wanted : Wanted
        What to read.
    enough : callable, optional
        Tells from the first values that the rest need not be read; there are no pixels then.
    start : bytes, optional
        The first `FIRST_READ` bytes, or all of a shorter file, where they were read already.

    Raises
    ------
    HeaderError
        If the bytes are no DICOM data set, or over `MAX_HEADER_BYTES` come before the pixels.
    """
    size = FIRST_READ
    while True:
        if start is None:
            stream.seek(0)
            start = stream.read(size)
        content, start = start, None
        whole = len(content) < size
        meta, at = _file_meta(content)
        if meta.get("TransferSyntaxUID") == DEFLATED:
            content, cut = inflated(content[at:], size)
            whole, at = whole and not cut, 0
        try:
            return _parse(content, at, meta, wanted, stream, whole)
        except _ShortError as short:
            if short.header is not None and enough is not None and enough(short.header.fields):
                return short.header
            if whole:
                raise HeaderError("it ends within an element") from None
            if size == MAX_HEADER_BYTES:
                raise HeaderError(f"over {MAX_HEADER_BYTES:,} bytes before its pixels") from None
            size = min(size * 8, MAX_HEADER_BYTES)


def inflated(content: bytes, most: int) -> tuple[bytes, bool]:
    """Return what a deflated data set holds, `most` bytes at most, and whether there is more.

    Raises
    ------
    zlib.error
        If it is damaged.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    found = stream.decompress(content, most)
    return found, len(found) == most and not stream.eof


def _parse(
    content: bytes, start: int, meta: dict[str, str], wanted: Wanted, stream: Any, whole: bool
) -> Header:
    """Return the header of a data set that begins at `start`."""
    syntax = meta.get("TransferSyntaxUID", "")
    media_class = meta.get("MediaStorageSOPClassUID", "")
    stated = bool(syntax)
    if not stated:
        syntax = _guessed_syntax(content, start)
    if syntax == EXPLICIT_BIG:
        return big_endian_header(stream, wanted, media_class)
    explicit = syntax != IMPLICIT_LITTLE
    if explicit and not _looks_explicit(content, start) and len(content) > start + 8:
        # Some writers state one coding and use the other.
        explicit = False
    walk = _Walk(content, wanted, explicit)
    try:
        fields, at = walk.elements(start, len(content), 0, top=True)
    except (_ShortError, struct.error, IndexError) as error:
        short = _ShortError()
        short.header = Header(syntax, walk.first, media_class=media_class, stated=stated)
        raise short from error
    if not walk.pixel_tag and not whole:
        raise _ShortError
    found = IMPLICIT_LITTLE if not explicit and syntax == EXPLICIT_LITTLE else syntax
    length = None
    if walk.pixel_tag:
        place = at + 8 if explicit else at + 4
        if len(content) >= place + 4:
            (length,) = _LONG.unpack_from(content, place)
        elif not whole:
            raise _ShortError
    return Header(
        found, fields, at if walk.pixel_tag else None, walk.pixel_tag, walk.pixel_vr, length,
        media_class, stated,
    )  # fmt: skip


def meta_end(content: bytes) -> int:
    """Return where the data set of a file begins: behind preamble and file meta information."""
    return _file_meta(content)[1]


def _file_meta(content: bytes) -> tuple[dict[str, str], int]:
    """Return the file meta information (group 2, explicit little endian), and where it ends."""
    at = 132 if content[128:132] == b"DICM" else 0
    names = {0x0010: "TransferSyntaxUID", 0x0002: "MediaStorageSOPClassUID"}
    found: dict[str, str] = {}
    while len(content) >= at + 8 and content[at : at + 2] == b"\x02\x00":
        _, element, vr, length = _HEAD.unpack_from(content, at)
        at += 8
        if vr in _LONG_TYPES:
            (length,) = _LONG.unpack_from(content, at)
            at += 4
        elif not vr.isalpha():
            (length,) = _LONG.unpack_from(content, at - 4)
        if element in names:
            text = content[at : at + length].decode("ascii", "replace")
            found[names[element]] = text.strip("\0 ")
        at += length
    return found, at


def _looks_explicit(content: bytes, at: int) -> bool:
    vr = content[at + 4 : at + 6]
    return len(vr) == 2 and vr.isalpha() and vr.isupper()


def _guessed_syntax(content: bytes, at: int) -> str:
    """Return the coding of a data set that does not say it: implicit little endian by default."""
    if len(content) >= at + 8 and content[at] == 0 and content[at + 1] in (2, 8):
        return EXPLICIT_BIG
    return EXPLICIT_LITTLE if _looks_explicit(content, at) else IMPLICIT_LITTLE


def _known_sets(stated: list[str]) -> list[str]:
    """Return the character sets by the names of the standard; the default one for unknown ones."""
    known = pydicom.charset.python_encoding
    corrected = [re.sub(r"^ISO([ _-]?2022)?[ _-]?IR[ _-]?", _set_prefix, name) for name in stated]
    return [name if name in known else "" for name in corrected]


def _set_prefix(match: re.Match[str]) -> str:
    return "ISO 2022 IR " if match[1] else "ISO_IR "


class _Walk:
    """One pass over the elements of a data set."""

    def __init__(self, content: bytes, wanted: Wanted, explicit: bool) -> None:
        self.content = content
        self.public = wanted.public
        self.private = wanted.private
        self.private_groups = {group for group, _, _ in wanted.private}
        self.explicit = explicit
        self.pixel_tag = 0
        self.pixel_vr = b""
        self.encodings: list[str] = []
        self.first: Fields = {}

    def elements(self, at: int, end: int, depth: int, *, top: bool = False) -> tuple[Fields, int]:
        """Return the wanted elements up to `end`, an item's end or the pixels, and where."""
        content, public, explicit = self.content, self.public, self.explicit
        head, implicit_head = _HEAD.unpack_from, _IMPLICIT_HEAD.unpack_from
        private_groups = self.private_groups
        found: Fields = {}
        if top:
            self.first = found
        creators: dict[int, str] = {}
        if depth > _MAX_DEPTH:
            raise HeaderError("sequences are nested too deeply")
        while at + 8 <= end:
            vr = b""
            if explicit:
                group, element, vr, length = head(content, at)
                tag = group << 16 | element
            else:
                group, element, length = implicit_head(content, at)
                tag = group << 16 | element
            if group >= 0x7FE0:
                if tag in PIXEL_TAGS and top:
                    self.pixel_tag, self.pixel_vr = tag, vr
                    return found, at
                if tag == _ITEM_END:
                    return found, at + 8
            if explicit:
                if vr in _LONG_TYPES:
                    (length,) = _LONG.unpack_from(content, at + 8)
                    at += 12
                elif tag >> 16 == 0xFFFE or not vr.isalpha():
                    raise HeaderError(f"no element at byte {at}")
                else:
                    at += 8
            else:
                at += 8
            name = public.get(tag)
            if name is None and group in private_groups:
                name = self._private(group, element, at, length, creators)
            if name is None:
                if length == UNDEFINED_LENGTH:
                    at = self._inside(vr).skip_sequence(at, depth + 1)
                else:
                    at += length
                    if at > end:
                        raise _ShortError
                continue
            keyword, known = name
            within = self
            if vr == b"UN" or not vr:
                within, vr = self._inside(vr), known
            if vr == b"SQ":
                found[keyword], at = within.items(at, length, end, depth + 1)
                continue
            if length == UNDEFINED_LENGTH:
                at = within.skip_sequence(at, depth + 1)
                continue
            stop = at + length
            if stop > end:
                raise _ShortError
            found[keyword] = self.value(content[at:stop], vr, keyword)
            at = stop
        if at < end and not top:
            raise HeaderError("it ends within an element")
        return found, at

    def _inside(self, vr: bytes) -> _Walk:
        """Return the walk over a sequence's items: those of unknown type are implicit."""
        if vr != b"UN":
            return self
        walk = _Walk(self.content, Wanted(self.public, self.private), explicit=False)
        walk.encodings = self.encodings
        return walk

    def _private(
        self, group: int, element: int, at: int, length: int, creators: dict[int, str]
    ) -> tuple[str, bytes] | None:
        if 0x10 <= element <= 0xFF:
            creators[element] = self.content[at : at + length].decode("latin-1").strip("\0 ")
            return None
        creator = creators.get(element >> 8)
        return None if creator is None else self.private.get((group, creator, element & 0xFF))

    def value(self, raw: bytes, vr: bytes, keyword: str) -> Any:
        decode = DECODERS.get(vr)
        if decode is not None:
            return decode(raw)
        value = text_value(raw)
        if vr in _FREE_TEXT:
            return self._free_text(raw, vr) if self.encodings or not raw.isascii() else value
        if keyword == "SpecificCharacterSet" and value:
            stated = [value] if isinstance(value, str) else list(value)
            self.encodings = pydicom.charset.convert_encodings(_known_sets(stated))
        return value

    def _free_text(self, raw: bytes, vr: bytes) -> Any:
        encodings = self.encodings or ["utf8"]
        if _ESCAPE in raw:
            reps = pydicom.valuerep
            marks = reps.PN_DELIMS if vr == b"PN" else reps.TEXT_VR_DELIMS
            text = pydicom.charset.decode_bytes(raw, encodings, marks)
        else:
            text = raw.decode(encodings[0], "replace")
        text = text.strip("\0 ")
        if vr in _ONE_VALUE or "\\" not in text:
            return text
        return tuple(part.strip() for part in text.split("\\"))

    def items(self, at: int, length: int, end: int, depth: int) -> tuple[list[Fields], int]:
        """Return the items of a sequence and where it ends."""
        content = self.content
        found: list[Fields] = []
        stop = end if length == UNDEFINED_LENGTH else at + length
        if stop > end:
            raise _ShortError
        while at + 8 <= stop:
            group, element, size = _IMPLICIT_HEAD.unpack_from(content, at)
            tag = group << 16 | element
            at += 8
            if tag == _SEQUENCE_END:
                return found, at
            if tag != _ITEM:
                raise HeaderError(f"no item of a sequence at byte {at - 8}")
            if size == UNDEFINED_LENGTH:
                fields, at = self.elements(at, stop, depth)
            else:
                if at + size > stop:
                    raise _ShortError
                fields, _ = self.elements(at, at + size, depth)
                at += size
            found.append(fields)
        if length == UNDEFINED_LENGTH:
            raise _ShortError
        return found, at

    def skip_sequence(self, at: int, depth: int) -> int:
        """Return where a sequence of undefined length ends."""
        content = self.content
        if depth > _MAX_DEPTH:
            raise HeaderError("sequences are nested too deeply")
        while True:
            group, element, size = _IMPLICIT_HEAD.unpack_from(content, at)
            tag = group << 16 | element
            at += 8
            if tag == _SEQUENCE_END:
                return at
            if tag != _ITEM:
                raise HeaderError(f"no item of a sequence at byte {at - 8}")
            if size != UNDEFINED_LENGTH:
                at += size
                continue
            at = self._skip_item(at, depth)

    def _skip_item(self, at: int, depth: int) -> int:
        content = self.content
        while True:
            if self.explicit:
                group, element, vr, length = _HEAD.unpack_from(content, at)
                tag = group << 16 | element
                if tag == _ITEM_END:
                    return at + 8
                at += 8
                if vr in _LONG_TYPES:
                    (length,) = _LONG.unpack_from(content, at)
                    at += 4
            else:
                group, element, length = _IMPLICIT_HEAD.unpack_from(content, at)
                tag = group << 16 | element
                at += 8
                if tag == _ITEM_END:
                    return at
            at = self.skip_sequence(at, depth + 1) if length == UNDEFINED_LENGTH else at + length
