"""Reading a fragment's own metadata: where each tile lies, and its minimum, maximum and sum.

The layout is that of TileDB's public format specification (fragment metadata file, generic
tile), format version 22 as libtiledb 2.30 writes it. Everything unexpected raises
`UnsupportedArrayError`, after which the caller reads through libtiledb.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from radiobject.exceptions import StorageError

FORMAT_VERSION = 22
_FOOTER_LENGTH = struct.Struct("<Q")
_GENERIC_HEADER = struct.Struct("<IQQBQBI")
_CHUNK_HEADER = struct.Struct("<III")
_FILTER_GZIP = 1
MAX_METADATA_BYTES = 1 << 28


class UnsupportedArrayError(StorageError):
    """The array is none that the tile index covers; libtiledb reads it instead."""


@dataclass(frozen=True, slots=True)
class FragmentTiles:
    """What a dense fragment with one fixed-size attribute says about its tiles.

    Attributes
    ----------
    domain : ndarray of int32, shape (ndim, 2)
        First and last coordinate written, per axis.
    schema_name : str
        The schema that the fragment was written with.
    file_size : int
        Bytes of the attribute's tile file.
    offsets : ndarray of uint64, shape (n,)
        Position of each tile in it.
    minimum, maximum : ndarray of the voxels' type, shape (n,)
    total : ndarray of int64, uint64 or float64, shape (n,)
    """

    domain: np.ndarray
    schema_name: str
    file_size: int
    offsets: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    total: np.ndarray


class Cursor:
    """Reads little-endian fields one after the other, never past the end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    @property
    def is_at_end(self) -> bool:
        """Whether nothing is left."""
        return self.position == len(self.data)

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes; `UnsupportedArrayError` if there are fewer."""
        if size < 0 or self.position + size > len(self.data):
            raise UnsupportedArrayError("fragment metadata ends too early")
        piece = self.data[self.position : self.position + size]
        self.position += size
        return piece

    def numbers(self, count: int = 1) -> tuple[int, ...]:
        """Return the next unsigned 64-bit numbers."""
        return struct.unpack(f"<{count}Q", self.take(8 * count))

    def number(self) -> int:
        """Return the next unsigned 64-bit number."""
        return self.numbers()[0]

    def flag(self) -> int:
        """Return the next byte."""
        return self.take(1)[0]


def parse(metadata: bytes, *, ndim: int, dtype: np.dtype) -> FragmentTiles:
    """Return the tiles of a fragment from the bytes of its metadata file.

    Parameters
    ----------
    metadata : bytes
        The whole file of that name.
    ndim : int
        Axes of the array; each has int32 coordinates.
    dtype : numpy.dtype
        Type of its one attribute.

    Raises
    ------
    UnsupportedArrayError
        If the file is not of format version 22, dense and complete, or does not parse.
    """
    footer = _footer(metadata)
    version = struct.unpack("<I", footer.take(4))[0]
    if version != FORMAT_VERSION:
        raise UnsupportedArrayError(
            f"fragment has format version {version}, expected {FORMAT_VERSION}"
        )
    name_size = footer.number()
    schema_name = footer.take(name_size).decode(errors="replace")
    dense, empty = footer.flag(), footer.flag()
    if not dense or empty:
        raise UnsupportedArrayError("fragment is sparse or empty")
    domain = np.frombuffer(footer.take(8 * ndim), "<i4").reshape(ndim, 2)
    footer.numbers(2)  # sparse tiles, cells of the last tile
    if footer.flag() or footer.flag():
        raise UnsupportedArrayError("fragment holds timestamps or deletions")
    # One entry per field: the attribute, a reserved one, and the dimensions.
    fields = 2 + ndim
    file_size = footer.numbers(fields)[0]
    footer.numbers(2 * fields)  # sizes of variable-length and validity files
    footer.number()  # R-tree
    tables = [footer.numbers(fields)[0] for _ in range(8)]
    offsets = np.frombuffer(_counted(metadata, tables[0]), "<u8")
    count = len(offsets)
    return FragmentTiles(
        domain,
        schema_name,
        file_size,
        offsets,
        _extremes(metadata, tables[4], count, dtype),
        _extremes(metadata, tables[5], count, dtype),
        _sums(metadata, tables[6], count, dtype),
    )


def _footer(metadata: bytes) -> Cursor:
    if len(metadata) < _FOOTER_LENGTH.size:
        raise UnsupportedArrayError("fragment metadata is too short")
    end = len(metadata) - _FOOTER_LENGTH.size
    length = _FOOTER_LENGTH.unpack_from(metadata, end)[0]
    if length > end:
        raise UnsupportedArrayError("fragment metadata is shorter than its footer")
    return Cursor(metadata[end - length : end])


def generic_tile(metadata: bytes, offset: int) -> bytes:
    """Return the content of a generic tile: gzip chunks behind a self-describing header."""
    cursor = Cursor(metadata)
    cursor.take(offset)
    header = _GENERIC_HEADER.unpack(cursor.take(_GENERIC_HEADER.size))
    version, _, size, _, _, encryption, pipeline_size = header
    pipeline = cursor.take(pipeline_size)
    supported = (
        version == FORMAT_VERSION
        and not encryption
        and size <= MAX_METADATA_BYTES
        and len(pipeline) >= 9
        and struct.unpack_from("<I", pipeline, 4)[0] == 1
        and pipeline[8] == _FILTER_GZIP
    )
    if not supported:
        raise UnsupportedArrayError("fragment metadata is encrypted or not compressed with gzip")
    content = bytearray()
    for _ in range(cursor.number()):
        original, filtered, extra = _CHUNK_HEADER.unpack(cursor.take(_CHUNK_HEADER.size))
        cursor.take(extra)
        content += _inflate(cursor.take(filtered), original)
        if len(content) > size:
            break
    if len(content) != size:
        raise UnsupportedArrayError("fragment metadata has a tile of another size than it says")
    return bytes(content)


def _inflate(data: bytes, size: int) -> bytes:
    if size > MAX_METADATA_BYTES:
        raise UnsupportedArrayError(f"fragment metadata claims a chunk of {size} bytes")
    unpacker = zlib.decompressobj()
    try:
        # One more: only then is the checksum at the end compared.
        content = unpacker.decompress(data, size + 1)
    except zlib.error as error:
        raise UnsupportedArrayError(f"fragment metadata does not decompress: {error}") from error
    if len(content) != size or not unpacker.eof:
        raise UnsupportedArrayError("fragment metadata has a chunk of another size than it says")
    return content


def _counted(metadata: bytes, offset: int) -> bytes:
    content = generic_tile(metadata, offset)
    if len(content) < 8 or struct.unpack_from("<Q", content)[0] * 8 != len(content) - 8:
        raise UnsupportedArrayError("fragment metadata has a table of another length than it says")
    return content[8:]


def _extremes(metadata: bytes, offset: int, count: int, dtype: np.dtype) -> np.ndarray:
    content = generic_tile(metadata, offset)
    wanted = count * dtype.itemsize
    if len(content) != 16 + wanted or struct.unpack_from("<QQ", content) != (wanted, 0):
        raise UnsupportedArrayError("fragment metadata lacks the tiles' minima or maxima")
    return np.frombuffer(content, dtype.newbyteorder("<"), count, 16).astype(dtype)


def _sums(metadata: bytes, offset: int, count: int, dtype: np.dtype) -> np.ndarray:
    content = _counted(metadata, offset)
    if len(content) != 8 * count:
        raise UnsupportedArrayError("fragment metadata lacks the tiles' sums")
    kind = {"i": "<i8", "f": "<f8"}.get(dtype.kind, "<u8")
    return np.frombuffer(content, kind).astype(np.dtype(kind).newbyteorder("="))
