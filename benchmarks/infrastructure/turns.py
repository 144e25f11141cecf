"""Calls measured in turn: a machine that gets slower for a while favours none of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.errors import BenchmarkError


@dataclass(frozen=True)
class Ratio:
    """The middle of the rounds' ratios, and the quartiles around it."""

    median: float
    low: float
    high: float
    rounds: int


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return each call's seconds, one per round; who goes first alternates.

    Each is called once before, outside the clock.
    """
    for call in calls.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        order = list(calls.items())
        for name, call in order if number % 2 else reversed(order):
            begin = clock()
            call()
            taken[name].append(clock() - begin)
    return taken


def ratio(over: Sequence[float], under: Sequence[float]) -> Ratio:
    """Return `over` divided by `under`, round by round.

    Raises
    ------
    BenchmarkError
        On fewer than two rounds, or unequal numbers of them.
    """
    if len(over) != len(under) or len(over) < 2:
        raise BenchmarkError(f"{len(over)} and {len(under)} rounds: a ratio needs two or more")
    each = [a / b for a, b in zip(over, under, strict=True)]
    return summary(each)


def summary(values: Sequence[float]) -> Ratio:
    """Return the median of `values`, and their quartiles."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Ratio(statistics.median(values), low, high, len(values))
