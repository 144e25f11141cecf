"""MetaImage headers: where the voxels lie, read strictly; the voxels are SimpleITK's to decode.

Coordinates are LPS, as ITK has it. ITK takes a file without a matrix or an offset for one at the
origin: here it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
from radiobject.geometry.orientation import LPS_TO_RAS, axis_codes

_HEAD_BYTES = 1 << 20
_SAME = {
    "rotation": "transformmatrix", "orientation": "transformmatrix",
    "position": "offset", "origin": "offset",
}  # fmt: skip
_SIZES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}  # fmt: skip
_MM = {"": 1.0, "?": 1.0, "mm": 1.0, "cm": 10.0, "um": 1e-3}
_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "I": "S", "S": "I"}


@dataclass(frozen=True)
class MetaHeader:
    """What a header says.

    Parameters
    ----------
    shape : tuple of int
        (X, Y, Z) or (X, Y, Z, C).
    itemsize : int
        Bytes of a value.
    affine : ndarray, shape (4, 4)
        Voxel index to RAS+ mm.
    data_files : tuple of str
        Files of the voxels; empty where they follow the header.
    start : int
        First byte behind the header.
    packed : int, optional
        Bytes of the voxels in the file as it says itself; None where it does not.
    warnings : tuple of str
        What is doubtful.
    """

    shape: tuple[int, ...]
    itemsize: int
    affine: NDArray[np.float64]
    data_files: tuple[str, ...]
    start: int
    packed: int | None
    warnings: tuple[str, ...] = ()


def load_metaimage(
    path: str | Path,
    *,
    reorient: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    keep: Sequence[str] = (),
) -> LoadedImage:
    """Read ``.mha``, or ``.mhd`` with the files that it names.

    Several components of a voxel become the fourth axis, and so does a fourth dimension.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If the file is damaged, over a limit, or does not say where its voxels lie.
    """
    place = Path(path)
    header = read_meta_header(place)
    size = limits.check_volume(place.name, header.shape, header.itemsize)
    affine = checked_affine(place.name, header.affine)
    files = meta_files(place)
    source = source_of(place, files, limits)
    there = source.size - (header.start if len(files) == 1 else place.stat().st_size)
    needed = size if header.packed is None else header.packed
    if there < needed:
        # MetaIO says so on standard error, and "Success" in its error.
        raise IngestError(
            f"{place.name}: cut short: the header declares {needed:,} bytes of voxels, there are "
            f"{there:,}"
        )
    limits.check_gzip(place.name, source.size, size)
    if header.packed is not None:
        _check_stream(place, files, header, size, limits)
    data = read_voxels(place, "MetaImageIO", header.shape)
    return placed_image(
        place, data, affine, "metaimage", source, reorient=reorient,
        warnings=header.warnings,
    )  # fmt: skip


def _check_stream(
    place: Path, files: Sequence[Path], header: MetaHeader, size: int, limits: Limits
) -> None:
    """Refuse packed voxels that are damaged: MetaIO prints that they are, and gives what it has."""
    if len(files) > 2:
        raise IngestError(f"{place.name}: packed voxels in several files are not read")
    start = header.start if len(files) == 1 else 0
    check_zlib(place.name, read_file(files[-1], limits)[start:], size)


def meta_files(path: Path) -> tuple[Path, ...]:
    """Return the header and the files that it names."""
    return (path, *beside(path, read_meta_header(path).data_files))


def read_meta_header(path: Path) -> MetaHeader:
    """Return what the header of a file says.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If it is none, or does not place the voxels.
    """
    return parse_meta_header(path.name, read_head(path, _HEAD_BYTES))


def parse_meta_header(name: str, head: bytes) -> MetaHeader:
    """Return what the first bytes of a file say; see `read_meta_header`."""
    fields, rest = _fields(head)
    if fields.get("objecttype", "Image") != "Image" or "elementdatafile" not in fields:
        raise IngestError(f"{name}: not a MetaImage (no ElementDataFile)")
    sizes = [int(size) for size in _numbers(name, fields, "dimsize")]
    kind = fields.get("elementtype", "").upper()
    if kind not in _SIZES:
        raise IngestError(f"{name}: values of type {kind or 'unknown'!r} cannot be stored")
    components = int(_numbers(name, {"elementnumberofchannels": "1"} | fields,
                              "elementnumberofchannels")[0])  # fmt: skip
    shape = (*sizes[:3], *(side for side in (*sizes[3:], components) if side != 1))
    if len(sizes) < 3 or len(shape) > 4 or fields.get("ndims") != str(len(sizes)):
        raise IngestError(
            f"{name}: {len(sizes)} dimensions and {components} components; only 3-D and 4-D can "
            "be stored"
        )
    if components in (3, 4) and kind == "MET_UCHAR":
        raise IngestError(f"{name}: colour voxels have no intensity; split the channels")
    affine = _affine(name, fields, len(sizes))
    said = _contradiction(name, fields.get("anatomicalorientation", ""), affine)
    files = _data_files(fields["elementdatafile"], rest, sizes)
    packed = None
    if fields.get("compresseddata", "").lower() in ("true", "t", "1", "yes"):
        stated = {"compresseddatasize": "1"} | fields
        packed = int(_numbers(name, stated, "compresseddatasize")[0])
    return MetaHeader(shape, _SIZES[kind], affine, files, _start(head), packed, said)


def _start(head: bytes) -> int:
    """Return the first byte behind the line that names the data."""
    line = re.search(rb"(?i)elementdatafile[^\n]*\n", head)
    return len(head) if line is None else line.end()


def _fields(head: bytes) -> tuple[dict[str, str], list[str]]:
    """Return the fields up to the one of the data, and the lines behind it if these are text."""
    fields: dict[str, str] = {}
    lines = head.split(b"\n")
    for number, raw in enumerate(lines):
        key, found, value = raw.decode("latin-1").partition("=")
        if not found or len(key) > 80:
            break
        key = key.strip().lower()
        fields[_SAME.get(key, key)] = value.strip()
        if key == "elementdatafile":
            listed = value.strip().upper().startswith("LIST")
            rest = lines[number + 1 :] if listed else []
            return fields, [line.decode("utf-8", "replace").strip() for line in rest]
    return fields, []


def _numbers(name: str, fields: Mapping[str, str], key: str) -> list[float]:
    try:
        return [float(text) for text in fields[key].split()]
    except (KeyError, ValueError) as error:
        raise IngestError(f"{name}: the field {key} is missing or damaged") from error


def _affine(name: str, fields: Mapping[str, str], axes: int) -> NDArray[np.float64]:
    for key, said in (("transformmatrix", "TransformMatrix"), ("offset", "Offset"),
                      ("elementspacing", "ElementSpacing")):  # fmt: skip
        if key not in fields:
            raise IngestError(f"{name}: no {said} says where its voxels lie; save it with one")
    numbers = {
        key: _numbers(name, fields, key) for key in ("transformmatrix", "offset", "elementspacing")
    }
    if [len(n) for n in numbers.values()] != [axes * axes, axes, axes]:
        raise IngestError(f"{name}: matrix, offset and spacing do not fit {axes} dimensions")
    # A row of the matrix is the direction of one voxel axis.
    directions = np.reshape(numbers["transformmatrix"], (axes, axes))
    if axes > 3 and (directions[3:, :3].any() or directions[:3, 3:].any()):
        raise IngestError(f"{name}: its fourth axis is mixed with those of space")
    unit = fields.get("distanceunits", "").lower()
    if unit not in _MM:
        raise IngestError(f"{name}: lengths in {unit!r} are not known in millimetres")
    matrix = np.eye(4)
    matrix[:3, :3] = directions[:3, :3].T * numbers["elementspacing"][:3]
    matrix[:3, 3] = numbers["offset"][:3]
    matrix[:3] *= _MM[unit]
    return LPS_TO_RAS @ matrix


def _contradiction(name: str, stated: str, affine: NDArray[np.float64]) -> tuple[str, ...]:
    """Return a warning where AnatomicalOrientation, which ITK ignores, says something else."""
    if not re.fullmatch(r"[RLAPIS]{3}", stated):
        return ()
    try:
        codes = "".join(axis_codes(affine))
    except ValueError:
        return ()
    # The letters say where an axis comes from, axis codes where it goes.
    if "".join(_OPPOSITE[letter] for letter in stated) == codes:
        return ()
    return (
        f"AnatomicalOrientation = {stated} contradicts the matrix, which is followed, as ITK does",
    )


def _data_files(value: str, rest: Sequence[str], sizes: Sequence[int]) -> tuple[str, ...]:
    if value.upper() == "LOCAL":
        return ()
    if value.upper().startswith("LIST"):
        return tuple(line for line in rest if line)[: sizes[-1]]
    pattern = re.fullmatch(r"(\S*%0?\d*d\S*)\s+(\d+)\s+(\d+)\s+(\d+)", value)
    if pattern is None:
        return (value,)
    first, last, step = (int(pattern[i]) for i in (2, 3, 4))
    if step == 0 or (last - first) // step > 100_000:
        return (value,)
    return tuple(pattern[1] % number for number in range(first, last + 1, step))
