"""Siemens mosaics: a whole volume tiled into one image, taken apart into its slices.

How the tiles lie and where the first slice is follows from Siemens' private CSA header, in the
layout that nibabel documents ("Siemens mosaic format"). Of that header only the number of slices
and their normal are read; nothing of it is kept.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_geometry import slice_normal

CSA_TAGS = ((0x0029, 0x0010), (0x0029, 0x1010))
"""The private creator and the CSA image header."""

_CREATOR = "SIEMENS CSA HEADER"
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
    dataset: Any,
    position: Sequence[float],
    orientation: Sequence[float],
    spacing_mm: tuple[float, float],
    step_mm: float | None,
) -> list[MosaicTile]:
    """Return the slices of a mosaic.

    Parameters
    ----------
    dataset : pydicom.Dataset
        With the elements `CSA_TAGS`, Rows and Columns.
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
    csa = _csa_header(dataset)
    count, csa_normal = _slice_count(csa), _numbers(csa, "SliceNormalVector", 3)
    side = math.ceil(math.sqrt(count))
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if rows % side or columns % side:
        raise IngestError(f"a mosaic of {count} slices cannot tile {rows} x {columns} pixels")
    if step_mm is None or not step_mm > 0:
        raise IngestError("a mosaic without SpacingBetweenSlices or SliceThickness")
    height, width = rows // side, columns // side
    normal = slice_normal(orientation)
    if float(normal @ csa_normal) < 0:
        normal = -normal
    along_row, along_column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    first = (
        np.asarray(position, dtype=np.float64)
        + along_row * spacing_mm[1] * (columns - width) / 2
        + along_column * spacing_mm[0] * (rows - height) / 2
    )
    tiles = []
    for index in range(count):
        top, left = index // side * height, index % side * width
        place = first + normal * step_mm * index
        window = Window(top, top + height, left, left + width)
        tiles.append(MosaicTile(window, tuple(float(value) for value in place)))
    return tiles


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


def _csa_header(dataset: Any) -> dict[str, list[str]]:
    """Return the values of the CSA image header, by name."""
    creator, header = (dataset.get(tag) for tag in CSA_TAGS)
    if creator is None or header is None or str(creator.value).strip() != _CREATOR:
        raise IngestError("a Siemens mosaic without its CSA header; convert it with dcm2niix")
    content = bytes(header.value)
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
        raw_name, _, _, _, items, _ = struct.unpack_from("<64si4s3i", content, at)
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
        values[raw_name.split(b"\0", 1)[0].decode("latin-1")] = found
    return values
