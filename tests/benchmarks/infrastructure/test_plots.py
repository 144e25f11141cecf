from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure import plot_bar_comparison, plot_heatmap, plot_speedup_ratio

PNG = b"\x89PNG\r\n"


def test_every_figure_is_a_png(tmp_path: Path) -> None:
    rates = {"RadiObject (local)": 4000.0, "MONAI": 12.0, "broken": 0.0}
    made = [
        plot_bar_comparison(rates, "Throughput", "samples/s", tmp_path / "new" / "bars.png"),
        plot_heatmap([[1.0, 2.0]], ["64"], ["axial", "coronal"], "Reads", tmp_path / "map.png"),
        plot_speedup_ratio(rates, "MONAI", "Speed-up", str(tmp_path / "ratio.png")),
    ]
    assert all(path.read_bytes().startswith(PNG) for path in made)


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no result was given"):
        plot_bar_comparison({}, "Throughput", "samples/s", tmp_path / "bars.png")
    with pytest.raises(BenchmarkError, match=r"values have shape \(1, 2\)"):
        plot_heatmap([[1, 2]], ["a"], ["b"], "Reads", tmp_path / "map.png")
    with pytest.raises(BenchmarkError, match="baseline 'c' has no positive value"):
        plot_speedup_ratio({"a": 1.0}, "c", "Speed-up", tmp_path / "ratio.png")
