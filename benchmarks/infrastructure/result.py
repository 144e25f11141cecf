"""What one measurement says."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np


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
    n_samples
        Samples delivered while timing.
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

    def _quantile(self, share: float) -> float:
        return float(np.quantile(self.batch_times_ms, share)) if self.batch_times_ms else 0.0

    @property
    def time_p50_ms(self) -> float:
        """Return the median batch, milliseconds."""
        return self._quantile(0.5)

    @property
    def time_p95_ms(self) -> float:
        """Return the batch that 95 % are faster than, milliseconds."""
        return self._quantile(0.95)

    @property
    def time_min_ms(self) -> float:
        """Return the fastest batch, milliseconds."""
        return self._quantile(0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as plain Python values, ready for JSON or a table."""
        figures = asdict(self)
        figures |= {
            "time_p50_ms": self.time_p50_ms,
            "time_p95_ms": self.time_p95_ms,
            "time_min_ms": self.time_min_ms,
        }
        return {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in figures.items()
        }
