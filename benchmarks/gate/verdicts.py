"""Verdicts from paired samples.

Both commits are measured in turn, so each pair of neighbours saw the same machine. What is
estimated is the median of the pairs' ratios, with the exact interval that the order statistics
give (Hollander, Wolfe and Chicken, 2014, section 3.6). It asks nothing of the noise's shape: on a
shared machine a tenth of the samples may be several times too long.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.errors import BenchmarkError

# A change of under 7 % is below what a shared machine can witness: it is called the same.
TOLERANCE = 0.07
CONFIDENCE = 0.99
MIN_PAIRS = 8  # the fewest whose extremes reach that confidence
# "same" is a claim too: its interval must exclude the slowdown that the gate is for.
SLOWDOWN = 1.3


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


def exact(ratio: float, word: str) -> Verdict:
    """Return the verdict on what has no spread."""
    return Verdict(ratio, ratio, ratio, 1, word)


def compare(
    base: Sequence[float],
    head: Sequence[float],
    tolerance: float = TOLERANCE,
    slowdown: float = SLOWDOWN,
) -> Verdict:
    """Return the verdict on paired samples.

    A change of less than `tolerance` is none; "same" excludes one of `slowdown`. Too few pairs,
    or a sample that is not positive, are no measurement and an error.
    """
    if len(base) != len(head) or len(base) < MIN_PAIRS:
        raise BenchmarkError(
            f"{len(base)} and {len(head)} samples: a verdict needs {MIN_PAIRS} pairs or more"
        )
    from scipy.stats import quantile_test

    samples = np.array([base, head], dtype=float)
    if not (np.isfinite(samples).all() and (samples > 0).all()):
        raise BenchmarkError("a sample is not a positive number: nothing was measured")
    ratios = samples[1] / samples[0]
    interval = quantile_test(ratios, q=1, p=0.5).confidence_interval(CONFIDENCE)
    low, high = float(interval.low), float(interval.high)
    word = _word(low, high, tolerance, slowdown)
    return Verdict(float(np.median(ratios)), low, high, len(ratios), word)


def _word(low: float, high: float, tolerance: float, slowdown: float) -> str:
    if low > 1 + tolerance:
        return "worse"
    if high < 1 / (1 + tolerance):
        return "better"
    if high < slowdown and low > 1 / slowdown:
        return "same"
    return "unknown"


def compare_counts(base: float, head: float, slack: float = 0.0) -> Verdict:
    """Return the verdict on counts: one more is worse, or a share of `slack` more."""
    same = abs(head - base) <= slack * base
    ratio = head / base if base else 1.0 if same else float("inf")
    return exact(ratio, "same" if same else "worse" if head > base else "better")
