"""Figures that a colour-blind reader can read, as PNG.

Colours are Okabe and Ito's (Color Universal Design, 2008); the sequential map is cividis. Every
bar and cell carries its figure, so no value is told by colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.errors import BenchmarkError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")
_INCH_PER_BAR = 0.42
_WIDE_RANGE = 50.0
_TITLE_POINTS = 10


def plot_bar_comparison(
    data: Mapping[str, float],
    title: str,
    ylabel: str,
    output_path: str | Path,
    *,
    highlight: str | None = "RadiObject",
) -> Path:
    """Write horizontal bars, one per name, largest on top; return the file's path.

    Bars whose name begins with `highlight` take another colour. The axis turns logarithmic when
    the values span a factor of 50 or more.
    """
    if not data:
        raise BenchmarkError(f"nothing to draw in {title!r}: no result was given")
    ordered = sorted(data.items(), key=lambda item: item[1])
    names, values = [name for name, _ in ordered], [float(value) for _, value in ordered]
    figure, axes = _figure(7.5, 1.2 + _INCH_PER_BAR * len(names))
    colours = [
        OKABE_ITO[4] if highlight and name.startswith(highlight) else OKABE_ITO[0] for name in names
    ]
    bars = axes.barh(names, values, color=colours, edgecolor="black", linewidth=0.4)
    axes.bar_label(bars, [_short(value) for value in values], padding=3, fontsize=9)
    positive = [value for value in values if value > 0]
    if positive and max(positive) / min(positive) > _WIDE_RANGE:
        axes.set_xscale("log")
        ylabel = f"{ylabel} (logarithmic)"
    axes.margins(x=0.15)
    axes.set_xlabel(ylabel)
    figure.suptitle(title, fontsize=_TITLE_POINTS)
    return _save(figure, output_path)


def plot_heatmap(
    values: Sequence[Sequence[float]] | np.ndarray,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str,
    output_path: str | Path,
    *,
    unit: str = "",
) -> Path:
    """Write a table of `values`, shape (rows, columns), as coloured cells with their figures."""
    cells = np.asarray(values, dtype=float)
    if cells.shape != (len(row_labels), len(column_labels)):
        raise BenchmarkError(
            f"{title!r}: values have shape {cells.shape}, labels ask for "
            f"({len(row_labels)}, {len(column_labels)})"
        )
    figure, axes = _figure(2.5 + 1.1 * len(column_labels), 1.5 + 0.5 * len(row_labels))
    image = axes.imshow(cells, cmap="cividis", aspect="auto")
    axes.set_xticks(range(len(column_labels)), column_labels)
    axes.set_yticks(range(len(row_labels)), row_labels)
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
    for (row, column), value in np.ndenumerate(cells):
        colour = "white" if value < middle else "black"
        axes.text(column, row, _short(value), ha="center", va="center", color=colour)
    figure.colorbar(image, ax=axes, label=unit)
    figure.suptitle(title, fontsize=_TITLE_POINTS)
    return _save(figure, output_path)


def plot_speedup_ratio(
    data: Mapping[str, float],
    baseline: str,
    title: str,
    output_path: str | Path,
) -> Path:
    """Write how many times the value of `baseline` each name reaches; 1 is drawn as a line."""
    if baseline not in data or not data[baseline] > 0:
        raise BenchmarkError(f"{title!r}: the baseline {baseline!r} has no positive value")
    ratios = sorted(
        ((name, value / data[baseline]) for name, value in data.items()), key=lambda item: item[1]
    )
    figure, axes = _figure(7.5, 1.2 + _INCH_PER_BAR * len(ratios))
    colours = [OKABE_ITO[0] if ratio >= 1 else OKABE_ITO[1] for _, ratio in ratios]
    bars = axes.barh(
        [name for name, _ in ratios],
        [ratio for _, ratio in ratios],
        color=colours,
        edgecolor="black",
        linewidth=0.4,
    )
    axes.bar_label(bars, [f"{_short(ratio)}x" for _, ratio in ratios], padding=3, fontsize=9)
    axes.axvline(1.0, color="black", linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel(f"times {baseline} (logarithmic)")
    figure.suptitle(title, fontsize=_TITLE_POINTS)
    return _save(figure, output_path)


def _figure(width: float, height: float) -> tuple[Any, Axes]:
    # The object interface: no window system is asked for, and a notebook's backend is left alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _short(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _save(figure: Any, output_path: str | Path) -> Path:
    path = Path(output_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
