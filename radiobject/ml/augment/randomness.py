"""Random numbers of the samples of a batch, each its own whatever the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from radiobject.ml.datasets.names import PLAIN, VoxelNames
from radiobject.sampling.philox import philox, unit

_FIRST_STREAM = 0xA000_0000
_STREAMS = 64
"""Streams of one augmentation; the next in a sequence has the next so many."""


class SampleRandom:
    """Random numbers that are a function of (seed, epoch, index) of each sample.

    Parameters
    ----------
    seed : int
        The data set's seed.
    epoch, index : array_like of int, shape (n,)
        The epoch that each sample is drawn in, and its index in the data set.
    place : int
        Tells the augmentations of a sequence apart.
    names : VoxelNames
        Which arrays of the batch are images, and which are masks.
    """

    def __init__(
        self,
        seed: int,
        epoch: ArrayLike,
        index: ArrayLike,
        place: int = 0,
        names: VoxelNames = PLAIN,
    ) -> None:
        self.names = names
        self._seed = seed
        self._index = np.atleast_1d(np.asarray(index, np.int64))
        self._epoch = np.broadcast_to(np.asarray(epoch, np.int64), self._index.shape)
        self._place = place

    def __len__(self) -> int:
        return len(self._index)

    def at(self, place: int) -> SampleRandom:
        """Return the numbers of the augmentation at a place of a sequence."""
        inner = self._place * 31 + place + 1
        return SampleRandom(self._seed, self._epoch, self._index, inner, self.names)

    def uniform(self, stream: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
        """Return four numbers in [low, high) per sample, shape (n, 4)."""
        return low + unit(self._words(stream)) * (high - low)

    def generator(self, sample: int, device: torch.device) -> torch.Generator:
        """Return a generator of one sample, for numbers without number."""
        words = self._words(_STREAMS - 1)[sample].astype(np.uint64)
        seed = int(words[0] << np.uint64(32) | words[1]) % 2**63
        return torch.Generator(device).manual_seed(seed)

    @contextmanager
    def seeded(self, device: torch.device) -> Iterator[None]:
        """Seed PyTorch's own generators by the first sample; put back what they were."""
        devices = [device] if device.type == "cuda" else []
        words = self._words(_STREAMS - 2)[0].astype(np.uint64)
        seed = int(words[0] << np.uint64(32) | words[1]) % 2**63
        with torch.random.fork_rng(devices):
            # Not torch.manual_seed: it seeds those of every device, which nobody puts back.
            torch.default_generator.manual_seed(seed)
            for used in devices:
                with torch.cuda.device(used):
                    torch.cuda.manual_seed(seed)
            yield

    def _words(self, stream: int) -> NDArray[np.uint32]:
        number = (_FIRST_STREAM + self._place * _STREAMS + stream) & 0xFFFFFFFF
        return philox(self._seed, self._epoch, self._index, number)
