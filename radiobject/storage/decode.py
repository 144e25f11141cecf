"""Decoding one stored tile: chunks, compression and byte shuffle, as TileDB's format specifies.

Decoders keep their scratch memory and decompression contexts per thread: a decoded tile is valid
until the same thread decodes the next one.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable

import lz4.block
import numpy as np
import zstandard

from radiobject.exceptions import IntegrityError

COMPRESSIONS = ("zstd", "lz4", "gzip")
BYTESHUFFLE = "byteshuffle"

_CHUNK_COUNT = struct.Struct("<Q")
_CHUNK = struct.Struct("<III")
_PART_COUNTS = struct.Struct("<II")
_PART = struct.Struct("<II")

Buffer = bytes | memoryview


class _Thread(threading.local):
    """What a decoding thread keeps for itself."""

    def __init__(self) -> None:
        self.zstd = zstandard.ZstdDecompressor()
        self.scratch = np.empty(0, np.uint8)

    def buffer(self, size: int) -> np.ndarray:
        if self.scratch.size < size:
            self.scratch = np.empty(size, np.uint8)
        return self.scratch[:size]


_thread = _Thread()


def _unzstd(data: Buffer, size: int) -> bytes:
    return _thread.zstd.decompress(data, max_output_size=size)


def _unlz4(data: Buffer, size: int) -> bytes:
    return lz4.block.decompress(data, uncompressed_size=size)


def _ungzip(data: Buffer, size: int) -> bytes:
    return zlib.decompressobj().decompress(data, size)


_DECOMPRESS: dict[str, Callable[[Buffer, int], bytes]] = {
    "zstd": _unzstd,
    "lz4": _unlz4,
    "gzip": _ungzip,
}
_FAILURES = (
    zstandard.ZstdError,
    lz4.block.LZ4BlockError,
    zlib.error,
    struct.error,
    ValueError,
    MemoryError,
)


def decode_tile(
    stored: Buffer, filters: tuple[str, ...], dtype: np.dtype, cells: int
) -> np.ndarray:
    """Decode one tile.

    Parameters
    ----------
    stored : bytes or memoryview
        The tile as it lies in the file.
    filters : tuple of str
        As from the array's schema: optionally "byteshuffle", then optionally one of
        `COMPRESSIONS`.
    dtype : numpy.dtype
        The voxels' type.
    cells : int
        Voxels of a whole tile.

    Returns
    -------
    ndarray of `dtype`, shape (cells,)
        In the order of the tile's cells; overwritten by this thread's next call.

    Raises
    ------
    IntegrityError
        If the bytes are not such a tile. Sizes are checked before they are believed.
    """
    size = cells * dtype.itemsize
    out = _thread.buffer(size)
    try:
        filled = _decode_chunks(memoryview(stored), filters, dtype.itemsize, out)
    except _FAILURES as error:
        raise IntegrityError(f"does not decode: {error}") from error
    if filled != size:
        raise IntegrityError(f"decodes to {filled} bytes, expected {size}")
    return out.view(dtype)


def _decode_chunks(
    stored: memoryview, filters: tuple[str, ...], itemsize: int, out: np.ndarray
) -> int:
    """Decode every chunk into `out`, one after the other, and return the bytes written."""
    shuffled = BYTESHUFFLE in filters
    compression = filters[-1] if filters and filters[-1] in _DECOMPRESS else None
    position, filled = _CHUNK_COUNT.size, 0
    for _ in range(_CHUNK_COUNT.unpack_from(stored)[0]):
        original, filtered, extra = _CHUNK.unpack_from(stored, position)
        start = position + _CHUNK.size
        position = start + extra + filtered
        if position > len(stored) or filled + original > out.size:
            raise ValueError("a chunk is longer than its tile")
        data: Buffer = stored[start + extra : position]
        if compression is not None:
            skip, length = _only_part(stored[start : start + extra], original, filtered)
            data = _DECOMPRESS[compression](data[skip : skip + length], original)
        if len(data) != original:
            raise ValueError(f"a chunk has {len(data)} bytes, expected {original}")
        target = out[filled : filled + original]
        if shuffled:
            unshuffle(data, itemsize, target)
        else:
            target[...] = np.frombuffer(data, np.uint8)
        filled += original
    if position != len(stored):
        raise ValueError(f"{len(stored) - position} bytes follow its last chunk")
    return filled


def _only_part(extra: memoryview, original: int, filtered: int) -> tuple[int, int]:
    """Return where, in a compressed chunk, the one data part starts, and its length.

    The compressor's table names the parts of metadata of the filter before it, then the parts of
    data, each with its size before and after compression.
    """
    metadata_parts, data_parts = _PART_COUNTS.unpack_from(extra)
    if data_parts != 1 or metadata_parts > 16:
        raise ValueError(f"a chunk has {metadata_parts} and {data_parts} parts")
    skip = 0
    position = _PART_COUNTS.size
    for _ in range(metadata_parts):
        skip += _PART.unpack_from(extra, position)[1]
        position += _PART.size
    size, length = _PART.unpack_from(extra, position)
    if size != original or skip + length != filtered:
        raise ValueError("a chunk's parts do not add up")
    return skip, length


def unshuffle(data: Buffer, itemsize: int, out: np.ndarray) -> None:
    """Undo the byte shuffle: `data` holds all first bytes, then all second bytes, and so on.

    Parameters
    ----------
    data : bytes or memoryview, `out.size` bytes
    itemsize : int
        Bytes of a value; a rest shorter than a value stands unshuffled at the end.
    out : ndarray of uint8, C-contiguous
    """
    planes = np.frombuffer(data, np.uint8)
    count = len(planes) // itemsize
    if itemsize == 1 or count == 0:
        out[...] = planes
        return
    whole = count * itemsize
    out[whole:] = planes[whole:]
    planes = planes[:whole].reshape(itemsize, count)
    if itemsize == 2:
        _join(planes[0], planes[1], out[:whole].view(np.uint16), 8)
    elif itemsize == 4:
        low = np.empty(count, np.uint16)
        high = np.empty(count, np.uint16)
        _join(planes[0], planes[1], low, 8)
        _join(planes[2], planes[3], high, 8)
        _join(low, high, out[:whole].view(np.uint32), 16)
    else:
        out[:whole].reshape(count, itemsize)[...] = planes.T


def _join(low: np.ndarray, high: np.ndarray, out: np.ndarray, bits: int) -> None:
    # Shifting whole values is several times faster than copying single bytes with a stride.
    np.left_shift(high, bits, out=out, dtype=out.dtype)
    np.bitwise_or(out, low, out=out)
