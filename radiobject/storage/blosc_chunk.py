"""Decoding many compressed blocks in one call, which leaves the interpreter to other threads.

A block of a TileDB tile and one of a Blosc2 chunk are made alike: the bytes are shuffled, then
compressed to one zstd frame, LZ4 block or zlib stream. So blocks need only a header before them to
be a chunk. Its form: https://www.blosc.org/c-blosc2/format/chunk_format.html
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Sequence

import numpy as np

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


def chunk_of(
    blocks: Sequence[Buffer], block_bytes: int, itemsize: int, compression: str, size: int
) -> bytes:
    """Lay compressed blocks together, so that `decompress` takes them at once.

    Parameters
    ----------
    blocks : sequence of bytes or memoryview
        Each compressed; one exactly as long as it will be stands for itself.
    block_bytes : int
        Bytes of a block when decompressed; the last block may be shorter.
    itemsize : int
        Bytes of a value whose bytes are shuffled; 1 for none.
    compression : {"zstd", "lz4", "gzip"}
    size : int
        Bytes of all blocks together when decompressed.
    """
    flag, codec = _CODECS[compression]
    position = _HEADER.size + 4 * len(blocks)
    starts = []
    pieces: list[Buffer] = [b"", b""]
    for block in blocks:
        starts.append(position)
        length = len(block)
        position += 4 + length
        pieces += (length.to_bytes(4, "little"), block)
    pieces[0] = _HEADER.pack(
        _FORMAT,
        _COMPRESSOR_FORMAT,
        flag << 5 | _EXTENDED_NOT_SPLIT,
        itemsize,
        size,
        block_bytes,
        position,
        _SHUFFLE if itemsize > 1 else _NO_FILTERS,
        codec,
        _NO_FILTERS,
    )
    pieces[1] = struct.pack(f"<{len(starts)}i", *starts)
    return b"".join(pieces)


def decompress(chunk: bytes, out: np.ndarray) -> None:
    """Decompress the blocks that `chunk_of` laid together into `out`, one after the other.

    Raises
    ------
    ValueError
        If a block is not of the compression or size that it should be.
    """
    (_decompress2 or _load())(chunk, out, nthreads=1)


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


if hasattr(os, "register_at_fork"):
    # A child forked while another thread imports would wait for that import for ever.
    os.register_at_fork(
        before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release
    )
