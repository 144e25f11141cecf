"""Which voxels are asked for: one seeded list, the same for every loader."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
        How each batch is augmented before it counts as delivered (`benchmarks.data.augmentations`);
        empty where it is not.
    pinned
        Whether batches are wanted in pinned memory, for a device.
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
    pinned: bool = False

    @property
    def patches_per_epoch(self) -> int:
        """Return how many boxes an epoch has."""
        return len(self.cohort.subjects) * self.patches_per_volume

    @property
    def cache_bytes(self) -> int:
        """Return what a loader may hold decoded."""
        sizes = (math.prod(s.shape) * np.dtype(s.dtype).itemsize for s in self.cohort.subjects)
        return round(self.cache_share * sum(sizes))

    def whole_sides(self) -> Task:
        """Return the same with each side of the patch that is 0 as long as the volumes."""
        return self._sized(lambda patch, volume: patch or volume)

    def with_patches_that_fit(self) -> Task:
        """Return the same with patches no larger than the smallest volume."""
        return self._sized(min)

    def _sized(self, choose: Callable[[int, int], int]) -> Task:
        most = np.min([s.shape for s in self.cohort.subjects], axis=0).tolist()
        return replace(self, patch_size=tuple(map(choose, self.patch_size, most)))

    def check(self) -> None:
        """Refuse a patch that does not fit, naming the volume, both sizes and the way out."""
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
        return list(zip(volumes.tolist(), map(tuple, starts.tolist()), strict=True))


def text(shape: Sequence[int]) -> str:
    """Return "240x240x155"."""
    return "x".join(map(str, shape))


def slices(start: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """Return the slices of a box."""
    return tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
