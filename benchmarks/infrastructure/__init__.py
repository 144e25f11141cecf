"""Instruments: results, samplers, timing and figures."""

from benchmarks.infrastructure.measure import benchmark_dataloader, benchmark_operation
from benchmarks.infrastructure.plots import plot_bar_comparison, plot_heatmap, plot_speedup_ratio
from benchmarks.infrastructure.resources import CPUSampler
from benchmarks.infrastructure.result import BenchmarkResult

__all__ = [
    "BenchmarkResult",
    "CPUSampler",
    "benchmark_dataloader",
    "benchmark_operation",
    "plot_bar_comparison",
    "plot_heatmap",
    "plot_speedup_ratio",
]
