"""Figures that a colour-blind reader can read, as PNG.

Colours are Okabe and Ito's (Color Universal Design, 2008). Every bar carries its figure, so no
value is told by colour alone.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.errors import BenchmarkError

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")
_INCH_PER_BAR = 0.42
_WIDE_RANGE = 50.0


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
    # The object interface: no window system is asked for, and a notebook's backend is left alone.
    from matplotlib.figure import Figure

    if not data:
        raise BenchmarkError(f"nothing to draw in {title!r}: no result was given")
    names, values = zip(*sorted(data.items(), key=lambda item: item[1]), strict=True)
    figure = Figure(figsize=(7.5, 1.2 + _INCH_PER_BAR * len(names)), layout="constrained")
    axes = figure.subplots()
    ours = [bool(highlight) and name.startswith(str(highlight)) for name in names]
    colours = [OKABE_ITO[4] if one else OKABE_ITO[0] for one in ours]
    bars = axes.barh(names, values, color=colours, edgecolor="black", linewidth=0.4)
    axes.bar_label(bars, [_short(value) for value in values], padding=3, fontsize=9)
    positive = [value for value in values if value > 0]
    if positive and max(positive) / min(positive) > _WIDE_RANGE:
        axes.set_xscale("log")
        ylabel = f"{ylabel} (logarithmic)"
    axes.margins(x=0.15)
    axes.set_xlabel(ylabel)
    figure.suptitle(title, fontsize=10)
    path = Path(output_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _short(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
