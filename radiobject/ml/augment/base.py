"""What augmentations have in common: which samples, one by one or together, and in which order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate, chain, islice
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.ml.augment.randomness import SampleRandom
from radiobject.ml.datasets.names import VoxelNames

Range = tuple[float, float]
_ALIGNED = 8
_TORCH = {np.dtype(np.float32): torch.float32, np.dtype(np.int64): torch.int64}


class BatchAugmentation:
    """Changes some samples of a batch.

    Subclasses write `change`, or `__call__` where they concern more than images.

    Parameters
    ----------
    p : float
        Share of samples that are changed.
    """

    streams: tuple[int, ...] = (0,)
    """Of the random numbers, those that it uses: a `Sequence` draws all of its steps together."""

    def __init__(self, p: float = 1.0) -> None:
        if not 0 <= p <= 1:
            raise ConfigurationError(f"p must be a probability in [0, 1], got {p}")
        self.p = p

    def __call__(self, batch: dict[str, Any], random: SampleRandom) -> dict[str, Any]:
        """Return the batch with a changed image; the one given is left alone."""
        return changed_in_rows(batch, [(self, random)], random.names)

    def numbers(self, random: SampleRandom) -> Iterator[int]:
        """Yield the streams that it uses, of all augmentations' streams."""
        yield from random.numbers(self.streams)

    def chosen(self, random: SampleRandom) -> NDArray[np.int64]:
        """Return the samples that are changed."""
        return np.flatnonzero(random.uniform(0)[:, 0] < self.p)

    def change(
        self, image: torch.Tensor, samples: NDArray[np.int64], random: SampleRandom
    ) -> torch.Tensor:
        """Return changed images.

        Parameters
        ----------
        image : tensor of float32, shape (m, C, ...)
            The images of the chosen samples, on the batch's device; not changed in place.
        samples : ndarray of int64, shape (m,)
            Their places in the batch.
        random : SampleRandom
            Of the whole batch.
        """
        raise NotImplementedError


class Parametric(BatchAugmentation):
    """Changes samples by small arrays, which those of a sequence send to the device together."""

    def parameters(
        self, shape: tuple[int, ...], samples: NDArray[np.int64], random: SampleRandom
    ) -> tuple[NDArray, ...]:
        """Return arrays of float32 or int64 for samples of images of a shape, (B, C, ...)."""
        raise NotImplementedError

    def changed(
        self,
        image: torch.Tensor,
        there: list[torch.Tensor],
        samples: NDArray[np.int64],
        random: SampleRandom,
    ) -> torch.Tensor:
        """Return changed images, as `change` does; `there` are the parameters on their device."""
        raise NotImplementedError

    def change(
        self, image: torch.Tensor, samples: NDArray[np.int64], random: SampleRandom
    ) -> torch.Tensor:
        """Return changed images."""
        arrays = self.parameters(tuple(image.shape), samples, random)
        return self.changed(image, sent_together(image.device, *arrays), samples, random)


class Sequence(BatchAugmentation):
    """Augmentations one after the other.

    Parameters
    ----------
    *steps : callable
        Each takes a batch and a `SampleRandom`.
    """

    def __init__(self, *steps: Any) -> None:
        super().__init__()
        for step in steps:
            if not callable(step):
                raise ConfigurationError(f"a step must be callable, got {step!r}")
        self.steps = steps

    def __call__(self, batch: dict[str, Any], random: SampleRandom) -> dict[str, Any]:
        """Return the batch after every step."""
        random.draw(self.numbers(random))
        together: list[tuple[BatchAugmentation, SampleRandom]] = []
        for place, step in enumerate(self.steps):
            if in_rows(step):
                together.append((step, random.at(place)))
                continue
            batch = step(changed_in_rows(batch, together, random.names), random.at(place))
            together = []
        return changed_in_rows(batch, together, random.names)

    def numbers(self, random: SampleRandom) -> Iterator[int]:
        """Yield the streams of its steps, and of theirs."""
        for place, step in enumerate(self.steps):
            if isinstance(step, BatchAugmentation):
                yield from step.numbers(random.at(place))


class Rows:
    """The samples of an array, some of which are exchanged for others.

    They are joined once, however many steps change them, in one operation; no list of rows has to
    reach the device.

    Parameters
    ----------
    array : tensor, shape (B, ...)
        Left alone.
    """

    def __init__(self, array: torch.Tensor) -> None:
        self._shape = array.shape
        # The whole, or the samples, or both: neither is made before it is asked for.
        self._whole: torch.Tensor | None = array
        self._rows: list[torch.Tensor] | None = None

    def of(self, samples: NDArray[np.int64]) -> torch.Tensor:
        """Return samples, in ascending order, as they are; not to be changed in place."""
        if len(samples) == self._shape[0]:
            return self.joined()
        rows = self._apart()
        return torch.stack([rows[sample] for sample in samples.tolist()])

    def put(self, samples: NDArray[np.int64], changed: torch.Tensor) -> None:
        """Exchange samples.

        Raises
        ------
        ShapeError
            If they have another shape than they had.
        """
        if changed.shape != (want := (len(samples), *self._shape[1:])):
            raise ShapeError(
                f"changed samples have shape {tuple(changed.shape)}, expected {tuple(want)}"
            )
        if len(samples) == self._shape[0]:
            self._whole, self._rows = changed, None
            return
        rows = self._apart()
        for sample, row in zip(samples.tolist(), changed.unbind(), strict=True):
            rows[sample] = row
        self._whole = None

    def joined(self) -> torch.Tensor:
        """Return the array of all samples."""
        if self._whole is None:
            self._whole = torch.stack(self._apart())
        return self._whole

    def _apart(self) -> list[torch.Tensor]:
        if self._rows is None:
            self._rows = list(self.joined().unbind())
        return self._rows


def in_rows(step: object) -> bool:
    """Return whether a step changes images, sample by sample, and nothing else of a batch."""
    return isinstance(step, BatchAugmentation) and (
        type(step).__call__ is BatchAugmentation.__call__
    )


def changed_in_rows(
    batch: dict[str, Any], steps: list[tuple[BatchAugmentation, SampleRandom]], names: VoxelNames
) -> dict[str, Any]:
    """Return a batch after steps that change images alone."""
    if not steps:
        return batch
    given = {name: floating(batch, name) for name in names.images if name in batch}
    done = {name: _changed_image(image, steps) for name, image in given.items()}
    return batch if all(done[name] is given[name] for name in given) else {**batch, **done}


def _changed_image(
    image: torch.Tensor, steps: list[tuple[BatchAugmentation, SampleRandom]]
) -> torch.Tensor:
    parts = [
        (step, random, group)
        for step, random in steps
        for group in groups(step.chosen(random), image.device)
        if len(group)
    ]
    if not parts:
        return image
    needed = [
        step.parameters(tuple(image.shape), group, random) if _is_described(step) else ()
        for step, random, group in parts
    ]
    there, rows = iter(sent_together(image.device, *chain.from_iterable(needed))), Rows(image)
    for (step, random, group), arrays in zip(parts, needed, strict=True):
        part = rows.of(group).to(torch.float32)
        if _is_described(step):
            done = step.changed(part, list(islice(there, len(arrays))), group, random)
        else:
            done = step.change(part, group, random)
        rows.put(group, done.to(image.dtype))
    return rows.joined()


def _is_described(step: BatchAugmentation) -> TypeGuard[Parametric]:
    # Whoever writes a `change` of his own wants that to be called.
    return isinstance(step, Parametric) and type(step).change is Parametric.change


def floating(batch: dict[str, Any], name: str = "image") -> torch.Tensor:
    """Return the images of a batch, which have to be floating."""
    image = batch[name]
    if not isinstance(image, torch.Tensor) or not image.is_floating_point():
        kind = getattr(image, "dtype", type(image).__name__)
        raise ConfigurationError(
            f"augmentation needs floating images, got {kind}; make the loader with dtype='float32'"
        )
    return image


def volumes(batch: dict[str, Any]) -> torch.Tensor:
    """Return the images of a batch, which have to be floating and (B, C, X, Y, Z)."""
    image = floating(batch)
    if image.ndim != 5:
        raise ShapeError(
            f"spatial augmentation needs images (B, C, X, Y, Z), got shape {tuple(image.shape)}"
        )
    return image


def groups(chosen: NDArray[np.int64], device: torch.device) -> Iterator[NDArray[np.int64]]:
    """Yield the samples that are changed together.

    On a device all are: each element is computed alike. A processor's vector instructions round
    the end of an array otherwise than its middle: one sample at a time, so that it does not matter
    which others are in the batch.
    """
    if device.type == "cpu":
        yield from (chosen[i : i + 1] for i in range(len(chosen)))
    else:
        yield chosen


def column(values: NDArray[np.float64], axes: int) -> NDArray[np.float32]:
    """Return one number per sample, to be combined with images of so many axes."""
    return values.astype(np.float32).reshape(-1, *(1,) * (axes - 1))


def sent(values: NDArray, device: torch.device) -> torch.Tensor:
    """Return an array on a device; the training, which this runs in, waits for nothing."""
    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def sent_together(device: torch.device, *arrays: NDArray) -> list[torch.Tensor]:
    """Return arrays on a device, by one copy: each costs as much, however small it is."""
    if device.type == "cpu" or not arrays:
        return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    host, starts = packed(arrays)
    return unpacked(sent(host, device), arrays, starts)


def packed(arrays: tuple[NDArray, ...]) -> tuple[NDArray[np.uint8], list[int]]:
    """Return the bytes of arrays one after the other, and where each begins."""
    sizes = [-(-array.nbytes // _ALIGNED) * _ALIGNED for array in arrays]
    starts = [0, *accumulate(sizes)]
    host = np.zeros(starts.pop(), np.uint8)
    for array, start in zip(arrays, starts, strict=True):
        host[start : start + array.nbytes].view(array.dtype)[:] = array.ravel()
    return host, starts


def unpacked(
    whole: torch.Tensor, arrays: tuple[NDArray, ...], starts: list[int]
) -> list[torch.Tensor]:
    """Return tensors like arrays that share the memory of their bytes."""
    typed = {kind: whole.view(_TORCH[kind]) for kind in {array.dtype for array in arrays}}
    there = []
    for array, start in zip(arrays, starts, strict=True):
        strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
        at = start // array.itemsize
        there.append(typed[array.dtype].as_strided(array.shape, strides, at))
    return there


def plus(to: torch.Tensor, factor: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Return ``to + factor * by``.

    A device does so in one operation, and rounds once; a processor rounds the product, too, for
    its vector instructions do so or not by machine.
    """
    if to.device.type == "cpu":
        return to + factor * by
    return torch.addcmul(to, factor, by)


def check_range(name: str, given: Range, low: float) -> Range:
    """Return a range of numbers, first not above last."""
    first, last = (float(a) for a in given)
    if not low <= first <= last:
        raise ConfigurationError(f"{name} must be (low, high), {low} <= low <= high, got {given}")
    return first, last
