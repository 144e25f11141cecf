"""Running a `batch_transform`, whatever it is, with the random numbers of its samples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from radiobject.exceptions import ConfigurationError
from radiobject.ml.augment.randomness import SampleRandom
from radiobject.ml.datasets.names import PLAIN, VoxelNames
from radiobject.ml.datasets.plan import SamplePlan

BatchTransform = Callable[..., Any]


def takes_random(transform: BatchTransform) -> bool:
    """Return whether a transform takes the samples' random numbers as its second argument."""
    try:
        parameters = inspect.signature(transform).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in parameters if p.kind in positional and p.default is p.empty]
    return len(required) >= 2


def apply_to_batch(
    transform: BatchTransform,
    batch: Any,
    plans: Sequence[SamplePlan],
    seed: int,
    names: VoxelNames = PLAIN,
) -> Any:
    """Return a batch after a transform.

    One that takes two arguments gets the batch and a `SampleRandom`; one that takes the batch
    alone finds PyTorch's generators seeded by the first sample, and the training loop finds them
    as they were.
    """
    random = SampleRandom(
        seed,
        np.concatenate([plan.epoch for plan in plans]),
        np.concatenate([plan.index for plan in plans]),
        names=names,
    )
    if takes_random(transform):
        return transform(batch, random)
    with random.seeded(_device_of(batch)):
        return transform(batch)


def check_transform(transform: object) -> BatchTransform | None:
    """Return a batch transform, or None.

    Raises
    ------
    ConfigurationError
        If it cannot be called.
    """
    if transform is not None and not callable(transform):
        raise ConfigurationError(f"batch_transform must be callable, got {transform!r}")
    return transform


def _device_of(batch: Any) -> torch.device:
    image = batch.get("image") if isinstance(batch, dict) else None
    return image.device if isinstance(image, torch.Tensor) else torch.device("cpu")
