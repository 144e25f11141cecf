"""Transforms whose random numbers belong to the sample, not to the process that runs them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from radiobject import process
from radiobject.ml.compat import monai as monai_compat
from radiobject.ml.datasets.names import PLAIN, VoxelNames
from radiobject.sampling.philox import philox

_TRANSFORM_STREAM = 0x7F

_one_at_a_time = threading.RLock()
"""The generators are those of the whole process, and a transform's own state is one, too: of two
threads that seed them at once each would draw the other's numbers."""


def _renew() -> None:
    global _one_at_a_time
    _one_at_a_time = threading.RLock()


process.at_fork("transforms", in_child=_renew)


def apply_seeded(
    transform: Callable[[dict[str, Any]], Any],
    sample: dict[str, Any],
    key: tuple[int, int, int],
    names: VoxelNames = PLAIN,
) -> Any:
    """Apply a transform with random numbers that are a function of (seed, epoch, index).

    MONAI's transforms get their own state; the generators of `random`, NumPy and PyTorch are
    seeded for the call and put back, so that neither the number of workers nor the training loop
    changes what a sample looks like.
    """
    with generators_kept():
        return apply_to_sample(transform, sample, seeds_of(key[0], key[1], [key[2]])[0], names)


def seeds_of(seed: int, epoch: ArrayLike, index: ArrayLike) -> list[int]:
    """Return the seed of each sample's transform."""
    seeds: list[int] = philox(seed, epoch, index, _TRANSFORM_STREAM)[:, 0].tolist()
    return seeds


def apply_to_sample(
    transform: Callable[[dict[str, Any]], Any],
    sample: dict[str, Any],
    seed: int,
    names: VoxelNames = PLAIN,
) -> Any:
    """Apply a transform; within `generators_kept`, for as many samples as there are."""
    is_monai = monai_compat.is_monai(transform)
    given = monai_compat.with_metatensor(sample, names) if is_monai else sample
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    monai_compat.seed(transform, seed)
    return monai_compat.with_affine_of_image(transform(given), names)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put the generators of `random`, NumPy and PyTorch back as they are now.

    That takes longer than many a transform, so it is done once a batch. Other threads that want
    the same wait, as those of MONAI's `ThreadDataLoader` and of its `CacheDataset` may.
    """
    with _one_at_a_time:
        state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(state[0])
            np.random.set_state(state[1])  # noqa: NPY002
            torch.set_rng_state(state[2])
