"""Gunzip with a bound: little more is decoded than a header declared, and checksums count."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import IngestError

_deflate: Any = zlib
_ERRORS: Any = (zlib.error,)
try:
    from isal import isal_zlib
except ImportError:
    pass
else:
    _deflate = isal_zlib
    _ERRORS = (zlib.error, isal_zlib.error)
_libdeflate: Any = None
with suppress(ImportError):
    import deflate as _libdeflate

GZIP_MAGIC = b"\x1f\x8b"

TRAILING_SLACK_BYTES = 1 << 16
"""Padding tolerated behind the declared voxels."""

AT_ONCE_BYTES = 1 << 28
"""Largest content that is decoded in one piece, which takes as much memory for a moment."""

_WBITS_GZIP, _WBITS_EITHER = 31, 47
_FLAGS_BYTE = 3
_HEADER_CHECKSUM_FLAG = 2

# A decompressor copies the input that it has not used: fed in windows, that is little each time.
_WINDOW_BYTES = 1 << 16
_PIECE_BYTES = 1 << 18


def _decompressor() -> Any:
    """Return a decompressor of one gzip member: isal's, three times as fast, when installed."""
    return _deflate.decompressobj(wbits=_WBITS_GZIP)


def gunzip_head(name: str, compressed: bytes, size: int) -> bytes:
    """Return up to `size` bytes from the start of a gzip stream.

    Raises
    ------
    IngestError
        If the stream is damaged.
    """
    head, rest = b"", compressed[: max(1 << 16, size)]
    try:
        # Several members in a row are one stream, and the first may be as short as empty.
        while len(head) < size and rest.startswith(GZIP_MAGIC):
            stream = _decompressor()
            head += stream.decompress(rest, size - len(head))
            if not stream.eof:
                break
            rest = stream.unused_data
    except _ERRORS as error:
        raise IngestError(f"{name}: damaged gzip stream ({error})") from error
    return head


def gunzip_blocks(
    name: str, compressed: bytes, sizes: Sequence[int], slack: int = TRAILING_SLACK_BYTES
) -> Iterator[NDArray[np.uint8]]:
    """Yield the decoded bytes of a gzip file in blocks, then verify its checksum and its end.

    Parameters
    ----------
    name : str
        What error messages call the file.
    compressed : bytes
        The whole file; several members in a row are one stream, as gzip defines.
    sizes : sequence of int
        Bytes of each block; together, those that the file's own header declares.
    slack : int
        So many bytes more are tolerated, and thrown away.

    Yields
    ------
    ndarray of uint8, shape (size,)
        Valid until the next block is asked for.

    Raises
    ------
    IngestError
        If the stream is damaged, cut short, or goes on past the declared size.
    """
    declared = sum(sizes)
    whole = _at_once(compressed, declared)
    if whole is not None:
        yield from np.split(whole, np.cumsum(sizes[:-1]))
        return
    buffer = np.empty(max(sizes), np.uint8)
    pieces = _pieces(name, memoryview(compressed), declared)
    rest = memoryview(b"")
    for size in sizes:
        filled = 0
        while filled < size:
            rest = rest or memoryview(next(pieces))
            taken = min(size - filled, len(rest))
            buffer[filled : filled + taken] = rest[:taken]
            filled, rest = filled + taken, rest[taken:]
        yield buffer[:size]
    surplus = len(rest)
    while surplus <= slack:
        piece = next(pieces, b"")
        if not piece:
            return
        surplus += len(piece)
    raise IngestError(
        f"{name}: decompresses to more than the {declared:,} bytes that its header declares"
    )


def check_zlib(name: str, compressed: bytes, declared: int) -> None:
    """Go through a zlib or gzip stream to its end, which is what verifies its checksum.

    Raises
    ------
    IngestError
        If the stream is damaged, cut short, or decodes to another size than `declared` bytes.
    """
    stream: Any = zlib.decompressobj(wbits=_WBITS_EITHER)
    source = memoryview(compressed)
    at = produced = 0
    fed: bytes | memoryview = b""
    piece = b""
    try:
        while not stream.eof and produced <= declared:
            # A full piece may have left more behind in the decompressor than in its input.
            if not fed and len(piece) < _PIECE_BYTES:
                fed = source[at : at + _WINDOW_BYTES]
                at += len(fed)
                if not fed:
                    break
            piece = stream.decompress(fed, _PIECE_BYTES)
            fed = stream.unconsumed_tail
            produced += len(piece)
    except zlib.error as error:
        raise IngestError(f"{name}: damaged zlib stream ({error})") from error
    if produced != declared or not stream.eof:
        more = "more than " if produced > declared else ""
        raise IngestError(
            f"{name}: its packed voxels are cut short or others: {more}{min(produced, declared):,} "
            f"of {declared:,} bytes are there"
        )


def _at_once(compressed: bytes, declared: int) -> NDArray[np.uint8] | None:
    """Return the content of a file that is one whole member, or None where that is in doubt.

    libdeflate decodes half as fast again as isal, but only from memory to memory, and does not
    say where a member ended. A member ends with its length: where this stands at the end of the
    file and nowhere before it, that is where the member ended. Whatever else there may be, damage
    included, is for the stream to tell.
    """
    if _libdeflate is None or not 0 < declared <= AT_ONCE_BYTES:
        return None
    if not _only_ends_with(compressed, declared):
        return None
    if len(compressed) <= _FLAGS_BYTE or compressed[_FLAGS_BYTE] & _HEADER_CHECKSUM_FLAG:
        # libdeflate does not verify the checksum that a member's header may have.
        return None
    try:
        whole = np.frombuffer(_libdeflate.gzip_decompress(compressed, declared), np.uint8)
    except _libdeflate.DeflateError:
        return None
    return whole if len(whole) == declared else None


def _only_ends_with(content: bytes, word: int) -> bool:
    """Return whether a little-endian `word` of four bytes is at the end, and nowhere before it."""
    end = len(content) - 4
    if end < 0 or int.from_bytes(content[end:], "little") != word:
        return False
    # Words that start 0, 1, 2 or 3 bytes further on, up to the last but one: `find` takes thrice
    # as long.
    return not any(
        (np.frombuffer(content, "<u4", (end - first + 3) // 4, first) == word).any()
        for first in range(min(4, end))
    )


def _pieces(name: str, source: memoryview, declared: int) -> Iterator[bytes]:
    """Yield what every member of a gzip file decodes to, in pieces of bounded size.

    Raises
    ------
    IngestError
        If a member is damaged or cut short, or all together have fewer than `declared` bytes.
    """
    at = produced = 0
    whole = True
    while whole and source[at : at + 2] == GZIP_MAGIC:
        stream = _decompressor()
        fed: bytes | memoryview = b""
        piece = b""
        while whole and not stream.eof:
            # A full piece may have left more behind in the decompressor than in its input.
            if not fed and len(piece) < _PIECE_BYTES:
                fed = source[at : at + _WINDOW_BYTES]
                at += len(fed)
                whole = bool(fed)
            piece = _decoded(name, stream, fed)
            fed = stream.unconsumed_tail
            produced += len(piece)
            if piece:
                yield piece
        at -= len(stream.unused_data)
    if produced < declared or not whole:
        raise IngestError(
            f"{name}: the gzip stream is cut short: {produced:,} of {declared:,} bytes are there"
        )


def _decoded(name: str, stream: Any, fed: bytes | memoryview) -> bytes:
    try:
        return stream.decompress(fed, _PIECE_BYTES)
    except _ERRORS as error:
        raise IngestError(f"{name}: damaged gzip stream ({error})") from error
