"""Verdicts from paired samples.

Both commits are measured in turn, so each pair of neighbours saw the same machine; the logarithm
of their ratio is what is averaged. The median over pairs and the bootstrap's percentiles of it
(Efron and Tibshirani, 1993) need no assumption about the noise's shape, which on a shared machine
has a long tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.errors import BenchmarkError

# A change of under 7 % is below what a shared machine can witness: it is called the same.
TOLERANCE = 0.07
CONFIDENCE = 0.99
MIN_PAIRS = 8
_RESAMPLES = 4000


@dataclass(frozen=True)
class Verdict:
    """One benchmark's outcome: head over base, above 1 is slower, larger or hungrier.

    Attributes
    ----------
    word
        "better", "same", "worse", or "unknown" where the interval is too wide to tell.
    """

    ratio: float
    low: float
    high: float
    pairs: int
    word: str


def compare(base: Sequence[float], head: Sequence[float], tolerance: float = TOLERANCE) -> Verdict:
    """Return the verdict on paired samples.

    Raises
    ------
    BenchmarkError
        On fewer pairs than `MIN_PAIRS`, unequal numbers, or a sample that is not positive: none
        of these is a measurement.
    """
    if len(base) != len(head) or len(base) < MIN_PAIRS:
        raise BenchmarkError(
            f"{len(base)} and {len(head)} samples: a verdict needs {MIN_PAIRS} pairs or more"
        )
    samples = np.array([base, head], dtype=float)
    if not (np.isfinite(samples).all() and (samples > 0).all()):
        raise BenchmarkError("a sample is not a positive number: nothing was measured")
    logs = np.log(samples[1] / samples[0])
    rng = np.random.default_rng(0)
    drawn = rng.choice(logs, (_RESAMPLES, len(logs)))
    middles = np.median(drawn, axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, middle, high = np.exp(
        [np.quantile(middles, tail), np.median(logs), np.quantile(middles, 1 - tail)]
    )
    return Verdict(float(middle), float(low), float(high), len(logs), _word(low, high, tolerance))


def _word(low: float, high: float, tolerance: float) -> str:
    if low > 1 + tolerance:
        return "worse"
    if high < 1 / (1 + tolerance):
        return "better"
    # "same" is a claim too: it needs an interval that excludes the slowdown the gate is for.
    if high < 1.3 and low > 1 / 1.3:
        return "same"
    return "unknown"


def compare_counts(base: float, head: float) -> Verdict:
    """Return the verdict on exact counts: one more is worse."""
    if base == head:
        return Verdict(1.0, 1.0, 1.0, 1, "same")
    ratio = head / base if base else float("inf")
    return Verdict(ratio, ratio, ratio, 1, "worse" if head > base else "better")
