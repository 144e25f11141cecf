"""NRRD headers: where the voxels lie, read strictly; the voxels are SimpleITK's to decode.

After the definition of the format (teem.sourceforge.net/nrrd/format.html). ITK takes a file without
a space for one at the origin of LPS, and "scanner-xyz" for LPS: here both are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import IngestError
from radiobject.formats.guards import DEFAULT_LIMITS, Limits
from radiobject.formats.gzip_stream import check_zlib
from radiobject.formats.image import LoadedImage
from radiobject.formats.itk import read_voxels
from radiobject.formats.placed import beside, checked_affine, placed_image, source_of
from radiobject.formats.source import read_file, read_head

_HEAD_BYTES = 1 << 22
_SPACES = {
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
}  # fmt: skip
"""Spaces that say where left is: the sign of each axis in RAS."""

_MM = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3, "\u00b5m": 1e-3,
       "micron": 1e-3, "micrometer": 1e-3}  # fmt: skip
_SIZES = {
    "int8": 1, "uint8": 1, "char": 1, "uchar": 1, "signed char": 1, "unsigned char": 1,
    "int16": 2, "uint16": 2, "short": 2, "ushort": 2, "signed short": 2, "unsigned short": 2,
    "short int": 2, "unsigned short int": 2, "signed short int": 2,
    "int32": 4, "uint32": 4, "int": 4, "uint": 4, "signed int": 4, "unsigned int": 4, "float": 4,
    "int64": 8, "uint64": 8, "longlong": 8, "ulonglong": 8, "long long": 8, "double": 8,
    "unsigned long long": 8, "signed long long": 8, "long long int": 8,
    "unsigned long long int": 8, "signed long long int": 8,
    "int8_t": 1, "uint8_t": 1, "int16_t": 2, "uint16_t": 2, "int32_t": 4, "uint32_t": 4,
    "int64_t": 8, "uint64_t": 8,
}  # fmt: skip


@dataclass(frozen=True)
class NrrdHeader:
    """What a header says.

    Parameters
    ----------
    sizes : tuple of int
        Of the axes in the file, fastest first.
    itemsize : int
        Bytes of a value.
    encoding : str
        "raw", "gzip" and so on.
    affine : ndarray, shape (4, 4)
        Index along the space axes to RAS+ mm.
    shape : tuple of int
        (X, Y, Z), or (X, Y, Z, C) with the length of the axis that is none of space.
    data_files : tuple of str
        Names of the files with the voxels; empty where they follow the header.
    start : int
        First byte behind the header.
    skips : bool
        Whether lines or bytes in front of the voxels are to be passed over.
    """

    sizes: tuple[int, ...]
    itemsize: int
    encoding: str
    affine: NDArray[np.float64]
    shape: tuple[int, ...]
    data_files: tuple[str, ...]
    start: int = 0
    skips: bool = False


def load_nrrd(
    path: str | Path,
    *,
    reorient: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    keep: Sequence[str] = (),
) -> LoadedImage:
    """Read ``.nrrd``, or ``.nhdr`` with the files that it names.

    The space must be one of RAS, LAS and LPS, with directions and an origin. An axis that is none
    of space (list, vector) becomes the fourth. Without units, lengths are millimetres.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If the file is damaged, over a limit, or does not say where its voxels lie.
    """
    place = Path(path)
    header = read_nrrd_header(place)
    limits.check_volume(place.name, header.shape, header.itemsize)
    affine = checked_affine(place.name, header.affine)
    files = nrrd_files(place)
    source = source_of(place, files, limits)
    if header.encoding in ("gzip", "gz"):
        _check_streams(place, files, header, limits)
    data = read_voxels(place, "NrrdImageIO", header.shape)
    return placed_image(place, data, affine, "nrrd_space", source, reorient=reorient)


def _check_streams(place: Path, files: Sequence[Path], header: NrrdHeader, limits: Limits) -> None:
    """Refuse packed voxels that are damaged: NrrdIO does not look at their checksums."""
    if header.skips:
        raise IngestError(
            f"{place.name}: packed voxels behind a line or byte skip are not read; save it without"
        )
    packed = files[1:] or files
    decoded = int(np.prod(header.sizes, dtype=np.int64)) * header.itemsize // len(packed)
    for file in packed:
        content = read_file(file, limits)
        start = header.start if len(files) == 1 else 0
        limits.check_gzip(place.name, len(content) - start, decoded)
        check_zlib(file.name, content[start:], decoded)


def nrrd_files(path: Path) -> tuple[Path, ...]:
    """Return the header and the files that it names."""
    return (path, *beside(path, read_nrrd_header(path).data_files))


def read_nrrd_header(path: Path) -> NrrdHeader:
    """Return what the header of a file says.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If it is none, or does not place the voxels.
    """
    return parse_nrrd_header(path.name, read_head(path, _HEAD_BYTES))


def parse_nrrd_header(name: str, head: bytes) -> NrrdHeader:
    """Return what the first bytes of a file say; see `read_nrrd_header`."""
    if not head.startswith(b"NRRD000"):
        raise IngestError(f"{name}: not an NRRD file (no magic NRRD000x)")
    end = re.search(rb"\r?\n\r?\n", head)
    lines = head[: end.start() if end else len(head)].decode("utf-8", "replace").splitlines()
    fields, files = _fields(lines[1:])
    sizes = _numbers(name, fields, "sizes", int)
    if str(len(sizes)) != fields.get("dimension", "").strip() or any(s < 1 for s in sizes):
        raise IngestError(f"{name}: sizes {sizes} do not fit dimension {fields.get('dimension')}")
    kind = " ".join(fields.get("type", "").lower().split())
    if kind not in _SIZES:
        raise IngestError(f"{name}: values of type {kind or 'unknown'!r} cannot be stored")
    affine, spatial = _affine(name, fields, len(sizes))
    others = [axis for axis in range(len(sizes)) if axis not in spatial]
    kinds = fields.get("kinds", "").lower().split()
    if len(others) > 1:
        raise IngestError(f"{name}: {len(others)} axes that are none of space; one can be stored")
    if others and len(kinds) == len(sizes) and "color" in kinds[others[0]]:
        raise IngestError(
            f"{name}: colour voxels have no intensity; split the channels into volumes"
        )
    shape = tuple(sizes[axis] for axis in (*spatial, *others))
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    encoding = fields.get("encoding", "").strip().lower()
    skips = any(
        fields.get(key, "0") not in ("", "0")
        for key in ("line skip", "lineskip", "byte skip", "byteskip")
    )
    start = end.end() if end else len(head)
    return NrrdHeader(sizes, _SIZES[kind], encoding, affine, shape, files, start, skips)


def _fields(lines: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the fields by name, and the names of detached data files."""
    fields: dict[str, str] = {}
    for number, line in enumerate(lines):
        if line.startswith("#") or ":=" in line or ":" not in line:
            continue
        key, value = line.split(":", 1)
        key = key.strip().lower()
        if key in ("data file", "datafile"):
            return fields, _data_files(value.strip(), lines[number + 1 :])
        fields[key] = value.strip()
    return fields, ()


def _data_files(value: str, rest: Sequence[str]) -> tuple[str, ...]:
    if value.split()[:1] == ["LIST"]:
        return tuple(line.strip() for line in rest if line.strip())
    pattern = re.fullmatch(r"(\S*%0?\d*d\S*)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)(?:\s+\d+)?", value)
    if pattern is None:
        return (value,)
    first, last, step = (int(pattern[i]) for i in (2, 3, 4))
    if step == 0 or (last - first) // step > 100_000:
        return (value,)
    end = last + (1 if step > 0 else -1)
    return tuple(pattern[1] % number for number in range(first, end, step))


def _numbers(name: str, fields: dict[str, str], key: str, convert: type) -> tuple[int, ...]:
    try:
        return tuple(convert(text) for text in fields[key].split())
    except (KeyError, ValueError) as error:
        raise IngestError(f"{name}: the field {key!r} is missing or damaged") from error


def _affine(
    name: str, fields: dict[str, str], dimension: int
) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Return the affine, and which axes of the file are those of space."""
    space = fields.get("space", "").lower()
    if space not in _SPACES:
        said = f"the space {space!r} does not say" if space else "no space says"
        raise IngestError(
            f"{name}: {said} where left and right are; save it with one of "
            "left-posterior-superior, right-anterior-superior, left-anterior-superior"
        )
    vectors = re.findall(r"none|\([^)]*\)", fields.get("space directions", "").lower())
    spatial = tuple(axis for axis, text in enumerate(vectors) if text != "none")
    if len(vectors) != dimension or len(spatial) != 3 or "space origin" not in fields:
        raise IngestError(f"{name}: a volume has three space directions and a space origin")
    matrix = np.eye(4)
    for column, axis in enumerate(spatial):
        matrix[:3, column] = _vector(name, vectors[axis])
    matrix[:3, 3] = _vector(name, fields["space origin"])
    units = re.findall(r'"([^"]*)"', fields.get("space units", ""))
    unknown = [unit for unit in units if unit.strip() and unit.strip().lower() not in _MM]
    if unknown:
        raise IngestError(f"{name}: lengths in {unknown[0]!r} are not known in millimetres")
    if len(units) not in (0, 3):
        raise IngestError(f"{name}: {len(units)} space units for 3 axes of space")
    scale = [_MM.get(unit.strip().lower(), 1.0) for unit in units] or [1.0] * 3
    signs = np.diag([*(s * u for s, u in zip(_SPACES[space], scale, strict=True)), 1.0])
    return signs @ matrix, spatial


def _vector(name: str, text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.strip().strip("()").split(",")]
    except ValueError as error:
        raise IngestError(f"{name}: {text!r} is no vector") from error
    if len(numbers) != 3:
        raise IngestError(f"{name}: {text!r} has {len(numbers)} numbers, expected 3")
    return numbers
