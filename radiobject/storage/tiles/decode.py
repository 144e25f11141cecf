"""Decoding stored tiles: chunks, compression and byte shuffle, as TileDB's format specifies."""

from __future__ import annotations

import math
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import lz4.block
import numpy as np
import zstandard
from numpy.typing import NDArray

from radiobject.exceptions import IntegrityError
from radiobject.storage.tiles.blosc_chunk import Buffer, chunk_bytes, decompress, inflate

COMPRESSIONS = ("zstd", "lz4", "gzip")
BYTESHUFFLE = "byteshuffle"
CHUNK_BYTES = 1 << 16
"""TileDB filters a tile in chunks of this size; the last may be shorter."""
MAX_TILE_BYTES = 1 << 30

# So many decoded bytes stay in a processor's own cache, from where their voxels are copied on.
_BATCH_BYTES = 1 << 21
_CHUNK_COUNT = struct.Struct("<Q")
_CHUNK = struct.Struct("<III")
_PART_COUNTS = struct.Struct("<II")
_PART = struct.Struct("<II")
# A tile of one chunk, the usual one: chunk count and chunk, then counts and sizes of its parts.
_ONE_CHUNK = struct.Struct("<QIII II II")
_ONE_SHUFFLED_CHUNK = struct.Struct("<QIII II II II")
_ONE_CHUNK_HEAD = _CHUNK_COUNT.size + _CHUNK.size

_FAILURES = (
    zstandard.ZstdError,
    lz4.block.LZ4BlockError,
    zlib.error,
    struct.error,
    ValueError,
    RuntimeError,
    MemoryError,
)


_free: deque[np.ndarray] = deque()


@contextmanager
def scratch(size: int) -> Iterator[np.ndarray]:
    """Lend `size` bytes of memory to decode into; kept for the next one, unless they are many."""
    try:
        buffer = _free.pop()
    except IndexError:
        buffer = np.empty(0, np.uint8)
    if buffer.size < size:
        buffer = np.empty(size, np.uint8)
    try:
        yield buffer[:size]
    finally:
        if buffer.size <= _BATCH_BYTES:
            _free.append(buffer)


@dataclass(frozen=True, slots=True)
class Blocks:
    """How the tiles of a volume are made of compressed blocks.

    Parameters
    ----------
    compression : str
        One of `COMPRESSIONS`.
    nbytes : int
        Of each block when decompressed; the last one of a tile may have fewer.
    itemsize : int
        Bytes of a value whose bytes are shuffled in each block; 1 for none.
    extents : tuple of int
        Voxels of a tile, in the order of its axes in memory, the fastest last.
    cell_order : {"C", "F"}
        Whether that is the order of the volume's axes, or the reverse.
    """

    compression: str
    nbytes: int
    itemsize: int
    extents: tuple[int, ...]
    cell_order: str


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

    Attributes
    ----------
    tile_bytes : int
        Decoded bytes of a whole tile.
    tiles_at_once : int
        How many tiles are best decoded together.
    blocks : Blocks or None
        How a tile is made of compressed blocks; None where they are not compressed.
    """

    def __init__(
        self,
        filters: tuple[str, ...],
        dtype: np.dtype,
        extents: tuple[int, ...],
        cell_order: str = "C",
    ) -> None:
        self._dtype = dtype
        self.tile_bytes = math.prod(extents) * dtype.itemsize
        self._stored_extents = extents if cell_order == "C" else extents[::-1]
        axes = range(1, len(extents) + 1)
        self._axes = (0, *(axes if cell_order == "C" else reversed(axes)))
        self._compression = filters[-1] if filters and filters[-1] in COMPRESSIONS else None
        self._itemsize = dtype.itemsize if BYTESHUFFLE in filters else 1
        self._head = _ONE_SHUFFLED_CHUNK if BYTESHUFFLE in filters else _ONE_CHUNK
        self._chunk = min(self.tile_bytes, CHUNK_BYTES)
        self._whole_chunks = self.tile_bytes % self._chunk == 0
        self.tiles_at_once = max(1, _BATCH_BYTES // self.tile_bytes)
        self.blocks: Blocks | None = None
        if self._compression is not None:
            self.blocks = Blocks(
                self._compression, self._chunk, self._itemsize, self._stored_extents, cell_order
            )

    def blocks_of(self, stored: Buffer) -> list[Buffer]:
        """Return the blocks of a tile, for somebody else to decompress.

        One that is as long as it will be is not compressed.

        Raises
        ------
        IntegrityError
            If the bytes are not such a tile.
        """
        try:
            begin = self._only_chunk(stored)
            return [stored[begin:]] if begin else self._chunks(memoryview(stored))
        except _FAILURES as error:
            raise IntegrityError(f"does not decode: {error}") from error

    def find_blocks(
        self, memory: NDArray[np.uint8], begins: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Find the blocks of many tiles at once, for somebody else to decompress.

        Parameters
        ----------
        memory : ndarray of uint8
            What the tiles lie in, as they are stored.
        begins, lengths : ndarray of int64, shape (n,)
            Where each tile begins, and its bytes.

        Returns
        -------
        begins, lengths : ndarray of int64, shape (n, m)
            The same of each block of a tile.
        usual : ndarray of bool, shape (n,)
            Tiles of which they are known; the others are to be looked at by `blocks_of`.
        """
        count, extra = -(-self.tile_bytes // self._chunk), self._head.size - _ONE_CHUNK_HEAD
        found = np.zeros((2, len(begins), count), np.int64)
        usual = lengths > self._head.size
        if not usual.any():
            return found[0], found[1], usual
        # Of any byte on, the number that begins there.
        words = np.ndarray((len(memory) - 3,), "<u4", memory, strides=(1,))
        fields = 4 * np.arange((_CHUNK.size + extra) // 4)
        known = np.where(usual, begins, begins[usual][0])
        usual &= (words[known] == count) & (words[known + 4] == 0)
        ends, position, rest = begins + lengths, known + _CHUNK_COUNT.size, self.tile_bytes
        shuffled = int(self._head is _ONE_SHUFFLED_CHUNK)
        for block in range(count):
            size = min(rest, self._chunk)
            usual &= position + (_CHUNK.size + extra) <= ends
            position = np.where(usual, position, known)
            head = words[position[:, None] + fields].astype(np.int64)
            original, filtered, extra_bytes, metadata, data = head[:, :5].T
            skip = head[:, 6] if shuffled else np.zeros_like(filtered)
            of_data, length = head[:, -2:].T
            usual &= (original == size) & (of_data == size) & (extra_bytes == extra)
            usual &= (metadata == shuffled) & (data == 1)
            # `_chunks` takes an empty block, or one as long as it will be, for something else.
            usual &= (skip + length == filtered) & (length > 0) & (length != size)
            begin = position + (_CHUNK.size + extra) + skip
            found[0, :, block], found[1, :, block] = begin, length
            position, rest = begin + length, rest - size
            usual &= position <= ends
        usual &= position == ends
        return found[0], found[1], usual

    def decode(self, stored: Sequence[Buffer], out: np.ndarray) -> np.ndarray:
        """Decode whole tiles.

        Parameters
        ----------
        stored : sequence of bytes or memoryview
            The tiles as they lie in the file.
        out : ndarray of uint8, C-contiguous, shape (tiles * tile_bytes,)
            Receives them; undefined after an error.

        Returns
        -------
        ndarray of the voxels' type, shape (tiles, *extents)
            A view of `out`.

        Raises
        ------
        IntegrityError
            If the bytes of one are not such a tile. Sizes are checked before they are believed.
        """
        count, size = len(stored), self.tile_bytes
        together = count if self._whole_chunks else 1
        try:
            for first in range(0, count, together):
                tiles = slice(first, first + together)
                self._decompress(stored[tiles], out[first * size :][: together * size])
        except _FAILURES as error:
            raise IntegrityError(f"does not decode: {error}") from error
        voxels = out.view(self._dtype).reshape(count, *self._stored_extents)
        return voxels.transpose(self._axes)

    def _decompress(self, stored: Sequence[Buffer], out: np.ndarray) -> None:
        blocks: list[Buffer] = []
        for tile in stored:
            begin = self._only_chunk(tile)
            if begin:
                blocks.append(tile[begin:])
            else:
                blocks += self._chunks(memoryview(tile))
        # Without compression, each is as long as it will be, and none is looked at as LZ4.
        compression = self._compression or "lz4"
        with scratch(chunk_bytes(blocks)) as memory:
            decompress(blocks, self._chunk, self._itemsize, compression, out, memory)

    def _only_chunk(self, stored: Buffer) -> int:
        """Return where the data of a tile's only chunk begin; 0 for a tile of any other form."""
        head, size, length = self._head, self.tile_bytes, len(stored)
        if self._compression is None or length <= head.size:
            return 0
        read = head.unpack_from(stored)
        extra, filtered = head.size - _ONE_CHUNK_HEAD, length - head.size
        if head is _ONE_CHUNK:
            skip = 0
            usual = read == (1, size, filtered, extra, 0, 1, size, filtered)
        else:
            skip = read[7]
            usual = read == (1, size, filtered, extra, 1, 1, read[6], skip, size, filtered - skip)
        # `decompress` takes an empty block, or one as long as it will be, for something else.
        return head.size + skip if usual and 0 < filtered - skip != size else 0

    def _chunks(self, stored: memoryview) -> list[Buffer]:
        """Return the chunks of a tile, each as `decompress` takes it."""
        count = -(-self.tile_bytes // self._chunk)
        claimed = _CHUNK_COUNT.unpack_from(stored)[0]
        if claimed != count:
            raise ValueError(f"has {claimed} chunks, expected {count}")
        blocks: list[Buffer] = []
        position, rest = _CHUNK_COUNT.size, self.tile_bytes
        for _ in range(count):
            size = min(rest, self._chunk)
            original, filtered, extra = _CHUNK.unpack_from(stored, position)
            start = position + _CHUNK.size
            position = start + extra + filtered
            if position > len(stored) or original != size:
                raise ValueError(f"has a chunk of {original} bytes, expected {size}")
            data = stored[start + extra : position]
            if self._compression is not None:
                skip, length = _only_part(stored[start : start + extra], original, filtered)
                data = data[skip : skip + length]
            blocks.append(self._block(data, size))
            rest -= size
        if position != len(stored):
            raise ValueError(f"{len(stored) - position} bytes follow its last chunk")
        return blocks

    def _block(self, data: Buffer, size: int) -> Buffer:
        """Return a chunk's data as `decompress` takes it.

        That takes a block as long as it will be for one that was not compressed, and an empty one
        for zeros.
        """
        compression = self._compression
        if compression is not None and len(data) == size:
            data, compression = inflate(data, size, compression), None
        if not data or (compression is None and len(data) != size):
            raise ValueError(f"a chunk has {len(data)} bytes, expected {size}")
        return data


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
