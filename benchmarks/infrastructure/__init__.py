"""Instruments: results, samplers, timing and figures."""

from benchmarks.infrastructure.measure import BenchmarkResult, benchmark_dataloader
from benchmarks.infrastructure.plots import plot_bar_comparison
from benchmarks.infrastructure.resources import CPUSampler

__all__ = ["BenchmarkResult", "CPUSampler", "benchmark_dataloader", "plot_bar_comparison"]
