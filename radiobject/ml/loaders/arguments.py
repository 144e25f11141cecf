"""What a loader checks of its arguments."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.utils.data import DataLoader

from radiobject.exceptions import ConfigurationError

BATCH_SIZE = 4


def largest_batch(loader: DataLoader) -> int:
    """Return the samples of a batch; of somebody else's batches, what their sampler says."""
    size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    return size if isinstance(size, int) and size > 0 else BATCH_SIZE


def batches_of(batch_size: object, drop_last: bool, batch_sampler: object) -> dict[str, Any]:
    """Return what makes batches of samples, unless a batch sampler does."""
    if batch_sampler is not None:
        return {}
    if batch_size is None:
        raise ConfigurationError(
            "batch_size must be a whole number >= 1, got None: batches are made"
        )
    return {"batch_size": count("batch_size", batch_size), "drop_last": drop_last}


def cache_bytes(given: object, device: torch.device | None) -> int:
    """Return how much memory of a device volumes may take."""
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise ConfigurationError(f"device_cache_bytes must be a whole number >= 0, got {given!r}")
    if given and device is None:
        raise ConfigurationError("device_cache_bytes needs a device; pass device='cuda'")
    return given


def count(name: str, value: object) -> int:
    """Return a whole number of at least 1 as an int."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if isinstance(value, bool) or number < 1:
        raise ConfigurationError(f"{name} must be a whole number >= 1, got {value!r}")
    return number
