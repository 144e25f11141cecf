"""The wanted elements of a DICOM file's header, read without building a data set.

pydicom makes an object of every element that it passes, which for an object of ten thousand frames
costs seconds. Here elements are passed over by their length, and only those asked for become
values. Explicit and implicit little endian are read (PS3.5 7.1 and 7.5); whatever else there is,
`read_header` hands to pydicom and returns in the same form.
"""

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

_HEAD = struct.Struct("<HH2sH")
_IMPLICIT_HEAD = struct.Struct("<HHI")
_LONG = struct.Struct("<I")
_LONG_TYPES = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_MAX_DEPTH = 12
_FIRST_READ = 1 << 15
MAX_HEADER_BYTES = 1 << 28
"""Longest header that is read into memory, in bytes: 25 times that of 10,000 frames."""

_BINARY = {
    b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d", b"UV": "Q", b"SV": "q",
}  # fmt: skip
_BYTES = frozenset({b"OB", b"OW", b"UN", b"OF", b"OD", b"OL", b"OV"})
_FREE_TEXT = frozenset({b"LO", b"SH", b"PN", b"LT", b"ST", b"UT", b"UC"})
_ONE_VALUE = frozenset({b"LT", b"ST", b"UT"})

Fields = dict[str, Any]
"""Values by keyword: text, number or tuple of them, bytes, or a list of `Fields` for a sequence."""


class HeaderError(ValueError):
    """The bytes are not the elements of a DICOM data set."""


class _ShortError(Exception):
    """More bytes are needed; ``header`` has what was read by then."""

    header: Header | None = None


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
        Where the pixel data element starts in the file; None for deflated files.
    pixel_tag : int
        Tag of that element; 0 where there is none.
    pixel_vr : bytes
        Its value representation, empty in implicit files.
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
    media_class: str = ""
    stated: bool = True


def read_header(
    stream: Any, wanted: Wanted, enough: Callable[[Fields], bool] | None = None
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

    Raises
    ------
    HeaderError
        If the bytes are no DICOM data set, or over `MAX_HEADER_BYTES` come before the pixels.
    """
    size = _FIRST_READ
    while True:
        stream.seek(0)
        content = stream.read(size)
        whole = len(content) < size
        try:
            return _parse(content, wanted, stream, whole)
        except _ShortError as short:
            if short.header is not None and enough is not None and enough(short.header.fields):
                return short.header
            if whole:
                raise HeaderError("it ends within an element") from None
            if size == MAX_HEADER_BYTES:
                raise HeaderError(f"over {MAX_HEADER_BYTES:,} bytes before its pixels") from None
            size = min(size * 8, MAX_HEADER_BYTES)


def _parse(content: bytes, wanted: Wanted, stream: Any, whole: bool) -> Header:
    start = 132 if content[128:132] == b"DICM" else 0
    meta, start = _file_meta(content, start)
    syntax = meta.get("TransferSyntaxUID", "")
    media_class = meta.get("MediaStorageSOPClassUID", "")
    stated = bool(syntax)
    if not stated:
        syntax = _guessed_syntax(content, start)
    if syntax in (EXPLICIT_BIG, DEFLATED):
        return _through_pydicom(stream, wanted, syntax, media_class)
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
    return Header(
        found, fields, at if walk.pixel_tag else None, walk.pixel_tag, walk.pixel_vr,
        media_class, stated,
    )  # fmt: skip


def _file_meta(content: bytes, at: int) -> tuple[dict[str, str], int]:
    """Return the file meta information (group 2, explicit little endian), and where it ends."""
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


def _text(raw: bytes) -> str | tuple[str, ...]:
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


_DECODERS: dict[bytes, Callable[[bytes], Any]] = {
    b"DS": _decimal, b"IS": _whole, b"AT": _tags,
    **{vr: _numbers(code) for vr, code in _BINARY.items()},
    **dict.fromkeys(_BYTES, bytes),
}  # fmt: skip


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
                if tag in _PIXELS and top:
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
                if length == _UNDEFINED:
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
            if length == _UNDEFINED:
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
        decode = _DECODERS.get(vr)
        if decode is not None:
            return decode(raw)
        value = _text(raw)
        if vr in _FREE_TEXT:
            return self._free_text(raw, vr) if self.encodings or not raw.isascii() else value
        if keyword == "SpecificCharacterSet" and value:
            stated = [value] if isinstance(value, str) else list(value)
            self.encodings = pydicom.charset.convert_encodings(stated)
        return value

    def _free_text(self, raw: bytes, vr: bytes) -> Any:
        reps = pydicom.valuerep
        marks = reps.PN_DELIMS if vr == b"PN" else reps.TEXT_VR_DELIMS
        text = pydicom.charset.decode_bytes(raw, self.encodings or ["utf8"], marks)
        text = text.strip("\0 ")
        if vr in _ONE_VALUE or "\\" not in text:
            return text
        return tuple(part.strip() for part in text.split("\\"))

    def items(self, at: int, length: int, end: int, depth: int) -> tuple[list[Fields], int]:
        """Return the items of a sequence and where it ends."""
        content = self.content
        found: list[Fields] = []
        stop = end if length == _UNDEFINED else at + length
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
            if size == _UNDEFINED:
                fields, at = self.elements(at, stop, depth)
            else:
                if at + size > stop:
                    raise _ShortError
                fields, _ = self.elements(at, at + size, depth)
                at += size
            found.append(fields)
        if length == _UNDEFINED:
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
            if size != _UNDEFINED:
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
            at = self.skip_sequence(at, depth + 1) if length == _UNDEFINED else at + length


def _through_pydicom(stream: Any, wanted: Wanted, syntax: str, media_class: str) -> Header:
    """Return the header of a deflated or big-endian file."""
    stream.seek(0)
    dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
    offset = None if syntax == DEFLATED else stream.tell()
    tag, vr = 0, b""
    if offset is not None:
        head = stream.read(8)
        if len(head) == 8:
            group, element, vr = struct.unpack(">HH2s", head[:6])
            tag = group << 16 | element
    elif dataset.get("Rows"):
        tag = 0x7FE00010
    if tag not in _PIXELS:
        offset, tag = None, 0
    return Header(syntax, _plain_fields(dataset, wanted), offset, tag, vr, media_class)


def _plain_fields(dataset: Any, wanted: Wanted) -> Fields:
    found: Fields = {}
    for tag, (keyword, _) in wanted.public.items():
        element = dataset.get(tag)
        if element is None:
            continue
        if element.VR == "SQ":
            found[keyword] = [_plain_fields(item, wanted) for item in element.value]
        else:
            found[keyword] = _plain_value(element)
    for (group, creator, low), (name, _) in wanted.private.items():
        try:
            element = dataset.private_block(group, creator)[low]
        except KeyError:
            continue
        found[name] = _plain_value(element)
    return found


def _plain_value(element: Any) -> Any:
    def one(value: Any) -> Any:
        if element.VR in ("DS",):
            return float(value)
        if element.VR in ("IS", "AT", "US", "SS", "UL", "SL"):
            return int(value)
        return value if isinstance(value, int | float | bytes) else str(value)

    value = element.value
    if value is None or value == "":
        return None if element.VR in ("DS", "IS") else ""
    if element.VM > 1:
        return tuple(one(part) for part in value)
    return one(value)
