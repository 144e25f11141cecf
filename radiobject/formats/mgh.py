"""FreeSurfer's MGH and MGZ: the header by nibabel, the voxels checked as those of NIfTI are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import IngestError
from radiobject.formats.engines import mghformat
from radiobject.formats.guards import DEFAULT_LIMITS, Limits
from radiobject.formats.gzip_stream import GZIP_MAGIC, gunzip_blocks, gunzip_head
from radiobject.formats.image import LoadedImage
from radiobject.formats.placed import placed_image
from radiobject.formats.source import SourceFile, read_file
from radiobject.formats.surfaces import doubt_of_surface

_HEADER_BYTES = 284
_FLAG = slice(28, 30)
_FOOTER_BYTES = 1 << 26
"""Behind the voxels stand scan parameters and tags of programs, which are not read."""


def load_mgh(
    path: str | Path,
    *,
    reorient: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    keep: Sequence[str] = (),
) -> LoadedImage:
    """Read ``.mgh`` or ``.mgz``; what counts as compressed is decided by the file's bytes.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If the file is damaged, over a limit, or its header says that its axes are not known.
    """
    place = Path(path)
    content = read_file(place, limits)
    packed = content.startswith(GZIP_MAGIC)
    head = gunzip_head(place.name, content, _HEADER_BYTES) if packed else content[:_HEADER_BYTES]
    header = _header(place.name, head)
    shape = tuple(int(side) for side in header["dims"])
    kept = shape[:3] if shape[3] == 1 else shape
    dtype = np.dtype(header.get_data_dtype()).newbyteorder(">")
    size = limits.check_volume(place.name, kept, dtype.itemsize)
    voxels = _voxels(place.name, content, packed, size, limits).view(dtype)
    return placed_image(
        place,
        voxels.reshape(kept, order="F"),
        header.get_affine(),
        "mgh_ras",
        SourceFile.of_bytes(place.name, content),
        reorient=reorient,
        warnings=doubt_of_surface(kept),
    )


def _header(name: str, head: bytes) -> Any:
    if len(head) < _HEADER_BYTES:
        raise IngestError(f"{name}: {len(head)} bytes are too short for an MGH header")
    if head[:4] != b"\0\0\0\1":
        raise IngestError(f"{name}: not an MGH file of version 1")
    try:
        header = mghformat.MGHHeader.from_fileobj(io.BytesIO(head))
    except Exception as error:
        # nibabel raises errors of several modules; each means that this is no MGH header.
        raise IngestError(f"{name}: not an MGH file ({error})") from error
    # nibabel fills the directions in where the flag says that there are none.
    if head[_FLAG] != b"\0\1":
        raise IngestError(
            f"{name}: its header has no directions (goodRASFlag is 0), and does not say where left "
            "and right are; set them with mri_convert"
        )
    return header


def _voxels(
    name: str, content: bytes, packed: bool, size: int, limits: Limits
) -> NDArray[np.uint8]:
    if packed:
        limits.check_gzip(name, len(content), _HEADER_BYTES + size)
        blocks = gunzip_blocks(name, content, [_HEADER_BYTES, size], _FOOTER_BYTES)
        next(blocks)
        voxels = next(blocks).copy()
        # Going on to the end is what verifies the checksum.
        for _ in blocks:
            pass
        return voxels
    if len(content) < _HEADER_BYTES + size:
        raise IngestError(
            f"{name}: cut short: the header declares {_HEADER_BYTES + size:,} bytes, "
            f"the file has {len(content):,}"
        )
    return np.frombuffer(content, np.uint8, size, _HEADER_BYTES)
