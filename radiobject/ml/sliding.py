"""Predict a volume patch by patch, in memory that does not grow with the volume's length."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from radiobject import process
from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.geometry.box import Box
from radiobject.geometry.padding import Padding
from radiobject.ml.device.driver import host_memory
from radiobject.ml.loaders.buffers import PrivateBuffers
from radiobject.sampling.blend import importance
from radiobject.sampling.patches import check_patch_size, grid_starts
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.reader import ReadRequest, read_batch

Predictor = Callable[[torch.Tensor], Any]
PatchTransform = Callable[[torch.Tensor, tuple[int, int, int]], torch.Tensor]
Slab = tuple[int, NDArray[np.float32]]


@dataclass(frozen=True)
class SlidingWindow:
    """How a volume is cut into patches and put together again.

    Parameters
    ----------
    patch_size : tuple of int
        Sides in voxels.
    overlap : float
        Share that neighbouring patches have in common, in [0, 1).
    mode : {"gaussian", "constant"}
        Blending of overlapping predictions; see `radiobject.sampling.blend`.
    sigma_scale : float
        Width of the Gaussian.
    batch_size : int
        Patches predicted at once.
    pad_value : float
        Fill where a volume is smaller than the patch, in the volume's units.
    """

    patch_size: tuple[int, ...]
    overlap: float = 0.25
    mode: str = "gaussian"
    sigma_scale: float = 0.125
    batch_size: int = 4
    pad_value: float = 0.0

    def __post_init__(self) -> None:
        side = check_patch_size(self.patch_size, 3)
        grid_starts(side, side, self.overlap)
        importance((1, 1, 1), self.mode, self.sigma_scale)
        if self.batch_size < 1:
            raise ConfigurationError(f"batch_size must be at least 1, got {self.batch_size}")


def predicted_slabs(
    channels: Sequence[VolumeLocator],
    predictor: Predictor,
    window: SlidingWindow,
    *,
    device: torch.device | str = "cpu",
    first_plane: int = 0,
    select: int | str | None = None,
    normalise: Callable[[NDArray[np.float32]], None] | None = None,
    transform: PatchTransform | None = None,
) -> Iterator[Slab]:
    """Yield the blended prediction of a volume as slabs along its first axis.

    What is held at once is the sum of predictions over one patch's thickness: ``K * patch_size[0]
    * Y * Z`` numbers, for K output channels. The next patches are read while the model works.

    Parameters
    ----------
    channels : sequence of VolumeLocator
        The input's channels, all of one shape (X, Y, Z).
    predictor : callable
        Takes (B, C, px, py, pz) float32, returns (B, K, px, py, pz), or several of them.
    window : SlidingWindow
        Sides, overlap and blending of the patches.
    device : torch.device
        Where the predictor is.
    first_plane : int
        Planes before it are not yielded, and patches that only they need are not predicted.
    select : int or str, optional
        Which of several predictions, where the predictor returns a tuple, a list or a dict.
    normalise : callable, optional
        Changes patches (B, C, px, py, pz) in place as soon as they are read.
    transform : callable, optional
        Takes a patch (C, px, py, pz) and its first voxel, returns another of the same sides.

    Yields
    ------
    first : int
        First plane of the slab.
    slab : ndarray of float32, shape (K, planes, Y, Z)

    Raises
    ------
    ShapeError
        If the volume has time, or the predictor's output is not as large as its input.
    """
    shape = channels[0].shape
    if len(shape) != 3:
        raise ShapeError(
            f"volume {channels[0].label} has shape {shape}; sliding windows need (X, Y, Z)"
        )
    starts = grid_starts(shape, window.patch_size, window.overlap)
    starts = starts[starts[:, 0] + window.patch_size[0] > first_plane]
    blend = _Blend(shape, window)
    size = 4 * window.batch_size * len(channels) * math.prod(window.patch_size)
    pinned = torch.device(device).type == "cuda"
    buffers = PrivateBuffers(size, 2, host=host_memory() if pinned else None)
    for batch, voxels in _read_ahead(channels, starts, window, buffers, normalise):
        if blend.base is None or batch[0, 0] > blend.base:
            yield from blend.complete_to(int(batch[0, 0]), first_plane)
        if transform is not None:
            voxels = _transformed(transform, voxels, batch)
        with torch.no_grad():
            predicted = predictor(voxels.to(device, non_blocking=True))
        blend.add(batch, _checked(_selected(predicted, select), tuple(voxels.shape)))
    yield from blend.complete_to(shape[0], first_plane)


def _transformed(
    transform: PatchTransform, voxels: torch.Tensor, starts: NDArray[np.int64]
) -> torch.Tensor:
    made = [
        transform(patch, (int(x), int(y), int(z)))
        for patch, (x, y, z) in zip(voxels, starts, strict=True)
    ]
    sides = {tuple(patch.shape[1:]) for patch in made}
    if sides != {tuple(voxels.shape[2:])}:
        raise ShapeError(
            f"the transform must keep the sides {tuple(voxels.shape[2:])} of a patch, got "
            f"{sorted(sides)}: leave out what crops, pads or resamples"
        )
    return torch.stack(made).to(torch.float32)


def _selected(predicted: Any, select: int | str | None) -> torch.Tensor:
    """Return the prediction that was asked for."""
    if isinstance(predicted, torch.Tensor):
        if select is not None:
            raise ConfigurationError(
                f"select={select!r} chooses among several predictions, and the predictor returned "
                "one: leave it out"
            )
        return predicted
    several = isinstance(predicted, Mapping | tuple | list)
    names = list(predicted) if isinstance(predicted, Mapping) else range(len(predicted or ()))
    if several and select in names:
        return predicted[select]
    raise ConfigurationError(
        f"the predictor returned a {type(predicted).__name__}"
        + (f" of {list(names)}, and select is {select!r}: choose one of them" if several else "")
    )


def _checked(predicted: torch.Tensor, given: tuple[int, ...]) -> NDArray[np.float32]:
    shape = tuple(predicted.shape)
    if len(shape) != len(given) or shape[0] != given[0] or shape[2:] != given[2:]:
        raise ShapeError(
            f"the predictor must return (B, K, px, py, pz) for an input of {given}, got {shape}"
        )
    return predicted.detach().to("cpu", torch.float32).numpy()


def _read_ahead(
    channels: Sequence[VolumeLocator],
    starts: NDArray[np.int64],
    window: SlidingWindow,
    buffers: PrivateBuffers,
    normalise: Callable[[NDArray[np.float32]], None] | None,
) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
    """Yield patches of one first plane at a time, in batches; the next batch is being read."""
    rows = [starts[starts[:, 0] == x] for x in np.unique(starts[:, 0])]
    size = window.batch_size
    batches = [row[i : i + size] for row in rows for i in range(0, len(row), size)]
    with process.new_threads("windows", 1) as pool:
        what = (window, buffers, normalise)
        coming = pool.submit(_read, channels, batches[0], *what) if batches else None
        for number, batch in enumerate(batches):
            voxels = coming.result()  # type: ignore[union-attr]
            if number + 1 < len(batches):
                coming = pool.submit(_read, channels, batches[number + 1], *what)
            yield batch, voxels


def _read(
    channels: Sequence[VolumeLocator],
    starts: NDArray[np.int64],
    window: SlidingWindow,
    buffers: PrivateBuffers,
    normalise: Callable[[NDArray[np.float32]], None] | None,
) -> torch.Tensor:
    shape = (len(starts), len(channels), *window.patch_size)
    made = buffers.batch({"voxels": (shape, np.dtype(np.float32))})["voxels"]
    voxels = made.numpy()
    pad = Padding("constant", window.pad_value)
    read_batch(
        [
            ReadRequest(
                locator,
                Box.at(start, window.patch_size),
                voxels[i, c],
                pad,
                locator.units,
            )
            for i, start in enumerate(starts.tolist())
            for c, locator in enumerate(channels)
        ]
    )
    if normalise is not None:
        normalise(voxels)
    return made


class _Blend:
    """Weighted sums over the planes that patches still reach.

    Parameters
    ----------
    shape : (X, Y, Z)
        Sides of the volume in voxels.
    window : SlidingWindow
        Sides, overlap and blending of the patches.
    """

    def __init__(self, shape: tuple[int, ...], window: SlidingWindow) -> None:
        self._shape = shape
        self._side = window.patch_size
        self._importance = importance(window.patch_size, window.mode, window.sigma_scale)
        self.base: int | None = None
        self._sums: NDArray[np.float32] | None = None
        self._weights = np.zeros((window.patch_size[0], *shape[1:]), np.float32)

    def add(self, starts: NDArray[np.int64], predicted: NDArray[np.float32]) -> None:
        """Add predictions (B, K, px, py, pz) of patches that begin in the plane `base`."""
        if self.base is None:
            self.base = int(starts[0, 0])
        if self._sums is None:
            self._sums = np.zeros((predicted.shape[1], *self._weights.shape), np.float32)
        for start, patch in zip(starts.tolist(), predicted, strict=True):
            inside = Box.at(start, self._side).clip(self._shape)
            cut = inside.shift([-a for a in start]).slices
            place = inside.shift((-self.base, 0, 0)).slices
            self._sums[:, *place] += patch[:, *cut] * self._importance[cut]
            self._weights[place] += self._importance[cut]

    def complete_to(self, plane: int, first_plane: int) -> Iterator[Slab]:
        """Yield the planes before `plane`, which no later patch reaches, and move on."""
        if self._sums is None or self.base is None:
            self.base = plane
            return
        first, done = self.base, plane - self.base
        skip = max(first_plane - first, -first, 0)
        last = min(done, len(self._weights), self._shape[0] - first)
        if last > skip:
            yield first + skip, self._sums[:, skip:last] / self._weights[skip:last]
        for sums in (self._sums.transpose(1, 0, 2, 3), self._weights):
            kept = len(sums) - done
            if kept > 0:
                sums[:kept] = sums[done:].copy()
            sums[max(kept, 0) :] = 0
        self.base = plane
