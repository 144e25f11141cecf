"""CRC-32 of stored tiles, by the fastest routine at hand, and digests of table files."""

import hashlib
import zlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

__all__ = ["crc32", "crc32_of_places", "digest"]

_ONES = np.uint32(0xFFFFFFFF)
_BYTE = 256
_DIGIT_BITS = 8


def digest(content: bytes) -> str:
    """Return the digest of a table file's content, as the commits record it."""
    return hashlib.sha256(content).hexdigest()[:16]


def crc32_of_places(
    checksums: NDArray[np.uint32],
    lengths: NDArray[np.int64],
    begins: NDArray[np.int64],
    first: NDArray[np.int64],
    edges: NDArray[np.int64],
) -> NDArray[np.uint32]:
    """Return the CRC-32 that stretches of memory have in which known pieces lie, and zeros between.

    One call for many pieces that lie in one memory says whether all of them are right.

    Parameters
    ----------
    checksums : ndarray of uint32, shape (n,)
        CRC-32 of each piece.
    lengths, begins : ndarray of int64, shape (n,)
        Bytes of each, and where it begins; in ascending order, and none overlaps another.
    first : ndarray of int64, shape (m,)
        The first piece of each stretch; each stretch has one at least.
    edges : ndarray of int64, shape (m + 1,)
        Where each stretch begins; it ends where the next one does.

    Notes
    -----
    CRC-32 is linear over the field of two elements, but for what it starts and ends with. So a
    piece gives the whole what it gives alone, after as many bytes of zeros as follow it there.
    """
    of_piece = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(begins))))
    after = edges[1:][of_piece] - begins - lengths
    count = len(begins)
    ones = np.full(count + len(first), _ONES)
    # What each piece gives by itself, less what the start of its own CRC gave.
    shifted = _after_zeros(
        np.concatenate((checksums ^ _ONES, ones)),
        np.concatenate((after, lengths + after, np.diff(edges))),
    )
    given = shifted[:count] ^ shifted[count : 2 * count]
    whole: NDArray[np.uint32] = np.bitwise_xor.reduceat(given, first)
    return whole ^ shifted[2 * count :] ^ _ONES


def _after_zeros(states: NDArray[np.uint32], nbytes: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return the states of the CRC's register after so many bytes of zeros each."""
    digit = 0
    while nbytes.size and nbytes.any():
        states = _applied(_table(digit), states, (nbytes & _BYTE - 1) * (4 * _BYTE))
        nbytes = nbytes >> _DIGIT_BITS
        digit += 1
    return states


@cache
def _table(digit: int) -> NDArray[np.uint32]:
    """Return what becomes of a register's bytes after zeros, shape (256, 4, 256).

    The first axis counts pieces of ``256 ** digit`` bytes; then come the place of a byte in the
    register, the lowest first, and its value.
    """
    table = np.empty((_BYTE, 4, _BYTE), np.uint32)
    values = np.arange(_BYTE, dtype=np.uint32)
    table[0] = values << (np.arange(4, dtype=np.uint32) * 8)[:, None]
    if digit:
        before = _table(digit - 1)
        table[1] = _applied(before[1], before[-1])
    else:
        after = [zlib.crc32(b"\0", state) for state in (table[0] ^ _ONES).ravel().tolist()]
        table[1] = np.array(after, np.uint32).reshape(4, _BYTE) ^ _ONES
    for count in range(2, _BYTE):
        table[count] = _applied(table[1], table[count - 1])
    return table


def _applied(
    table: NDArray[np.uint32], states: NDArray[np.uint32], row: NDArray[np.int64] | int = 0
) -> NDArray[np.uint32]:
    """Return states after the zeros that some rows of a table stand for, each the sum of four."""
    flat, result = table.ravel(), np.zeros_like(states)
    for place in range(4):
        of_byte = (states >> np.uint32(8 * place)) & np.uint32(_BYTE - 1)
        result ^= flat.take(of_byte + (row + place * _BYTE), mode="wrap")
    return result
