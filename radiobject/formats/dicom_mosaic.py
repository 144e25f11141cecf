"""Siemens mosaics: a whole volume tiled into one image, taken apart into its slices.

How the tiles lie and where the first slice is follows from Siemens' private CSA header, in the
layout that nibabel documents ("Siemens mosaic format"). Of that header the number of slices,
their normal and the diffusion gradient are read; nothing else of it is kept.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_geometry import slice_normal

CSA_ELEMENT = {(0x0029, "SIEMENS CSA HEADER", 0x10): ("CSAImageHeader", b"OB")}
"""The CSA image header, by group, private creator and element."""

_MAGIC = b"SV10"
_MAX_TAGS = 1000


@dataclass(frozen=True, slots=True)
class Window:
    """The part of an image that is one slice: rows and columns, end excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The slices that cut the part out of an array (rows, columns)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True, slots=True)
class MosaicTile:
    """One slice of a mosaic: its part of the image and its position, LPS+ mm."""

    window: Window
    position: tuple[float, ...]


def mosaic_tiles(
    fields: Mapping[str, Any],
    position: Sequence[float],
    orientation: Sequence[float],
    spacing_mm: tuple[float, float],
    step_mm: float | None,
) -> list[MosaicTile]:
    """Return the slices of a mosaic.

    Parameters
    ----------
    fields : mapping
        With the element of `CSA_ELEMENT`, Rows and Columns.
    position, orientation : sequence of float
        ImagePositionPatient and ImageOrientationPatient. The position is that of a plane as large
        as the whole mosaic, centred on the first slice.
    spacing_mm : tuple of float
        Distance between rows, then between columns.
    step_mm : float, optional
        Distance between slices.

    Raises
    ------
    IngestError
        If the CSA header is missing or damaged, or the image cannot be tiled so.
    """
    csa = _csa_header(fields)
    count, csa_normal = _slice_count(csa), _numbers(csa, "SliceNormalVector", 3)
    rows, columns = int(fields["Rows"]), int(fields["Columns"])
    windows = tile_windows(count, rows, columns)
    if step_mm is None or not step_mm > 0:
        raise IngestError("a mosaic without SpacingBetweenSlices or SliceThickness")
    height, width = windows[0].bottom, windows[0].right
    normal = slice_normal(orientation)
    if float(normal @ csa_normal) < 0:
        normal = -normal
    along_row, along_column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    first = (
        np.asarray(position, dtype=np.float64)
        + along_row * spacing_mm[1] * (columns - width) / 2
        + along_column * spacing_mm[0] * (rows - height) / 2
    )
    places = (first + normal * step_mm * index for index in range(count))
    return [
        MosaicTile(window, tuple(place.tolist()))
        for window, place in zip(windows, places, strict=True)
    ]


def tile_windows(count: int, rows: int, columns: int) -> list[Window]:
    """Return where each of `count` slices lies in a square grid of them, row by row.

    Raises
    ------
    IngestError
        If the image cannot be tiled so.
    """
    side = math.ceil(math.sqrt(count))
    if rows % side or columns % side:
        raise IngestError(
            f"a mosaic of {count} slices is a grid of {side} x {side} tiles, which cannot tile "
            f"{rows} x {columns} pixels: the image was cropped or resized; get the original"
        )
    height, width = rows // side, columns // side
    corners = ((i // side * height, i % side * width) for i in range(count))
    return [Window(top, top + height, left, left + width) for top, left in corners]


def _slice_count(csa: dict[str, list[str]]) -> int:
    count = int(_numbers(csa, "NumberOfImagesInMosaic", 1)[0])
    if not 0 < count < 10_000:
        raise IngestError(f"a mosaic that claims {count} slices")
    return count


def _numbers(csa: dict[str, list[str]], name: str, count: int) -> np.ndarray:
    try:
        values = np.array([float(text) for text in csa.get(name, [])[:count]])
    except ValueError as error:
        raise IngestError(f"a mosaic whose CSA header has no numbers in {name}") from error
    if len(values) != count or not np.isfinite(values).all():
        raise IngestError(f"a mosaic whose CSA header lacks {name}; convert it with dcm2niix")
    return values


def _csa_header(fields: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the values of the CSA image header, by name."""
    content = fields.get("CSAImageHeader")
    if not isinstance(content, bytes):
        raise IngestError("a Siemens mosaic without its CSA header; convert it with dcm2niix")
    try:
        return parse_csa(content)
    except struct.error as error:
        raise IngestError(f"a Siemens mosaic with a damaged CSA header ({error})") from error


def parse_csa(content: bytes) -> dict[str, list[str]]:
    """Return the values of a CSA header of the second type (since 2000), by name.

    Raises
    ------
    IngestError
        If it is of another type.
    struct.error
        If it ends too early.
    """
    if not content.startswith(_MAGIC):
        raise IngestError("a Siemens mosaic with an old CSA header; convert it with dcm2niix")
    (tags,) = struct.unpack_from("<I", content, 8)
    if tags > _MAX_TAGS:
        raise IngestError(f"a Siemens mosaic with a damaged CSA header ({tags} elements)")
    at = 16
    values: dict[str, list[str]] = {}
    for _ in range(tags):
        name = content[at : at + 64].split(b"\0", 1)[0].decode("latin-1")
        values[name], at = _csa_element(content, at)
    return values


def csa_values(content: bytes, name: str) -> list[str]:
    """Return the values of one element of a CSA header, none where it is not there.

    Raises
    ------
    struct.error
        If it ends too early.
    """
    at = content.find(name.encode() + b"\0") if content.startswith(_MAGIC) else -1
    return _csa_element(content, at)[0] if at >= 0 else []


def _csa_element(content: bytes, at: int) -> tuple[list[str], int]:
    """Return the values of the element at a byte, and where the next one starts."""
    _, _, _, _, items, _ = struct.unpack_from("<64si4s3i", content, at)
    at += 84
    found = []
    for _ in range(max(items, 0)):
        (length,) = struct.unpack_from("<4xI8x", content, at)
        at += 16
        text = content[at : at + length].split(b"\0", 1)[0].decode("latin-1").strip()
        at += (length + 3) // 4 * 4
        if at > len(content):
            raise struct.error("it ends within a value")
        if text:
            found.append(text)
    return found, at
