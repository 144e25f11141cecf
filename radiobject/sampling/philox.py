"""Random words that are a function of (seed, epoch, index), and of nothing else.

Philox-4x32-10 is a counter-based generator: its output is a keyed bijection of a 128-bit counter,
so that any draw can be made alone, in any order and in any process. The key is the seed; the
counter is the sample's index, the epoch and a stream number that separates independent uses.

J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC '11, doi:10.1145/2063384.2063405.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_ROUNDS = 10


def philox(
    seed: int, epoch: ArrayLike, index: ArrayLike, stream: ArrayLike = 0
) -> NDArray[np.uint32]:
    """Return four random 32-bit words per index.

    Parameters
    ----------
    seed : int
        Key; its low 64 bits count.
    epoch : int, or array_like of int, shape (n,)
        Part of the counter, one for all or one per index; its low 32 bits count.
    stream : int, or array_like of int, shape (n,)
        Part of the counter, one for all or one per index; its low 32 bits count.
    index : array_like of int, shape (n,)
        Part of the counter; 64 bits.

    Returns
    -------
    ndarray of uint32, shape (n, 4)
    """
    flat = np.atleast_1d(np.asarray(index)).astype(np.uint64)
    c0, c1 = flat & _LOW, flat >> _SHIFT
    c2 = np.broadcast_to(np.asarray(epoch) & 0xFFFFFFFF, flat.shape).astype(np.uint64)
    c3 = np.full_like(flat, np.asarray(stream) & 0xFFFFFFFF)
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(_ROUNDS):
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c2 = (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0), (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1)
        c1, c3 = p1 & _LOW, p0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack((c0, c1, c2, c3), axis=-1).astype(np.uint32)


def unit(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Map random words to numbers in [0, 1), in steps of 2**-32."""
    return words.astype(np.float64) * 2.0**-32


def below(words: NDArray[np.uint32], bound: ArrayLike) -> NDArray[np.int64]:
    """Map random words to integers in ``0 <= i < bound``, one bound per word or one for all.

    The multiply-and-shift map favours some values by at most ``bound / 2**32``: less than one in
    a million for a volume's side. A bound of 0 gives 0.
    """
    limit = np.asarray(bound).astype(np.uint64)
    return ((words.astype(np.uint64) * limit) >> _SHIFT).astype(np.int64)
