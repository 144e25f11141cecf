"""Decoding many compressed blocks in one call, which leaves the interpreter to other threads.

A block of a TileDB tile and one of a Blosc2 chunk are made alike: the bytes are shuffled, then
compressed to one zstd frame, LZ4 block or zlib stream. So blocks need only a header before them to
be a chunk. Its form: https://www.blosc.org/c-blosc2/format/chunk_format.html
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence

import numpy as np

from radiobject import process

Buffer = bytes | memoryview

# Version, of the format and of the compressor, flags, bytes of a value; bytes of all blocks and
# of one, of the chunk; filters, codec and its setting, settings of the filters, more flags.
_HEADER = struct.Struct("<BBBBiii6sBx6s2x")
_FORMAT, _COMPRESSOR_FORMAT = 5, 1
_EXTENDED_NOT_SPLIT = 0b10101
_NO_FILTERS = bytes(6)
_SHUFFLE = b"\1" + bytes(5)
# Of each compression: how the flags name it, and how the extended header does.
_CODECS = {"lz4": (1, 1), "gzip": (3, 4), "zstd": (4, 5)}


def chunk_bytes(blocks: Sequence[Buffer]) -> int:
    """Return the bytes of a chunk of these compressed blocks."""
    return _HEADER.size + 8 * len(blocks) + sum(map(len, blocks))


def decompress(
    blocks: Sequence[Buffer],
    block_bytes: int,
    itemsize: int,
    compression: str,
    out: np.ndarray,
    memory: np.ndarray,
) -> None:
    """Decompress blocks, one after the other, into `out`.

    Parameters
    ----------
    blocks : sequence of bytes or memoryview
        Each compressed; one exactly as long as it will be stands for itself.
    block_bytes : int
        Bytes of a block when decompressed; the last block may be shorter.
    itemsize : int
        Bytes of a value whose bytes are shuffled; 1 for none.
    compression : {"zstd", "lz4", "gzip"}
    out : ndarray of uint8, C-contiguous, as long as all blocks together
    memory : ndarray of uint8, C-contiguous, shape (chunk_bytes(blocks),)
        To lay the blocks together in.

    Raises
    ------
    ValueError
        If a block is not of the compression or size that it should be.
    """
    flag, codec = _CODECS[compression]
    chunk, position = memory.data, _HEADER.size + 4 * len(blocks)
    starts = []
    for block in blocks:
        starts.append(position)
        begin, length = position + 4, len(block)
        chunk[position:begin] = length.to_bytes(4, "little")
        position = begin + length
        chunk[begin:position] = block
    _HEADER.pack_into(
        chunk,
        0,
        _FORMAT,
        _COMPRESSOR_FORMAT,
        flag << 5 | _EXTENDED_NOT_SPLIT,
        itemsize,
        out.size,
        block_bytes,
        position,
        _SHUFFLE if itemsize > 1 else _NO_FILTERS,
        codec,
        _NO_FILTERS,
    )
    struct.pack_into(f"<{len(starts)}i", chunk, _HEADER.size, *starts)
    (_decompress2 or _load())(memory, out, nthreads=1)


_decompress2: Callable[..., object] | None = None
_loading = threading.RLock()


def _load() -> Callable[..., object]:
    """Import Blosc2 on first use: it takes a tenth of a second, which warm reads do without."""
    global _decompress2
    with _loading:
        import blosc2

        blosc2.set_releasegil(True)
        _decompress2 = blosc2.decompress2
        return _decompress2


# A child forked while another thread imports would wait for that import for ever.
process.at_fork(
    "blosc2", before=_loading.acquire, in_parent=_loading.release, in_child=_loading.release
)
