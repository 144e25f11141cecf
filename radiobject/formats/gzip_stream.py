"""Gunzip with a bound: no more is produced than a header declared, and the checksum is checked."""

from __future__ import annotations

import zlib
from typing import Any

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

GZIP_MAGIC = b"\x1f\x8b"

TRAILING_SLACK_BYTES = 1 << 16
"""Padding tolerated behind the declared voxels."""

_WBITS_GZIP = 31

# The first member is fed whole, which is fastest. What follows it is fed in windows: a decompressor
# copies the input behind its member, so feeding the rest of a file of many members each time would
# cost the square of its size.
_WINDOW_BYTES = 1 << 18


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
    try:
        return _decompressor().decompress(compressed[: max(1 << 16, size)], size)
    except _ERRORS as error:
        raise IngestError(f"{name}: damaged gzip stream ({error})") from error


def gunzip(name: str, compressed: bytes, size: int) -> bytes:
    """Return the `size` decoded bytes of a gzip file, with its checksum verified.

    Parameters
    ----------
    name : str
        What error messages call the file.
    compressed : bytes
        The whole file; several members in a row are one stream, as gzip defines.
    size : int
        Bytes that the file's own header declares. At most `TRAILING_SLACK_BYTES` more are ever
        produced, whatever the stream holds.

    Returns
    -------
    bytes
        At least `size` bytes; anything behind them is padding.

    Raises
    ------
    IngestError
        If the stream is cut short, fails its checksum, or goes on past the declared size.
    """
    room = size + TRAILING_SLACK_BYTES
    source = memoryview(compressed)
    parts: list[bytes] = []
    at, whole, window = 0, False, len(compressed)
    while source[at : at + 2] == GZIP_MAGIC:
        part, at, whole = _member(name, source, at, window, room)
        room -= len(part)
        if room < 0:
            raise IngestError(
                f"{name}: decompresses to more than the {size:,} bytes that its header declares"
            )
        parts.append(part)
        window = _WINDOW_BYTES
    produced = sum(len(part) for part in parts)
    if produced < size or not whole:
        raise IngestError(
            f"{name}: the gzip stream is cut short: {produced:,} of {size:,} bytes are there"
        )
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _member(
    name: str, source: memoryview, at: int, window: int, room: int
) -> tuple[bytes, int, bool]:
    """Decode one gzip member from offset `at`; return its bytes, the offset behind it, and its end.

    At most ``room + 1`` bytes are produced: one more than allowed, so that a stream which fills
    its room exactly is told from one that goes on. The last value is False when the input ended
    before the member did.
    """
    stream = _decompressor()
    pieces: list[bytes] = []
    left = room + 1
    while at < len(source) and left > 0 and not stream.eof:
        fed = source[at : at + window]
        try:
            pieces.append(stream.decompress(fed, left))
        except _ERRORS as error:
            raise IngestError(f"{name}: damaged gzip stream ({error})") from error
        left -= len(pieces[-1])
        at += len(fed) - len(stream.unused_data)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces), at, bool(stream.eof)
