"""Timing of loaders, and what one measurement says."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure.resources import CPUSampler, cpu_seconds, resident_mib


@dataclass
class BenchmarkResult:
    """One loader or operation, measured once.

    Attributes
    ----------
    framework, benchmark_name, scenario, storage_format, tiling_strategy
        What was measured, on what: for instance "MONAI", "dataloader", "local", "nifti_gz", "".
    time_mean_ms, time_std_ms
        Mean and standard deviation of one batch (or call), milliseconds.
    cold_start_ms
        From before ``iter(loader)`` to the first batch in hand.
    batch_times_ms
        Every timed batch, in order.
    cpu_percent_mean, cpu_percent_peak
        Of one core; 200 is two busy cores. The process and its children.
    peak_heap_mb
        Peak resident memory of the process and its children in MiB, shared pages counted once.
        (The name is older than the definition: nothing is traced while it is timed.)
    throughput_samples_per_sec
        Samples that were really delivered, over the seconds that they took.
    cpu_ms_per_sample
        CPU milliseconds of the process and its finished children, for one sample.
    """

    framework: str
    benchmark_name: str
    scenario: str
    storage_format: str = ""
    tiling_strategy: str = ""
    time_mean_ms: float = 0.0
    time_std_ms: float = 0.0
    cold_start_ms: float = 0.0
    batch_times_ms: list[float] = field(default_factory=list)
    cpu_percent_mean: float = 0.0
    cpu_percent_peak: float = 0.0
    peak_heap_mb: float = 0.0
    throughput_samples_per_sec: float = 0.0
    n_samples: int = 0
    cpu_ms_per_sample: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as plain Python values, with the fastest, p50 and p95 batch."""
        times = self.batch_times_ms or [0.0]
        figures = asdict(self) | {
            f"time_{name}_ms": np.quantile(times, share)
            for name, share in (("min", 0.0), ("p50", 0.5), ("p95", 0.95))
        }
        return {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in figures.items()
        }


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
    next one inside the measurement, as in training. Samples are counted from the batches
    (`batch_size` is used only for one that holds no array to count from); each batch's voxels are
    touched. Memory is read before and after timing, never during it.

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
        batches = endless(loader)
        cold_start_ms = first_batch_ms(batches)
        measure_batches(batches, n_warmup, batch_size)
        resident = [resident_mib()]
        cpu_before, wall_before = cpu_seconds(), time.perf_counter()
        times, samples = measure_batches(batches, n_batches, batch_size)
        wall, cpu = time.perf_counter() - wall_before, cpu_seconds() - cpu_before
        resident.append(resident_mib())
    finally:
        mean_percent, peak_percent = sampler.stop()
    return BenchmarkResult(
        framework,
        benchmark_name,
        scenario,
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


def first_batch_ms(batches: Iterator[Any]) -> float:
    """Return the milliseconds until a batch is in hand, of an iterator that has not begun."""
    begin = time.perf_counter()
    touch(next(batches))
    return (time.perf_counter() - begin) * 1e3


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


def seconds_of(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return what one call takes by a clock."""
    begin = clock()
    call()
    return clock() - begin


def interleaved(
    calls: Mapping[str, Callable[[], Any]], rounds: int, repeats: int = 1
) -> Iterator[dict[str, list[Any]]]:
    """Yield, for each round, what each call returned, `repeats` times in turn.

    Who goes first alternates: what the first leaves in the processor's caches, the second finds.
    """
    for number in range(rounds):
        order = list(calls) if number % 2 else list(calls)[::-1]
        returned: dict[str, list[Any]] = {name: [] for name in calls}
        for name in order * repeats:
            returned[name].append(calls[name]())
        yield returned


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
    children: list[Any] = []
    if isinstance(batch, Mapping):
        children = [batch[key] for key in ("image", "data", *batch) if key in batch]
    elif isinstance(batch, (list, tuple)):
        children = list(batch)
    return next((found for found in map(first_array, children) if found is not None), None)


def count_samples(batch: Any, batch_size: int) -> int:
    """Return the samples in a batch, from the first axis of its voxels."""
    array = first_array(batch)
    return batch_size if array is None else int(array.shape[0])


def touch(batch: Any) -> None:
    """Read one voxel of every sample, so that nothing lazily mapped is counted as delivered."""
    array = first_array(batch)
    if array is not None:
        array[(slice(None), *(-1,) * (len(array.shape) - 1))].sum()
