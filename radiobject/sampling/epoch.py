"""The order in which an epoch visits its samples, as a function of (seed, epoch).

An epoch has one global order. Rank `r` of `w` takes every `w`-th sample of it, starting at the
`r`-th, so that after any number of equal steps the ranks together have seen a prefix of the
global order. That is what lets a run stop and go on with another number of ranks: what is left
is always a suffix.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radiobject.exceptions import ConfigurationError
from radiobject.sampling.philox import philox, unit

_SHUFFLE_STREAM = 0x5_0001
_BLOCK_STREAM = 0x5_0002
_WEIGHT_STREAM = 0x5_0003

_ROUNDING = 1e-9
"""A third of three is one."""

Tail = Literal["drop", "repeat", "uneven"]


def order(
    n: int, seed: int, epoch: int, rank: int = 0, world_size: int = 1, *, tail: Tail = "drop"
) -> NDArray[np.int64]:
    """Return the samples that one rank visits in one epoch, in order.

    With one rank this is a permutation of ``range(n)``. The shards of several ranks are disjoint
    and of equal length; `tail` says what happens to the last ``n % world_size`` samples (see
    `shard`).
    """
    return shard(shuffled(n, seed, epoch), rank, world_size, tail=tail)


def shuffled(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return a permutation of ``range(n)``.

    Samples are sorted by random 64-bit keys rather than by NumPy's `Generator.permutation`, whose
    stream may change between NumPy versions.
    """
    return np.argsort(_keys(n, seed, epoch, _SHUFFLE_STREAM), kind="stable")


def block_shuffled(
    groups: ArrayLike, seed: int, epoch: int, groups_per_block: int
) -> NDArray[np.int64]:
    """Return a permutation that stays inside a few volumes at a time.

    The groups (volumes) are shuffled and cut into blocks of `groups_per_block`; the samples of a
    block are shuffled together before the next block begins. Each volume is thus touched in one
    stretch of the epoch, which is what a cache smaller than the data, or an object store, wants.
    The cost is mixing: a batch sees at most `groups_per_block` volumes, and two samples of
    different blocks never share one. ``groups_per_block=1`` is the sequential extreme.

    Parameters
    ----------
    groups : array_like of int, shape (n,)
        The group (volume) of each sample, numbered from 0.
    groups_per_block : int
        At least 1.
    """
    member = np.asarray(groups, dtype=np.int64)
    if groups_per_block < 1:
        raise ConfigurationError(f"groups_per_block must be at least 1, got {groups_per_block}")
    if member.size == 0:
        return np.empty(0, np.int64)
    count = int(member.max()) + 1
    place = np.empty(count, np.int64)
    place[np.argsort(_keys(count, seed, epoch, _BLOCK_STREAM), kind="stable")] = np.arange(count)
    block = place[member] // groups_per_block
    return np.lexsort((_keys(member.size, seed, epoch, _SHUFFLE_STREAM), block))


def weighted(weights: ArrayLike, n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return `n` draws with replacement, each item in proportion to its weight.

    Raises
    ------
    ConfigurationError
        If a weight is negative or not finite, or all are 0.
    """
    weight = np.asarray(weights, dtype=np.float64)
    if weight.ndim != 1 or not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
        raise ConfigurationError(
            "weights must be one finite number >= 0 per volume, not all 0, "
            f"got shape {weight.shape} with minimum {weight.min(initial=0)}"
        )
    edges = np.cumsum(weight)
    draws = unit(philox(seed, epoch, np.arange(n), _WEIGHT_STREAM)[:, 0]) * edges[-1]
    last = int(np.flatnonzero(weight)[-1])
    return np.minimum(np.searchsorted(edges, draws, side="right"), last).astype(np.int64)


def shard(
    sequence: NDArray[np.int64], rank: int, world_size: int, *, start: int = 0, tail: Tail = "drop"
) -> NDArray[np.int64]:
    """Return one rank's share of what is left of a global order.

    Parameters
    ----------
    sequence : ndarray of int64, shape (n,)
        The epoch's global order.
    rank, world_size : int
        ``0 <= rank < world_size``.
    start : int
        Samples at the front of `sequence` that are done already, over all ranks.
    tail : {"drop", "repeat", "uneven"}
        What happens when the rest does not divide: leave the remainder out; start over to fill
        it; or let the first ranks have one sample more.

    Raises
    ------
    ConfigurationError
        If the rank is not one of the process group.
    """
    if world_size < 1 or not 0 <= rank < world_size:
        raise ConfigurationError(
            f"rank must be in [0, world_size), got rank {rank} of world_size {world_size}"
        )
    rest = sequence[start:]
    extra = len(rest) % world_size
    if extra and tail == "drop":
        rest = rest[: len(rest) - extra]
    elif extra and tail == "repeat":
        rest = np.concatenate((rest, np.resize(sequence, world_size - extra)))
    return rest[rank::world_size]


def in_each_batch(last: NDArray[np.bool_], batch_size: int, ratio: float) -> NDArray[np.bool_]:
    """Return a choice of at least `ratio` of every batch of an order, and of at least one.

    Parameters
    ----------
    last : ndarray of bool, shape (n,)
        Samples that are chosen only where others do not suffice.
    batch_size : int
        Samples per batch; the last batch may be smaller.
    ratio : float
        In (0, 1].
    """
    whole = len(last) - len(last) % batch_size
    parts = [last[:whole].reshape(-1, batch_size)]
    if whole < len(last):
        parts.append(last[whole:][None])
    return np.concatenate([_first_of_each(part, ratio).ravel() for part in parts])


def _first_of_each(last: NDArray[np.bool_], ratio: float) -> NDArray[np.bool_]:
    """Return the choice of batches of one size, each a row."""
    number = max(1, math.ceil(last.shape[1] * ratio - _ROUNDING))
    chosen = np.zeros(last.shape, bool)
    places = np.argsort(last, axis=1, kind="stable")[:, :number]
    np.put_along_axis(chosen, places, True, axis=1)
    return chosen


def _keys(n: int, seed: int, epoch: int, stream: int) -> NDArray[np.uint64]:
    """Return one random 64-bit key per item."""
    words = philox(seed, epoch, np.arange(n), stream).astype(np.uint64)
    return (words[:, 0] << np.uint64(32)) | words[:, 1]
