"""Transforms whose random numbers belong to the sample, not to the process that runs them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from radiobject.ml.compat import monai as monai_compat
from radiobject.sampling.philox import philox

_TRANSFORM_STREAM = 0x7F


def apply_seeded(
    transform: Callable[[dict[str, Any]], Any], sample: dict[str, Any], key: tuple[int, int, int]
) -> Any:
    """Apply a transform with random numbers that are a function of (seed, epoch, index).

    MONAI's transforms get their own state; the generators of `random`, NumPy and PyTorch are
    seeded for the call and put back, so that neither the number of workers nor the training loop
    changes what a sample looks like.
    """
    seed = int(philox(key[0], key[1], [key[2]], _TRANSFORM_STREAM)[0, 0])
    given = monai_compat.with_metatensor(sample) if monai_compat.is_monai(transform) else sample
    with _generators_seeded(seed):
        monai_compat.seed(transform, seed)
        result = transform(given)
    return monai_compat.with_affine_of_image(result)


@contextmanager
def _generators_seeded(seed: int) -> Iterator[None]:
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002
        torch.set_rng_state(state[2])
