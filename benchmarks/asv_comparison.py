"""How often asv's own comparison sees a slowdown, by the number of samples a side.

The comparison that ``asv continuous`` makes is fed simulated samples of two commits. At six
samples a side its two-sided rank test cannot fall below 2/924, which is above its threshold of
0.002, yet the test is used: nothing is ever different. `tests/benchmarks/test_asv_comparison.py`
keeps watch over the pinned version; the gate does not use this comparison.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import numpy as np

from benchmarks.config import RESULTS_DIR
from benchmarks.errors import BenchmarkError

RESULTS = RESULTS_DIR / "asv-check.json"
SAMPLES = (1, 2, 6, 8, 10)
# (slowdown, noise): noise is the standard deviation of a sample's logarithm.
CASES = ((1.0, 0.1), (1.0, 0.3), (1.2, 0.05), (1.2, 0.1), (1.5, 0.1), (1.5, 0.3), (2.0, 0.1))
FACTOR = 1.1  # asv's default
TRIES = 300


def flagged_share(
    samples: int, slowdown: float, noise: float, tries: int = TRIES, seed: int = 7
) -> float:
    """Return the share of tries in which asv calls the second commit slower.

    Parameters
    ----------
    samples
        Samples of each commit; asv keeps no statistics of a single one.

    Raises
    ------
    BenchmarkError
        If this asv compares in another way than the one known here.
    """
    try:
        from asv.commands.compare import _is_result_better
        from asv_runner.statistics import compute_stats
    except ImportError as error:
        raise BenchmarkError(
            f"asv {importlib.metadata.version('asv')} has no comparison of that name ({error}); "
            "install the version in constraints.txt"
        ) from error
    rng = np.random.default_rng([seed, samples])
    flagged = 0
    for _ in range(tries):
        base = np.exp(rng.normal(0, noise, samples)).tolist()
        head = (slowdown * np.exp(rng.normal(0, noise, samples))).tolist()
        (a, a_stats), (b, b_stats) = compute_stats(base, 1), compute_stats(head, 1)
        flagged += _is_result_better(a, b, (a_stats, base), (b_stats, head), FACTOR)
    return flagged / tries


def examine(tries: int = TRIES) -> dict[str, Any]:
    """Return the share of every case, by the number of samples a side."""
    return {
        "asv": importlib.metadata.version("asv"),
        "asv_runner": importlib.metadata.version("asv_runner"),
        "tries": tries,
        "factor": FACTOR,
        "cases": [list(case) for case in CASES],
        "shares": {str(n): [flagged_share(n, *case, tries) for case in CASES] for n in SAMPLES},
    }


def as_markdown(summary: dict[str, Any]) -> str:
    """Return the documentation's table."""
    names = [
        f"{'equal' if slowdown == 1 else f'{slowdown:g}x slower'}, {noise:.0%} noise"
        for slowdown, noise in summary["cases"]
    ]
    lines = [f"| samples a side | {' | '.join(names)} |", "|---:" * (len(names) + 1) + "|"]
    for number, shares in summary["shares"].items():
        lines.append(f"| {number} | {' | '.join(f'{share:.0%}' for share in shares)} |")
    lines += [
        "",
        f"Share of {summary['tries']} simulated comparisons that asv {summary['asv']} (asv_runner "
        f"{summary['asv_runner']}, factor {summary['factor']}) calls slower; "
        "`python -m benchmarks asv-check`.",
    ]
    return "\n".join(lines)
