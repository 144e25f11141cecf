"""Decoding many compressed blocks in one call, which leaves the interpreter to other threads.

A block of a TileDB tile and one of a Blosc2 chunk are made alike: the bytes are shuffled, then
compressed to one zstd frame, LZ4 block or zlib stream. So blocks need only a header before them to
be a chunk. Its form: https://www.blosc.org/c-blosc2/format/chunk_format.html
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import lz4.block
import numpy as np
import zstandard

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
    if _decompress2 is None and not _is_here():
        _decompress_singly(blocks, block_bytes, itemsize, compression, out)
        return
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
_coming: Future[object] | None = None


def load_meanwhile() -> None:
    """Import Blosc2 in another thread: it takes up to half a second, and warm reads need none."""
    global _coming
    if _coming is not None:
        return
    thread = process.new_threads("import", 1)
    try:
        _coming = thread.submit(_load)  # by two threads at once: the later one finds it done
        thread.shutdown(wait=False)
    except RuntimeError:  # the interpreter ends, and starts no thread any more
        _load()


def _is_here() -> bool:
    """Return whether Blosc2 was imported, or cannot be; if neither, see to it."""
    load_meanwhile()
    return _coming is None or _coming.done()


def _load() -> Callable[..., object]:
    global _decompress2
    with _loading:
        import blosc2

        blosc2.set_releasegil(True)
        _decompress2 = blosc2.decompress2
        return _decompress2


def _decompress_singly(
    blocks: Sequence[Buffer], block_bytes: int, itemsize: int, compression: str, out: np.ndarray
) -> None:
    """Decompress like `decompress`, block by block, while Blosc2 is not here yet."""
    for number, block in enumerate(blocks):
        target = out[number * block_bytes :][:block_bytes]
        size = target.size
        stored = block if len(block) == size else inflate(block, size, compression)
        if len(stored) != size:
            raise ValueError(f"a block has {len(stored)} bytes, expected {size}")
        raw, whole = np.frombuffer(stored, np.uint8), size - size % itemsize
        target[:whole].reshape(-1, itemsize)[:] = raw[:whole].reshape(itemsize, -1).T
        target[whole:] = raw[whole:]


def inflate(data: Buffer, size: int, compression: str) -> bytes:
    """Decompress one block of up to `size` bytes; whatever it claims, no more memory is taken."""
    if compression == "gzip":
        unpacker = zlib.decompressobj()
        found = unpacker.decompress(data, size + 1)
        if not unpacker.eof:
            raise ValueError(f"a block has more than {size} bytes, or is cut")
        return found
    if compression == "lz4":
        return bytes(lz4.block.decompress(data, size))
    if zstandard.frame_content_size(data) > size:
        raise ValueError(f"a block claims more than {size} bytes")
    return bytes(zstandard.ZstdDecompressor().decompress(data, size))


def _renew_in_child() -> None:
    """Release the lock that was taken before the fork; an import that was begun goes on there."""
    global _coming
    _coming = _coming if _decompress2 is not None else None
    _loading.release()


# A child forked while another thread imports would wait for that import for ever.
process.at_fork(
    "blosc2", before=_loading.acquire, in_parent=_loading.release, in_child=_renew_in_child
)
