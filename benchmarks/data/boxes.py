"""Which voxels are asked for: one seeded list, and readers that are given it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.data.cohort import Cohort
from benchmarks.errors import BenchmarkError

Box = tuple[int, tuple[int, ...]]  # number of the volume, first voxel


@dataclass(frozen=True)
class Task:
    """What every loader is asked to deliver.

    Attributes
    ----------
    patches_per_volume
        Patches that one epoch takes from each volume.
    num_workers
        Loader processes; 0 loads in the process that trains.
    home
        Where RadiObject's stores are written; None for the benchmark folder. asv gives the
        folder that lives as long as the commit it measures.
    cache_share
        What share of the decoded volumes a loader may keep in memory; 0 for none.
    augment
        How each batch is augmented before it counts as delivered, by one of
        `benchmarks.data.augmentations.AUGMENTATIONS`; empty where it is not.
    """

    cohort: Cohort
    patch_size: tuple[int, int, int] = (64, 64, 64)
    batch_size: int = 4
    num_workers: int = 0
    patches_per_volume: int = 10
    seed: int = 42
    home: Path | None = None
    cache_share: float = 1.0
    augment: str = ""

    @property
    def decoded_bytes(self) -> int:
        """Return what all volumes take decoded."""
        return sum(math.prod(s.shape) * np.dtype(s.dtype).itemsize for s in self.cohort.subjects)

    @property
    def cache_bytes(self) -> int:
        """Return what a loader may hold decoded."""
        return round(self.cache_share * self.decoded_bytes)

    def whole_sides(self) -> Task:
        """Return the same with each side of the patch that is 0 as long as the volumes."""
        sides = np.min([s.shape for s in self.cohort.subjects], axis=0)
        x, y, z = (p or int(n) for p, n in zip(self.patch_size, sides, strict=True))
        return replace(self, patch_size=(x, y, z))

    def with_patches_that_fit(self) -> Task:
        """Return the same with patches no larger than the smallest volume."""
        sides = np.min([s.shape for s in self.cohort.subjects], axis=0)
        x, y, z = (min(p, int(n)) for p, n in zip(self.patch_size, sides, strict=True))
        return replace(self, patch_size=(x, y, z))

    def check(self) -> None:
        """Refuse a patch that does not fit.

        Raises
        ------
        BenchmarkError
            Naming the volume, both sizes and the way out.
        """
        for subject in self.cohort.subjects:
            if any(p > n for p, n in zip(self.patch_size, subject.shape, strict=True)):
                raise BenchmarkError(
                    f"patch {text(self.patch_size)} is larger than {subject.id} "
                    f"({text(subject.shape)}); choose a smaller one with --patch-size"
                )

    def boxes(self, epoch: int = 0) -> list[Box]:
        """Return one epoch: every volume `patches_per_volume` times, at random positions."""
        rng = np.random.default_rng([self.seed, epoch])
        volumes = np.repeat(np.arange(len(self.cohort.subjects)), self.patches_per_volume)
        rng.shuffle(volumes)
        room = np.array([s.shape for s in self.cohort.subjects]) - self.patch_size + 1
        starts = rng.integers(0, room[volumes])
        return [
            (int(volume), tuple(int(n) for n in start))
            for volume, start in zip(volumes, starts, strict=True)
        ]


def text(shape: Sequence[int]) -> str:
    """Return "240x240x155"."""
    return "x".join(map(str, shape))


def slices(start: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """Return the slices of a box."""
    return tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))


class BoxReader(Protocol):
    """Copies boxes of many volumes into a batch."""

    def read(self, boxes: Sequence[Box], out: np.ndarray) -> None:
        """Fill `out`, shape (len(boxes), 1, X, Y, Z), with the voxels of `boxes`."""


class BoxDataset:
    """A map-style PyTorch data set over given boxes, one buffer per batch, no second collate."""

    def __init__(self, task: Task, reader: BoxReader) -> None:
        self._task = task
        self._reader = reader
        self._boxes = task.boxes()

    def __len__(self) -> int:
        return len(self._boxes)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        import torch

        boxes = [self._boxes[index] for index in indices]
        dtype = np.dtype(self._task.cohort.subjects[0].dtype)
        out = np.empty((len(boxes), 1, *self._task.patch_size), dtype)
        self._reader.read(boxes, out)
        return {"image": torch.from_numpy(out), "boxes": boxes}


def box_loader(task: Task, reader: BoxReader) -> Any:
    """Return a DataLoader over the task's boxes, in their order."""
    from torch.utils.data import DataLoader

    return DataLoader(
        BoxDataset(task, reader),  # type: ignore[arg-type]
        batch_size=task.batch_size,
        num_workers=task.num_workers,
        drop_last=True,
        persistent_workers=task.num_workers > 0,
        collate_fn=as_it_is,
    )


def as_it_is(batch: Any) -> Any:
    """Return the batch that the data set already made."""
    return batch
