"""Augmentations of the image alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from radiobject.ml.augment.base import (
    Parametric,
    Range,
    check_range,
    column,
    plus,
)
from radiobject.ml.augment.randomness import GENERATOR, SampleRandom

_TIME = 5
"""The axis of time of a batch, after those of samples, channels and space."""


class _Drawn(Parametric):
    """One number per sample, uniform in a range."""

    _name = "factor"
    _lowest = 0.0
    streams: tuple[int, ...] = (0, 1)

    def __init__(self, between: Range, p: float) -> None:
        super().__init__(p)
        self.between = check_range(self._name, between, self._lowest)

    def draw(self, samples: NDArray[np.int64], random: SampleRandom) -> NDArray[np.float64]:
        """Return the number of each sample."""
        return random.uniform(1, *self.between)[samples, 0]

    def parameters(
        self, shape: tuple[int, ...], samples: NDArray[np.int64], random: SampleRandom
    ) -> tuple[NDArray, ...]:
        """Return the number of each sample."""
        return (column(self.draw(samples, random), len(shape)),)


class GaussianNoise(_Drawn):
    """Adds normal noise. Its numbers differ between kinds of devices, its parameters do not.

    Parameters
    ----------
    variance : (float, float)
        In squared units of the image.
    p : float
        Share of the samples that get it, in [0, 1].
    """

    _name = "variance"
    streams = (0, 1, GENERATOR)

    def __init__(self, variance: Range = (0.0, 0.1), p: float = 0.1) -> None:
        super().__init__(variance, p)

    def parameters(
        self, shape: tuple[int, ...], samples: NDArray[np.int64], random: SampleRandom
    ) -> tuple[NDArray, ...]:
        """Return the standard deviation of each sample's noise."""
        return (column(np.sqrt(self.draw(samples, random)), len(shape)),)

    def changed(
        self,
        image: torch.Tensor,
        there: list[torch.Tensor],
        samples: NDArray[np.int64],
        random: SampleRandom,
    ) -> torch.Tensor:
        """Add noise from each sample's own generator."""
        noise = torch.empty_like(image)
        for place, sample in enumerate(samples.tolist()):
            noise[place].normal_(generator=random.generator(sample, image.device))
        return plus(image, noise, there[0])


class GaussianBlur(_Drawn):
    """Convolves with a Gaussian, cut off at three times the largest width; edges are reflected.

    It does so in space, and not along time.

    Parameters
    ----------
    sigma : (float, float)
        Width in voxels.
    p : float
        Share of the samples that are blurred, in [0, 1].
    """

    _name = "sigma"

    def __init__(self, sigma: Range = (0.5, 1.0), p: float = 0.2) -> None:
        super().__init__(sigma, p)
        # As many taps for every sample: their sum does not depend on the others of its batch.
        self._taps = np.arange(-math.ceil(3 * self.between[1]), math.ceil(3 * self.between[1]) + 1)

    def parameters(
        self, shape: tuple[int, ...], samples: NDArray[np.int64], random: SampleRandom
    ) -> tuple[NDArray, ...]:
        """Return weights of all taps, then where axes of each length are read."""
        sigma = np.maximum(self.draw(samples, random), 1e-6)[:, None]
        weights = np.exp(-0.5 * (self._taps / sigma) ** 2)
        weights /= weights.sum(axis=1, keepdims=True)
        each = weights.T.astype(np.float32).reshape(-1, len(samples), *(1,) * (len(shape) - 1))
        return each, *(self._reflected(length) for length in _lengths(shape))

    def changed(
        self,
        image: torch.Tensor,
        there: list[torch.Tensor],
        samples: NDArray[np.int64],
        random: SampleRandom,
    ) -> torch.Tensor:
        """Blur along one axis after the other."""
        weights, *places = there
        taps, at = weights.unbind(), dict(zip(_lengths(image.shape), places, strict=True))
        for axis in range(2, min(image.ndim, _TIME)):
            image = self._along(image.index_select(axis, at[image.shape[axis]]), axis, taps)
        return image

    def _reflected(self, length: int) -> NDArray[np.int64]:
        """Return where an axis is read, from as far before it as after it."""
        index = np.arange(self._taps[0], length + self._taps[-1]) % max(2 * (length - 1), 1)
        return np.where(index < length, index, 2 * (length - 1) - index)

    def _along(
        self, padded: torch.Tensor, axis: int, weights: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        shape, strides = list(padded.shape), padded.stride()
        shape[axis] -= len(self._taps) - 1
        moved = padded.as_strided((len(self._taps), *shape), (strides[axis], *strides))
        total = padded.new_zeros(shape)
        for one, weight in zip(moved.unbind(), weights, strict=True):
            total = plus(total, one, weight)
        return total


class Brightness(_Drawn):
    """Multiplies by a factor.

    Parameters
    ----------
    factor : (float, float)
        Range that each sample's factor is drawn from; 1 leaves it as it is.
    p : float
        Share of the samples that are changed, in [0, 1].
    """

    def __init__(self, factor: Range = (0.75, 1.25), p: float = 0.15) -> None:
        super().__init__(factor, p)

    def changed(
        self,
        image: torch.Tensor,
        there: list[torch.Tensor],
        samples: NDArray[np.int64],
        random: SampleRandom,
    ) -> torch.Tensor:
        """Multiply."""
        return image * there[0]


class Contrast(_Drawn):
    """Stretches each channel about its mean, and keeps its range.

    Parameters
    ----------
    factor : (float, float)
        Range that each sample's factor is drawn from; 1 leaves it as it is.
    p : float
        Share of the samples that are changed, in [0, 1].
    """

    def __init__(self, factor: Range = (0.75, 1.25), p: float = 0.15) -> None:
        super().__init__(factor, p)

    def changed(
        self,
        image: torch.Tensor,
        there: list[torch.Tensor],
        samples: NDArray[np.int64],
        random: SampleRandom,
    ) -> torch.Tensor:
        """Stretch."""
        mean, _ = _moments(image)
        low, high = _ends(image)
        return plus(mean, image - mean, there[0]).clamp(low, high)


class Gamma(_Drawn):
    """Raises each channel, scaled to [0, 1], to a power; mean and standard deviation stay.

    Parameters
    ----------
    gamma : (float, float)
        Range that each sample's exponent is drawn from; 1 leaves it as it is.
    p : float
        Share of the samples that are changed, in [0, 1].
    invert : bool
        Of the negative image.
    """

    _name = "gamma"
    _lowest = 1e-3

    def __init__(self, gamma: Range = (0.7, 1.5), p: float = 0.3, *, invert: bool = False) -> None:
        super().__init__(gamma, p)
        self.invert = invert

    def changed(
        self,
        image: torch.Tensor,
        there: list[torch.Tensor],
        samples: NDArray[np.int64],
        random: SampleRandom,
    ) -> torch.Tensor:
        """Bend."""
        signed = -image if self.invert else image
        mean, deviation = _moments(signed)
        low, high = _ends(signed)
        span = torch.clamp(high - low, min=1e-7)
        bent = plus(low, ((signed - low) / span).pow(there[0]), span)
        now, spread = _moments(bent)
        kept = plus(mean, bent - now, deviation / torch.clamp(spread, min=1e-7))
        return -kept if self.invert else kept


class LowResolution(_Drawn):
    """Takes every so-manieth voxel (nearest) and comes back to the shape linearly.

    Parameters
    ----------
    zoom : (float, float)
        Share of the voxels along each axis, above 0 and at most 1.
    p : float
        Share of the samples that are made coarse, in [0, 1].
    """

    _name = "zoom"
    _lowest = 1e-3

    def __init__(self, zoom: Range = (0.5, 1.0), p: float = 0.25) -> None:
        super().__init__(zoom, p)

    def parameters(
        self, shape: tuple[int, ...], samples: NDArray[np.int64], random: SampleRandom
    ) -> tuple[NDArray, ...]:
        """Return none: the zoom decides shapes, which the processor has to know."""
        return ()

    def changed(
        self,
        image: torch.Tensor,
        there: list[torch.Tensor],
        samples: NDArray[np.int64],
        random: SampleRandom,
    ) -> torch.Tensor:
        """Lower each sample by its own zoom."""
        if image.ndim > _TIME:  # each volume of a series by itself, as if it were a channel
            frames = image.movedim(_TIME, 2)
            alone = self.changed(frames.flatten(1, 2), there, samples, random)
            return alone.unflatten(1, frames.shape[1:3]).movedim(2, _TIME)
        sides = image.shape[2:]
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(sides)]
        done = []
        for one, zoom in zip(image.split(1), self.draw(samples, random).tolist(), strict=True):
            small = [max(1, round(n * zoom)) for n in sides]
            lowered = F.interpolate(one, size=small, mode="nearest-exact")
            done.append(F.interpolate(lowered, size=sides, mode=mode, align_corners=False))
        return torch.cat(done)


def _lengths(shape: Sequence[int]) -> list[int]:
    """Return the lengths that the axes of space have, each once."""
    return sorted(set(shape[2:_TIME]))


def _moments(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each channel, every sample summed by itself."""
    found = [
        torch.std_mean(one, dim=_inner(one), keepdim=True, correction=0) for one in image.split(1)
    ]
    mean, deviation = torch.cat([m for _, m in found] + [d for d, _ in found]).chunk(2)
    return mean, deviation


def _ends(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = image.amin(_inner(image), True), image.amax(_inner(image), True)
    return low, high


def _inner(image: torch.Tensor) -> tuple[int, ...]:
    return tuple(range(2, image.ndim))
