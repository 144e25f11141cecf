"""Random numbers of the samples of a batch, each its own whatever the batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from radiobject.ml.datasets.names import PLAIN, VoxelNames
from radiobject.sampling.philox import philox, unit

_FIRST_STREAM = 0xA000_0000
_STREAMS = 64
"""Streams of one augmentation; the next in a sequence has the next so many."""
GENERATOR = _STREAMS - 1
"""The stream that seeds the samples' generators."""
_Table = dict[int, tuple[NDArray[np.uint32], NDArray[np.float64]]]


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
        # Of all places: what was drawn is not drawn again.
        self._drawn: _Table = {}
        self._inner: dict[int, SampleRandom] = {}

    def __len__(self) -> int:
        return len(self._index)

    def at(self, place: int) -> SampleRandom:
        """Return the numbers of the augmentation at a place of a sequence."""
        if place not in self._inner:
            inner = object.__new__(type(self))
            inner.__dict__ |= self.__dict__
            inner._place, inner._inner = self._place * 31 + place + 1, {}
            self._inner[place] = inner
        return self._inner[place]

    def numbers(self, streams: Iterable[int]) -> list[int]:
        """Return what tells streams of this augmentation from those of any other."""
        first = _FIRST_STREAM + self._place * _STREAMS
        return [(first + stream) & 0xFFFFFFFF for stream in streams]

    def draw(self, numbers: Iterable[int]) -> None:
        """Draw streams, of any place, together: a call for each takes longer than its numbers."""
        missing = [number for number in dict.fromkeys(numbers) if number not in self._drawn]
        if not missing:
            return
        many, n = len(missing), len(self)
        words = philox(
            self._seed,
            np.tile(self._epoch, many),
            np.tile(self._index, many),
            np.repeat(np.array(missing, np.int64), n),
        ).reshape(many, n, 4)
        self._drawn.update(zip(missing, zip(words, unit(words), strict=True), strict=True))

    def uniform(self, stream: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
        """Return four numbers in [low, high) per sample, shape (n, 4)."""
        return low + self._stream(stream)[1] * (high - low)

    def generator(self, sample: int, device: torch.device) -> torch.Generator:
        """Return a generator of one sample, for numbers without number."""
        words = self._stream(GENERATOR)[0][sample].astype(np.uint64)
        seed = int(words[0] << np.uint64(32) | words[1]) % 2**63
        return torch.Generator(device).manual_seed(seed)

    @contextmanager
    def seeded(self, device: torch.device) -> Iterator[None]:
        """Seed PyTorch's own generators by the first sample; put back what they were."""
        devices = [device] if device.type == "cuda" else []
        words = self._stream(_STREAMS - 2)[0][0].astype(np.uint64)
        seed = int(words[0] << np.uint64(32) | words[1]) % 2**63
        with torch.random.fork_rng(devices):
            # Not torch.manual_seed: it seeds those of every device, which nobody puts back.
            torch.default_generator.manual_seed(seed)
            for used in devices:
                with torch.cuda.device(used):
                    torch.cuda.manual_seed(seed)
            yield

    def _stream(self, stream: int) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
        """Return four words per sample, and the same as numbers in [0, 1)."""
        number = (_FIRST_STREAM + self._place * _STREAMS + stream) & 0xFFFFFFFF
        if number not in self._drawn:
            self.draw((number,))
        return self._drawn[number]
