from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure import plot_bar_comparison


def test_a_figure_is_a_png(tmp_path: Path) -> None:
    rates = {"RadiObject (local)": 4000.0, "MONAI": 12.0, "broken": 0.0}
    made = plot_bar_comparison(rates, "Throughput", "samples/s", tmp_path / "new" / "bars.png")
    assert made.read_bytes().startswith(b"\x89PNG\r\n")


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no result was given"):
        plot_bar_comparison({}, "Throughput", "samples/s", tmp_path / "bars.png")
