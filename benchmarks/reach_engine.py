"""The read engine's goals on this machine's disk and memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.engine import (
    Stored,
    decoded_cache,
    draw_boxes,
    engine_reading,
    reading,
    region_boxes,
    tile_megabytes,
)
from benchmarks.goals import BUDGET_GOALS, REGION_GOALS, Outcome, of_ratio
from benchmarks.infrastructure.turns import interleaved, ratio

ROUNDS = 15
_PATCH, _BATCH, _EPOCH = 64, 4, 200
_EPOCHS_TO_FILL = 4
"""Epochs after which a cache that is too small holds what it is going to hold."""


def region_outcomes(stored: Stored, region: str, rounds: int = ROUNDS) -> list[Outcome]:
    """Return the outcomes of one region's goals: page cache warm, nothing decoded."""
    goals = REGION_GOALS[region]
    ways = dict.fromkeys(way for ours, theirs, _ in goals for way in (ours, theirs))
    sides, boxes = region_boxes(stored, region)
    with decoded_cache(None):
        taken = interleaved({way: reading(way, stored, sides, boxes) for way in ways}, rounds)
    return [of_ratio(goal, ratio(taken[theirs], taken[ours])) for ours, theirs, goal in goals]


@contextmanager
def _cached(stored: Stored, share: str, megabytes: float) -> Iterator[None]:
    """Read with a cache for a share of the tiles: "none", "25 %", "50 %" or "100 %"."""
    if share == "none":
        budget = None
    else:
        # The smallest budget that the library takes is 10 MiB.
        part = int(share.split()[0]) / 100
        budget = max(10, round(megabytes * part)) if part < 1 else 4096
    with decoded_cache(budget):
        yield


def _epoch(stored: Stored, seed: int) -> float:
    """Read epochs of random batches; return the seconds of one patch in the last."""
    sides = tuple(min(_PATCH, n) for n in stored.shape)
    batch = np.empty((_BATCH, *sides), stored.dtype)
    calls = [
        engine_reading(
            stored.locators["balanced"], sides, draw_boxes(stored, sides, _EPOCH, seed + n), batch
        )
        for n in range(_EPOCHS_TO_FILL + 1)
    ]
    *filling, last = calls
    for call in filling:
        call()
    begin = time.perf_counter()
    last()
    return (time.perf_counter() - begin) / _EPOCH


def seconds_per_sample(stored: Stored, share: str, rounds: int) -> list[float]:
    """Return the seconds of one patch of 64 cubed, one per round, each from an empty cache."""
    megabytes = tile_megabytes(stored)
    taken: list[float] = []
    for number in range(rounds):
        with _cached(stored, share, megabytes):
            taken.append(_epoch(stored, 10 * number))
    return taken


def budget_outcomes(stored: Stored, rounds: int = 7) -> list[Outcome]:
    """Return the outcomes of caches that hold a part of the tiles, in turn with none."""
    megabytes = tile_megabytes(stored)
    taken: dict[str, list[float]] = {share: [] for share in ("none", *BUDGET_GOALS)}
    for number in range(rounds):
        for share, seconds in taken.items():
            with _cached(stored, share, megabytes):
                seconds.append(_epoch(stored, 10 * number))
    return [
        of_ratio(goal, ratio(taken["none"], taken[share])) for share, goal in BUDGET_GOALS.items()
    ]
