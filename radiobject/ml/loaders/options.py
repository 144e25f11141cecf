"""The options that every factory of loaders takes, and the one value that they become."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import torch

from radiobject._types import LabelSource
from radiobject.ctx import SliceOrientation
from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.ml.config import DatasetConfig, LoadingMode
from radiobject.ml.datasets.base import StoredDataset, Transform
from radiobject.ml.datasets.volumes import (
    Collections,
    Masks,
    Missing,
    SegmentationDataset,
    VolumeCollectionDataset,
)
from radiobject.ml.loaders.loader import VolumeLoader
from radiobject.ml.loaders.samplers import EpochSampler
from radiobject.ml.normalisation import Normalizations
from radiobject.sampling.foreground import Placement
from radiobject.system.processes import processors, workers_start_cheaply


class _Unchosen(int):
    """A number that stands in a signature, told apart from the same number given by a caller."""


DEFAULT_WORKERS = _Unchosen(4)
"""Stands for a choice: the loader begins without workers, measures its first batches, and starts
workers where a loop gains by them; never where every worker has to import everything anew (Windows,
macOS) or none may be started. A caller who gives options of workers gets this many, or as many as
there are processors; what a caller asks for is taken as it is."""


class LoaderOptions(TypedDict, total=False):
    """Options that every factory takes by name.

    Of the samples (see `DatasetConfig`): `seed`, `dtype`, `pad`, `pad_mode`, `pad_value`,
    `mask_pad_value`, `placement`, `views`, `neighbours`, `resolutions`, and `slice_orientation`,
    which makes samples 2-D slices. Of the volumes (see `VolumeCollectionDataset`): `masks`,
    `resample_masks`, `missing`, `check_geometry`, `across_splits`, `normalization`. Of the order
    (see `EpochSampler`): `volumes_per_block`, `volume_weights`. Of the loader (see `VolumeLoader`):
    `drop_last`, `receipt`, `meta_tensor`, `look_ahead`, `device`,
    `device_cache_bytes`, `batch_transform`, `prefetch_factor`, `multiprocessing_context`,
    `timeout`, `worker_init_fn`.
    """

    seed: int
    dtype: str | np.dtype | torch.dtype | type | None
    pad: bool
    pad_mode: str
    pad_value: float
    mask_pad_value: float
    slice_orientation: SliceOrientation | str | int
    placement: Placement
    views: int
    neighbours: int
    resolutions: tuple[int, ...]
    masks: Masks
    resample_masks: bool
    missing: Missing
    check_geometry: bool
    across_splits: bool
    normalization: Normalizations | None
    volumes_per_block: int | None
    volume_weights: Sequence[float] | None
    drop_last: bool
    receipt: bool
    meta_tensor: bool
    look_ahead: int
    device: torch.device | str | int | None
    device_cache_bytes: int
    batch_transform: Callable[..., Any] | None
    prefetch_factor: int | None
    multiprocessing_context: Any
    timeout: float
    worker_init_fn: Callable[[int], None] | None


_START_METHODS = ("fork", "forkserver", "spawn")
_SAMPLES = (
    "seed",
    "dtype",
    "pad",
    "pad_mode",
    "pad_value",
    "mask_pad_value",
    "slice_orientation",
    "placement",
    "views",
    "neighbours",
    "resolutions",
)
_VOLUMES = (
    "masks",
    "resample_masks",
    "missing",
    "check_geometry",
    "across_splits",
    "normalization",
)
_ORDER = ("volumes_per_block", "volume_weights")
_WORKERS = ("prefetch_factor", "multiprocessing_context", "timeout", "worker_init_fn")
_LOADER = (
    "receipt",
    "meta_tensor",
    "look_ahead",
    "device",
    "device_cache_bytes",
    "batch_transform",
)


@dataclass(frozen=True)
class LoaderRequest:
    """What a factory was asked for: its options, and the arguments that factories share.

    Parameters
    ----------
    options : LoaderOptions
        What was given by name beside the arguments.
    batch_size : int
        Samples per batch and rank.
    num_workers : int
        Worker processes; `DEFAULT_WORKERS` leaves the choice to the machine.
    pin_memory : bool
        Whether batches of worker processes are page-locked.
    persistent_workers : bool
        Whether workers live on from epoch to epoch.
    patch_size : tuple of int, optional
        Sides in voxels; without, a sample is a whole volume.
    patches_per_volume : int
        Samples per volume and epoch.

    Raises
    ------
    TypeError
        For an option that there is none of.
    ConfigurationError
        If an option cannot work.
    """

    options: LoaderOptions
    batch_size: int
    num_workers: int
    pin_memory: bool
    persistent_workers: bool = False
    patch_size: tuple[int, ...] | None = None
    patches_per_volume: int = 1
    config: DatasetConfig = field(init=False)

    def __post_init__(self) -> None:
        known = LoaderOptions.__annotations__
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            raise TypeError(f"unknown options {unknown}; options are {sorted(known)}")
        mode = LoadingMode.FULL_VOLUME if self.patch_size is None else LoadingMode.PATCH
        if "slice_orientation" in self.options:
            mode = LoadingMode.SLICE_2D
        config = DatasetConfig(
            loading_mode=mode,
            patch_size=self.patch_size,
            patches_per_volume=self.patches_per_volume,
            **self._chosen(_SAMPLES),
        )
        object.__setattr__(self, "config", config)

    def volumes(
        self,
        collections: Collections,
        labels: LabelSource | Sequence[str],
        transform: Transform | None,
    ) -> VolumeCollectionDataset:
        """Return the data set of volumes, patches or slices that was asked for."""
        return VolumeCollectionDataset(
            collections, self.config, labels, transform, **self._chosen(_VOLUMES)
        )

    def pairs(
        self,
        image: Collections,
        mask: Masks,
        transform: Transform | None,
        foreground_sampling: bool | float | Placement,
        labels: LabelSource | Sequence[str],
    ) -> SegmentationDataset:
        """Return the data set of pairs of image and mask that was asked for."""
        if "masks" in self.options:
            raise ConfigurationError(
                "masks are the second argument here: give it a mapping of names to collections"
            )
        return SegmentationDataset(
            image,
            mask,
            self.config,
            transform,
            foreground_sampling,
            labels=labels,
            **self._chosen(_VOLUMES),
        )

    def shuffled(self, dataset: StoredDataset, rank: int = 0, world_size: int = 1) -> VolumeLoader:
        """Return the loader of one rank's share of every epoch, in an order of its own."""
        order = self._chosen(_ORDER)
        sampler = EpochSampler(dataset, rank=rank, world_size=world_size, **order)
        return self._loader(dataset, sampler, drop_last=True)

    def in_order(self, dataset: StoredDataset, rank: int = 0, world_size: int = 1) -> VolumeLoader:
        """Return the loader of one rank's share of all samples in order, alike at every iteration.

        Options of another order are refused.
        """
        order = self._chosen(_ORDER)
        order |= {"shuffle": False, "tail": "uneven", "fixed_epoch": True}
        sampler = EpochSampler(dataset, rank=rank, world_size=world_size, **order)
        return self._loader(dataset, sampler, drop_last=False, fixed_epoch=True)

    def _loader(
        self,
        dataset: StoredDataset,
        sampler: EpochSampler,
        *,
        drop_last: bool,
        fixed_epoch: bool = False,
    ) -> VolumeLoader:
        workers, at_most = self._workers(dataset)
        drop_last = self.options.get("drop_last", drop_last)
        size = self.batch_size
        if drop_last and isinstance(size, int | np.integer) and size > len(dataset):
            raise ConfigurationError(
                f"batch_size {size} is larger than the data set of {len(dataset)} samples; use a "
                "smaller batch, more patches_per_volume, or drop_last=False"
            )
        if not dataset.is_uniform and dataset.transform is None and size > 1:
            raise ShapeError(
                f"volumes of heterogeneous shapes cannot share a batch of {size}; give "
                "patch_size, or batch_size=1"
            )
        return VolumeLoader(
            dataset,
            sampler=sampler,
            batch_size=size,
            drop_last=drop_last,
            num_workers=workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.persistent_workers and workers > 0,
            workers_at_most=at_most,
            fixed_epoch=fixed_epoch,
            **self._chosen(_LOADER if workers == 0 else (*_LOADER, *_WORKERS)),
        )

    def _workers(self, dataset: StoredDataset) -> tuple[int, int]:
        """Return the number of worker processes, and how many the loader may choose to start."""
        wanted = self.num_workers
        if isinstance(wanted, bool) or not isinstance(wanted, int | np.integer) or wanted < 0:
            raise ConfigurationError(f"num_workers must be a whole number >= 0, got {wanted!r}")
        if not isinstance(wanted, _Unchosen):
            return int(wanted), 0
        # A daemon, as Dask's workers are, may have no children; loky's processes start only theirs.
        foreign = multiprocessing.get_start_method(allow_none=True) not in (None, *_START_METHODS)
        childless = foreign or multiprocessing.current_process().daemon
        if childless or not workers_start_cheaply:
            return 0, 0
        count = processors()
        if any(name in self.options for name in _WORKERS):
            return min(int(wanted), count), 0
        # Reading alone keeps two processors busy already, with a thread beside the caller's.
        return 0, count if count > 2 or dataset.transform is not None else 0

    def _chosen(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: value for name, value in self.options.items() if name in names}
