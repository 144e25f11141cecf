"""What the pinned asv sees, and what it cannot see: the reason for the number of samples."""

from __future__ import annotations

import pytest

from benchmarks import asv_comparison, bench_loaders, suites
from benchmarks.asv_comparison import flagged_share


@pytest.mark.parametrize("slowdown", [1.5, 2.0])
def test_six_samples_a_side_see_nothing(slowdown: float) -> None:
    assert flagged_share(6, slowdown, 0.1, tries=100) == 0
    assert flagged_share(2, slowdown, 0.1, tries=100) < 0.2


@pytest.mark.parametrize("samples", [8, 10])
def test_eight_and_ten_see_a_slowdown_and_cry_no_wolf(samples: int) -> None:
    assert flagged_share(samples, 1.2, 0.05, tries=200) > 0.9
    assert flagged_share(samples, 1.5, 0.1, tries=200) > 0.95
    assert flagged_share(samples, 1.0, 0.3, tries=200) <= 0.02


def test_one_sample_a_side_cries_wolf() -> None:
    assert flagged_share(1, 1.0, 0.3, tries=200) > 0.2


def test_suites_take_eight_to_ten_samples() -> None:
    fewest, most, _ = suites.Fixture.repeat
    assert 8 <= suites.Fixture.rounds * fewest <= suites.Fixture.rounds * most <= 10
    assert bench_loaders.Wall.rounds * bench_loaders.Wall.repeat[0] >= 8


def test_the_table_shows_every_case() -> None:
    summary = asv_comparison.examine(tries=3)
    table = asv_comparison.as_markdown(summary)
    assert table.count("\n| ") == len(asv_comparison.SAMPLES)
    assert f"asv {summary['asv']} " in table
