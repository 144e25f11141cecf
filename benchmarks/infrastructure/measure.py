"""Timing of loaders."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure.resources import CPUSampler, cpu_seconds, resident_mib
from benchmarks.infrastructure.result import BenchmarkResult


def benchmark_dataloader(
    loader: Iterable[Any],
    framework: str,
    benchmark_name: str = "dataloader",
    scenario: str = "local",
    tiling_strategy: str = "",
    *,
    batch_size: int,
    n_warmup: int = 5,
    n_batches: int = 20,
) -> BenchmarkResult:
    """Measure `loader` for `n_batches` after a first batch and `n_warmup` more.

    The clock of the first batch starts before ``iter(loader)``. An epoch that ends starts the
    next one inside the measurement, as in training. Samples are counted from the batches; each
    batch's voxels are touched. Memory is read before and after timing, never during it.

    Parameters
    ----------
    batch_size
        What the loader was asked for; used only for a batch that holds no array to count from.

    Raises
    ------
    BenchmarkError
        If the loader delivers no batch at all.
    """
    if n_batches < 1:
        raise BenchmarkError(f"n_batches must be at least 1, got {n_batches}")
    sampler = CPUSampler()
    sampler.start()
    try:
        begin = time.perf_counter()
        batches = endless(loader)
        touch(next(batches))
        cold_start_ms = (time.perf_counter() - begin) * 1e3
        for _ in range(n_warmup):
            touch(next(batches))
        resident = [resident_mib()]
        cpu_before, wall_before = cpu_seconds(), time.perf_counter()
        times, samples = measure_batches(batches, n_batches, batch_size)
        wall, cpu = time.perf_counter() - wall_before, cpu_seconds() - cpu_before
        resident.append(resident_mib())
    finally:
        mean_percent, peak_percent = sampler.stop()
    return BenchmarkResult(
        framework=framework,
        benchmark_name=benchmark_name,
        scenario=scenario,
        storage_format="radiobject" if tiling_strategy else "",
        tiling_strategy=tiling_strategy,
        time_mean_ms=float(np.mean(times)),
        time_std_ms=float(np.std(times)),
        cold_start_ms=cold_start_ms,
        batch_times_ms=times,
        cpu_percent_mean=mean_percent,
        cpu_percent_peak=peak_percent,
        peak_heap_mb=max(resident),
        throughput_samples_per_sec=samples / wall,
        n_samples=samples,
        cpu_ms_per_sample=cpu * 1e3 / samples,
    )


def measure_batches(
    batches: Iterator[Any], n_batches: int, batch_size: int, budget_s: float = math.inf
) -> tuple[list[float], int]:
    """Return the milliseconds of each batch and the samples delivered.

    Stops after `n_batches`, or after the batch with which `budget_s` seconds are over.
    """
    times: list[float] = []
    samples = 0
    begin = time.perf_counter()
    while len(times) < n_batches and time.perf_counter() - begin < budget_s:
        start = time.perf_counter()
        batch = next(batches)
        touch(batch)
        times.append((time.perf_counter() - start) * 1e3)
        samples += count_samples(batch, batch_size)
    return times, samples


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches of epoch after epoch."""
    while True:
        delivered = False
        for batch in loader:
            delivered = True
            yield batch
        if not delivered:
            raise BenchmarkError(
                "the loader delivered no batch; its data set is smaller than one batch (use more "
                "subjects or a smaller batch)"
            )


def first_array(batch: Any) -> Any:
    """Return the first tensor or array in a batch, however deep it lies, or None."""
    if hasattr(batch, "shape"):
        return batch if len(batch.shape) else None
    if isinstance(batch, Mapping):
        preferred = [batch[key] for key in ("image", "data") if key in batch]
        children: Iterable[Any] = [*preferred, *batch.values()]
    elif isinstance(batch, (list, tuple)):
        children = batch
    else:
        return None
    for child in children:
        found = first_array(child)
        if found is not None:
            return found
    return None


def count_samples(batch: Any, batch_size: int) -> int:
    """Return the samples in a batch, from the first axis of its voxels."""
    array = first_array(batch)
    return batch_size if array is None else int(array.shape[0])


def touch(batch: Any) -> None:
    """Read one voxel of every sample, so that nothing lazily mapped is counted as delivered."""
    array = first_array(batch)
    if array is not None:
        array[(slice(None), *(-1,) * (len(array.shape) - 1))].sum()
