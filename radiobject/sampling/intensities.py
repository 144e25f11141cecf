"""The intensities of a volume, or of many together: what normalisation needs to know of them.

A summary is made slab by slab, is small, and is exact where a volume has few values (CT has a few
thousand). Summaries of many volumes are pooled into one without reading a voxel again, so that the
statistics of a training set are those of just its volumes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import ConfigurationError
from radiobject.sampling.philox import philox

MAX_VALUES = 4096
"""Values kept per volume; where there are more, each stands for as many voxels as the others.

A percentile is then off by at most 100 / (2 * MAX_VALUES) percent of the voxels: 0.012.
"""
_OFFSET = 1 << 15
_MAX_GATHERED = 1 << 22
"""Voxels of a floating volume that its percentiles are taken from.

Of a larger one these are drawn: one at random out of each 2, 4, 8 ... that follow each other. Every
k-th would see the same planes or time points only, where the sides divide by k.
"""
_DRAW_STREAM = 0x1D2A
_COINS = 128
"""Random bits of one index."""
DRAW = "drawn in strata"
"""Names how voxels of large volumes are chosen; summaries chosen otherwise are other ones."""


@dataclass(frozen=True, eq=False)
class IntensitySummary:
    """Intensities of some voxels, in delivered units.

    Parameters
    ----------
    count : int
        Voxels; 0 where there were none, and the numbers below are then NaN.
    mean, variance : float
        Of all of them, as of a population.
    values : ndarray of float64, shape (m,)
        Ascending, the smallest and the largest among them.
    weights : ndarray of float64, shape (m,)
        Voxels that each value stands for.
    """

    count: int
    mean: float
    variance: float
    values: NDArray[np.float64]
    weights: NDArray[np.float64]

    @property
    def std(self) -> float:
        """Standard deviation, as of a population."""
        return math.sqrt(self.variance)

    def percentile(self, percent: float) -> float:
        """Return a percentile, between two values in proportion, as `numpy.percentile` does.

        Raises
        ------
        ConfigurationError
            If it is not between 0 and 100, or there is no voxel.
        """
        if not 0 <= percent <= 100:
            raise ConfigurationError(f"a percentile is between 0 and 100, got {percent}")
        if not len(self.values):
            raise ConfigurationError("no voxel to take a percentile of")
        above = np.cumsum(self.weights)
        rank = percent / 100 * max(above[-1] - 1, 0)
        whole = math.floor(rank)
        last = len(self.values) - 1
        low, high = np.minimum(np.searchsorted(above, [whole, whole + 1], side="right"), last)
        first, second = self.values[low], self.values[high]
        return float(first + (second - first) * (rank - whole))


def pooled(summaries: Iterable[IntensitySummary]) -> IntensitySummary:
    """Return the summary of the voxels of several summaries together."""
    parts = [part for part in summaries if part.count]
    if not parts:
        return _NOTHING
    count, mean, squares = 0, 0.0, 0.0
    for part in parts:
        count, mean, squares = _merged(
            (count, mean, squares), (part.count, part.mean, part.variance * part.count)
        )
    # Of a large volume only some voxels are weighed: each volume counts by all its voxels.
    weights = [part.weights * (part.count / part.weights.sum()) for part in parts]
    values, places = np.unique(np.concatenate([p.values for p in parts]), return_inverse=True)
    summed: NDArray[Any] = np.bincount(places, np.concatenate(weights), len(values))
    return IntensitySummary(count, mean, squares / count, values, summed)


def summarise(
    slabs: Iterable[NDArray[Any]], rescale: tuple[float, float] | None = None
) -> IntensitySummary:
    """Return the summary of the voxels of all slabs; those that are not finite do not count.

    Parameters
    ----------
    slabs : iterable of ndarray
        Stored values, of any shapes and of one type.
    rescale : tuple of float, optional
        (slope, intercept) to delivered units.
    """
    moments, gathered = (0, 0.0, 0.0), _Gathered()
    for slab in slabs:
        values = slab.reshape(-1)
        if values.dtype.kind == "f":
            values = values[np.isfinite(values)]
        if not values.size:
            continue
        mean = float(values.mean(dtype=np.float64))
        squares = float(np.square(np.subtract(values, mean, dtype=np.float64)).sum())
        moments = _merged(moments, (values.size, mean, squares))
        gathered.add(values)
    count, mean, squares = moments
    if not count:
        return _NOTHING
    kept, weights = _condensed(*gathered.occurring())
    slope, intercept = rescale or (1.0, 0.0)
    kept = kept * slope + intercept
    order = slice(None, None, -1) if slope < 0 else slice(None)
    return IntensitySummary(
        count, mean * slope + intercept, squares / count * slope**2, kept[order], weights[order]
    )


_EMPTY: NDArray[np.float64] = np.empty(0)
_NOTHING = IntensitySummary(0, math.nan, math.nan, _EMPTY, _EMPTY)
_Moments = tuple[int, float, float]


def _merged(first: _Moments, second: _Moments) -> _Moments:
    """Return count, mean and sum of squared deviations of two parts (Chan et al. 1979)."""
    count = first[0] + second[0]
    apart = second[1] - first[1]
    mean = first[1] + apart * second[0] / count
    return count, mean, first[2] + second[2] + apart * apart * first[0] * second[0] / count


def is_drawn(dtype: np.dtype[Any], voxels: int) -> bool:
    """Return whether percentiles of so many voxels are taken from some of them: see `DRAW`."""
    return not _is_counted(dtype) and voxels > _MAX_GATHERED


def _is_counted(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biu" and dtype.itemsize <= 2


class _Gathered:
    """The values that occur, counted: whole numbers all of them, of others a bounded draw.

    The draw depends on the values and their order, and not on how they were cut into slabs.
    """

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)
        self._others: list[NDArray[np.float64]] = []
        self._seen = 0
        self._halvings = 0
        self._ends = (math.inf, -math.inf)

    def add(self, values: NDArray[Any]) -> None:
        """Count values of one axis."""
        if _is_counted(values.dtype):
            found = np.bincount(values.astype(np.int64) + _OFFSET, minlength=len(self._counts))
            found[: len(self._counts)] += self._counts
            self._counts = found
            return
        low, high = self._ends
        self._ends = min(low, float(values.min())), max(high, float(values.max()))
        first, drawn = self._seen, values
        self._seen += len(values)
        for level in range(self._halvings):
            drawn, first = _one_of_each_pair(drawn, first, level)
        self._others.append(drawn.astype(np.float64))
        while sum(map(len, self._others)) > _MAX_GATHERED:
            # What was drawn so far is one of each stratum from the first on, without a gap.
            drawn, _ = _one_of_each_pair(np.concatenate(self._others), 0, self._halvings)
            self._others = [drawn]
            self._halvings += 1

    def occurring(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the values in ascending order, and how many voxels each stands for."""
        if self._others:
            values, counts = np.unique(np.concatenate(self._others), return_counts=True)
            weights = counts.astype(np.float64) * (1 << self._halvings)
            return _with_ends(values, weights, self._ends)
        there = np.flatnonzero(self._counts)
        return (there - _OFFSET).astype(np.float64), self._counts[there].astype(np.float64)


def _one_of_each_pair(values: NDArray[Any], first: int, level: int) -> tuple[NDArray[Any], int]:
    """Return one value at random of each pair, 2k and 2k + 1, and the number k of the first.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Numbered from `first` on. Of a pair that is there in part, the other part has its chance
        too: that pair may give nothing here, and gives its value where the other part is drawn
        from.
    first : int
    level : int
        How many times the values were drawn from before.
    """
    if not len(values):
        return values, first
    low, high = first >> 1, (first + len(values) + 1) >> 1
    words = philox(0, level, np.arange(low // _COINS, (high - 1) // _COINS + 1), _DRAW_STREAM)
    coins = np.unpackbits(words.astype("<u4").view(np.uint8).ravel(), bitorder="little")
    pairs = np.arange(low, high)
    places = 2 * pairs + coins[pairs - low // _COINS * _COINS] - first
    there = (places >= 0) & (places < len(values))
    return values[places[there]], int(pairs[there.argmax()])


def _with_ends(
    values: NDArray[np.float64], weights: NDArray[np.float64], ends: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the values with the smallest and the largest among them, if need be as one voxel."""
    before = [end for end in ends[:1] if not len(values) or end < values[0]]
    after = [end for end in ends[1:] if not len(values) or end > values[-1]]
    ones = np.ones(len(before)), np.ones(len(after))
    return np.concatenate([before, values, after]), np.concatenate([ones[0], weights, ones[1]])


def _condensed(
    values: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return at most `MAX_VALUES` values of equal weight, the ends among them."""
    if len(values) <= MAX_VALUES:
        return values, weights
    above = np.cumsum(weights)
    ranks = (np.arange(MAX_VALUES) + 0.5) / MAX_VALUES * above[-1]
    chosen = values[np.searchsorted(above, ranks, side="right")]
    chosen[0], chosen[-1] = values[0], values[-1]
    return chosen, np.full(MAX_VALUES, above[-1] / MAX_VALUES)


def as_arrays(summary: IntensitySummary) -> tuple[NDArray[np.float64], ...]:
    """Return a summary as arrays of plain numbers: of all voxels, values, and weights."""
    head = np.array([summary.count, summary.mean, summary.variance])
    return head, summary.values, summary.weights


def from_arrays(arrays: Sequence[NDArray[np.float64]]) -> IntensitySummary:
    """Return the summary that `as_arrays` took apart.

    Raises
    ------
    ValueError
        If the arrays are none.
    """
    head, values, weights = (np.array(array, np.float64) for array in arrays)
    fits = len(head) == 3 and len(values) == len(weights) <= MAX_VALUES
    if not fits or (head[0] > 0) != (len(values) > 0) or not (np.diff(values) >= 0).all():
        raise ValueError("these are no intensities")
    return IntensitySummary(int(head[0]), float(head[1]), float(head[2]), values, weights)
