"""Decoding one stored tile: chunks, compression and byte shuffle, as TileDB's format specifies.

Decoders keep their scratch memory and decompression contexts per thread: a decoded tile is valid
until the same thread decodes the next one.
"""

from __future__ import annotations

import math
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
# A tile of one chunk, the usual one: chunk count and chunk, then counts and sizes of its parts.
_ONE_CHUNK = struct.Struct("<QIII II II")
_ONE_SHUFFLED_CHUNK = struct.Struct("<QIII II II II")

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


class TileDecoder:
    """Decodes the tiles of one volume.

    Parameters
    ----------
    filters : tuple of str
        As from the array's schema: optionally "byteshuffle", then optionally one of
        `COMPRESSIONS`.
    dtype : numpy.dtype
        The voxels' type.
    extents : tuple of int
        Voxels of a whole tile per axis.
    cell_order : {"C", "F"}
        Whether the voxels of a tile are stored with the last axis or with the first one fastest.
    """

    def __init__(
        self,
        filters: tuple[str, ...],
        dtype: np.dtype,
        extents: tuple[int, ...],
        cell_order: str = "C",
    ) -> None:
        self._dtype = dtype
        self._size = math.prod(extents) * dtype.itemsize
        self._stored_extents = extents if cell_order == "C" else extents[::-1]
        self._transposed = cell_order != "C"
        self._filters = filters
        self._shuffled = BYTESHUFFLE in filters and dtype.itemsize > 1
        self._byte_planes = (dtype.itemsize, *self._stored_extents)
        self._decompress = _DECOMPRESS.get(filters[-1] if filters else "")
        self._head = _ONE_SHUFFLED_CHUNK if BYTESHUFFLE in filters else _ONE_CHUNK

    def decode(self, stored: Buffer, part: tuple[slice, ...]) -> np.ndarray:
        """Decode one tile, or a part of it.

        Parameters
        ----------
        stored : bytes or memoryview
            The tile as it lies in the file.
        part : tuple of slice
            The voxels wanted, per axis of the tile; each slice with its start and stop.

        Returns
        -------
        ndarray of the voxels' type, of the shape of `part`
            Overwritten by this thread's next call.

        Raises
        ------
        IntegrityError
            If the bytes are not such a tile. Sizes are checked before they are believed.
        """
        if self._transposed:
            return self._stored_part(stored, part[::-1]).T
        return self._stored_part(stored, part)

    def _stored_part(self, stored: Buffer, part: tuple[slice, ...]) -> np.ndarray:
        try:
            begin = self._only_chunk(stored)
            if not begin:
                return self._voxels(self._all_chunks(stored))[part]
            data = self._decompress(stored[begin:], self._size)  # type: ignore[misc]
            if len(data) != self._size:
                raise ValueError(f"a chunk has {len(data)} bytes, expected {self._size}")
        except _FAILURES as error:
            raise IntegrityError(f"does not decode: {error}") from error
        if not self._shuffled:
            return self._voxels(np.frombuffer(data, np.uint8))[part]
        # Nothing is done for voxels that nobody wants, except in the last axis, where leaving
        # some out costs more than taking all.
        *outer, last = part
        planes = np.frombuffer(data, np.uint8).reshape(self._byte_planes)[:, *outer]
        out = _thread.buffer(planes.size).view(self._dtype).reshape(planes.shape[1:])
        join_planes(planes, out)
        return out[..., last]

    def _voxels(self, flat: np.ndarray) -> np.ndarray:
        return flat.view(self._dtype).reshape(self._stored_extents)

    def _only_chunk(self, stored: Buffer) -> int:
        """Return where the data of a tile's only chunk begin; 0 for a tile of any other form."""
        head, size, length = self._head, self._size, len(stored)
        if self._decompress is None or length <= head.size:
            return 0
        read = head.unpack_from(stored)
        extra, filtered = head.size - _CHUNK_COUNT.size - _CHUNK.size, length - head.size
        if head is _ONE_CHUNK:
            return head.size if read == (1, size, filtered, extra, 0, 1, size, filtered) else 0
        skip = read[7]
        usual = (1, size, filtered, extra, 1, 1, read[6], skip, size, filtered - skip)
        return head.size + skip if read == usual else 0

    def _all_chunks(self, stored: Buffer) -> np.ndarray:
        out = _thread.buffer(self._size)
        filled = _decode_chunks(memoryview(stored), self._filters, self._dtype.itemsize, out)
        if filled != self._size:
            raise ValueError(f"gives {filled} bytes, expected {self._size}")
        return out


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
    data : bytes or memoryview
        A rest shorter than a value stands unshuffled at the end.
    itemsize : int
        Bytes of a value.
    out : ndarray of uint8, C-contiguous, as long as `data`
    """
    flat = np.frombuffer(data, np.uint8)
    whole = len(flat) // itemsize * itemsize
    out[whole:] = flat[whole:]
    join_planes(flat[:whole].reshape(itemsize, -1), out[:whole].view(f"u{itemsize}"))


def join_planes(planes: np.ndarray, out: np.ndarray) -> None:
    """Put values together from their first bytes, their second bytes, and so on.

    Parameters
    ----------
    planes : ndarray of uint8, shape (itemsize, ...)
    out : ndarray, C-contiguous, shape ``planes.shape[1:]``
        Of any type of that many bytes.
    """
    if len(planes) == 2:
        _join(planes[0], planes[1], out.view(np.uint16), 8)
    elif len(planes) == 4:
        low = np.empty(out.shape, np.uint16)
        high = np.empty(out.shape, np.uint16)
        _join(planes[0], planes[1], low, 8)
        _join(planes[2], planes[3], high, 8)
        _join(low, high, out.view(np.uint32), 16)
    else:
        out.view(np.uint8).reshape(*out.shape, len(planes))[...] = np.moveaxis(planes, 0, -1)


def _join(low: np.ndarray, high: np.ndarray, out: np.ndarray, bits: int) -> None:
    # Arithmetic on whole values is several times faster than copying bytes with a stride, and
    # multiplying in the result's type is faster than shifting from a narrower one.
    np.copyto(out, high)
    np.multiply(out, 1 << bits, out=out)
    np.bitwise_or(out, low, out=out)
