"""Headers of big-endian files, which are old and few: read by pydicom, given in our form."""

from __future__ import annotations

import struct
from typing import Any

from radiobject.formats.dicom_elements import (
    EXPLICIT_BIG,
    PIXEL_TAGS,
    Fields,
    Header,
    Wanted,
)
from radiobject.formats.engines import pydicom


def big_endian_header(stream: Any, wanted: Wanted, media_class: str) -> Header:
    """Return the header of a big-endian file; errors as pydicom's."""
    stream.seek(0)
    dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
    offset: int | None = stream.tell()
    head = stream.read(12)
    tag, vr, length = 0, b"", None
    if len(head) >= 8:
        group, element, vr = struct.unpack(">HH2s", head[:6])
        tag = group << 16 | element
    if tag not in PIXEL_TAGS:
        offset, tag = None, 0
    elif len(head) == 12:
        (length,) = struct.unpack(">I", head[8:])
    fields = _plain_fields(dataset, wanted)
    return Header(EXPLICIT_BIG, fields, offset, tag, vr, length, media_class)


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
