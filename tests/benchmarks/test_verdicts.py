"""Verdicts on simulated samples: what must be seen is seen, what is not there is not."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.gate.compare import PAIRS, QUICK_PAIRS
from benchmarks.gate.verdicts import MIN_PAIRS, compare, compare_counts

TRIES = 200


def _sides(slowdown: float, noise: float, seed: int, pairs: int = PAIRS) -> tuple[list, list]:
    """Return base and head as the gate takes them: each sample the middle of three.

    A raw sample has log-normal noise, a drift that both sides share, and one time in ten a
    neighbour that makes it up to five times as long.
    """
    rng = np.random.default_rng(seed)
    drift = np.exp(np.cumsum(rng.normal(0, 0.05, pairs)))
    taken = []
    for factor in (1.0, slowdown):
        raw = np.exp(rng.normal(0, noise, (3, pairs)))
        raw *= np.where(rng.random(raw.shape) < 0.1, rng.uniform(1, 5, raw.shape), 1)
        taken.append(list(factor * drift * np.median(raw, axis=0)))
    return taken[0], taken[1]


def _words(slowdown: float, noise: float, pairs: int = PAIRS) -> list[str]:
    sides = (_sides(slowdown, noise, seed, pairs) for seed in range(TRIES))
    return [compare(*pair).word for pair in sides]


@pytest.mark.parametrize("pairs", [QUICK_PAIRS, PAIRS])
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_equal_commits_are_hardly_ever_called_worse(noise: float, pairs: int) -> None:
    # A gate of ten benchmarks may err in far less than one of twenty runs.
    assert _words(1.0, noise, pairs).count("worse") <= 0.01 * TRIES


def test_a_slowdown_of_three_tenths_is_found() -> None:
    assert _words(1.3, 0.05).count("worse") >= 0.99 * TRIES
    assert _words(1.3, 0.1).count("worse") >= 0.9 * TRIES


def test_a_gain_is_found_and_is_not_worse() -> None:
    words = _words(1 / 1.3, 0.05)
    assert words.count("better") >= 0.99 * TRIES


def test_noise_that_hides_everything_is_unknown_and_not_the_same() -> None:
    words = _words(1.0, 1.0)
    assert words.count("unknown") > words.count("same")


@pytest.mark.parametrize("pairs", [0, 1, 6, MIN_PAIRS - 1])
def test_too_few_pairs_are_no_measurement(pairs: int) -> None:
    with pytest.raises(BenchmarkError, match=f"a verdict needs {MIN_PAIRS} pairs"):
        compare([1.0] * pairs, [1.0] * pairs)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_sample_that_is_no_time_is_refused(bad: float) -> None:
    with pytest.raises(BenchmarkError, match="nothing was measured"):
        compare([1.0] * 10, [1.0] * 9 + [bad])


def test_counts_are_exact() -> None:
    assert compare_counts(0, 0).word == "same"
    assert compare_counts(100, 101).word == "worse"
    assert compare_counts(0, 1).word == "worse"
    assert compare_counts(3, 2).word == "better"


@pytest.mark.parametrize("pairs", [8, 10, 20])
def test_the_interval_holds_the_truth_as_often_as_it_says(pairs: int) -> None:
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(600):
        head = np.exp(rng.laplace(np.log(1.2), 0.2, pairs))
        verdict = compare([1.0] * pairs, list(head))
        held += verdict.low <= 1.2 <= verdict.high
    assert held >= 0.98 * 600
