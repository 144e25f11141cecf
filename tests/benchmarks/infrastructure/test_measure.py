from __future__ import annotations

import json
import time

import numpy as np
import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure import BenchmarkResult, benchmark_dataloader
from benchmarks.infrastructure.measure import count_samples, endless, first_array, measure_batches


class Slow:
    """Five batches of 3 samples an epoch, 4 ms each, after 30 ms of getting started."""

    starts = 0

    def __iter__(self):
        self.starts += 1
        time.sleep(0.03)
        for _ in range(5):
            time.sleep(0.004)
            yield {"idx": np.arange(3), "image": np.zeros((3, 1, 4, 4, 4))}


def test_the_clock_of_the_first_batch_includes_iter() -> None:
    result = benchmark_dataloader(Slow(), "toy", batch_size=3, n_warmup=0, n_batches=1)
    assert result.cold_start_ms >= 34


def test_an_epoch_that_ends_starts_the_next_and_all_samples_count() -> None:
    loader = Slow()
    result = benchmark_dataloader(loader, "toy", batch_size=99, n_warmup=3, n_batches=12)
    assert len(result.batch_times_ms) == 12
    assert result.n_samples == 36  # counted from the batches, not from batch_size
    assert sum(ms > 30 for ms in result.batch_times_ms) > 1  # the starts of the epochs are in
    assert loader.starts == 4  # 1 batch, 3 to warm up and 12 are measured, 5 an epoch
    # Wall time holds at least what was slept, so throughput cannot exceed what was delivered.
    assert result.throughput_samples_per_sec < 36 / (12 * 0.004)


def test_figures_agree_with_each_other() -> None:
    result = benchmark_dataloader(Slow(), "toy", batch_size=3, n_warmup=1, n_batches=8)
    figures = result.to_dict()
    assert figures["time_min_ms"] <= figures["time_p50_ms"] <= figures["time_p95_ms"]
    assert result.time_mean_ms == pytest.approx(np.mean(result.batch_times_ms))
    assert result.peak_heap_mb > 1
    assert json.loads(json.dumps(figures))["n_samples"] == 24


def test_a_loader_without_batches_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="delivered no batch"):
        benchmark_dataloader([], "toy", batch_size=3)


def test_no_batches_to_measure_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="n_batches must be at least 1, got 0"):
        benchmark_dataloader(Slow(), "toy", batch_size=3, n_batches=0)


def test_a_budget_ends_a_slow_round() -> None:
    times, samples = measure_batches(endless(Slow()), 1000, 3, budget_s=0.1)
    assert 1 <= len(times) < 30
    assert samples == 3 * len(times)


def test_the_first_array_is_found_at_any_depth() -> None:
    voxels = np.zeros((2, 1, 3, 3, 3))
    assert first_array({"path": ["a"], "image": {"data": voxels, "affine": np.eye(4)}}) is voxels
    assert first_array([("x", {"y": voxels})]) is voxels
    assert first_array({"path": "a"}) is None
    assert count_samples({"path": "a"}, 7) == 7


def test_a_result_holds_what_notebooks_give_it() -> None:
    result = BenchmarkResult(
        framework="TorchIO",
        benchmark_name="dataloader",
        scenario="local",
        storage_format="nifti_gz",
        time_mean_ms=float(np.mean([1.0, 3.0])),
        time_std_ms=1.0,
        cold_start_ms=5.0,
        batch_times_ms=[1.0, 3.0],
        cpu_percent_mean=50.0,
        cpu_percent_peak=99.0,
        peak_heap_mb=12.0,
        throughput_samples_per_sec=np.float64(7.0),
        n_samples=8,
    )
    assert json.loads(json.dumps(result.to_dict()))["throughput_samples_per_sec"] == 7.0
