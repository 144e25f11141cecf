"""Ready-made loaders for training, validation, inference and segmentation, from one builder."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack

import numpy as np
import torch

from radiobject._types import LabelSource
from radiobject.ctx import SliceOrientation
from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.ml.config import DatasetConfig, LoadingMode
from radiobject.ml.datasets.base import StoredDataset, Transform
from radiobject.ml.datasets.source import VolumeSource
from radiobject.ml.datasets.volumes import Collections, SegmentationDataset, VolumeCollectionDataset
from radiobject.ml.loaders.loader import VolumeLoader
from radiobject.ml.loaders.samplers import EpochSampler
from radiobject.sampling.foreground import Placement
from radiobject.system.processes import processors, workers_start_cheaply


class _Unchosen(int):
    """A number that stands in a signature, told apart from the same number given by a caller."""


DEFAULT_WORKERS = _Unchosen(4)
"""The default of 0.1, or the cores of the machine where it has fewer, or 0 where every worker has
to import everything anew (Windows, macOS); what a caller asks for is taken as it is. 0 is
recommended unless a transform is heavy."""


class LoaderOptions(TypedDict, total=False):
    """Options that every factory takes by name.

    Of the samples (see `DatasetConfig`): `seed`, `dtype`, `pad`, `pad_mode`, `pad_value`,
    `mask_pad_value`, and `slice_orientation`, which makes samples 2-D slices. Of the volumes (see
    `VolumeCollectionDataset`): `check_geometry`, `across_splits`. Of the order (see
    `EpochSampler`): `volumes_per_block`, `volume_weights`. Of the loader (see `VolumeLoader`):
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
    slice_orientation: SliceOrientation | str
    check_geometry: bool
    across_splits: bool
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
_SAMPLES = ("seed", "dtype", "pad", "pad_mode", "pad_value", "mask_pad_value", "slice_orientation")
_VOLUMES = ("check_geometry", "across_splits")
_ORDER = ("volumes_per_block", "volume_weights")
_WORKERS = ("prefetch_factor", "multiprocessing_context", "timeout", "worker_init_fn")
_LOADER = (
    "receipt",
    "meta_tensor",
    "look_ahead",
    "device",
    "device_cache_bytes",
    "batch_transform",
    *_WORKERS,
)


def create_training_dataloader(
    collections: Collections,
    labels: LabelSource = None,
    batch_size: int = 4,
    patch_size: tuple[int, ...] | None = None,
    num_workers: int = DEFAULT_WORKERS,
    pin_memory: bool = True,
    persistent_workers: bool = True,
    transform: Transform | None = None,
    patches_per_volume: int = 1,
    **options: Unpack[LoaderOptions],
) -> VolumeLoader:
    """Return shuffled batches of random patches (or of whole volumes, without `patch_size`).

    Parameters
    ----------
    collections : VolumeCollection, sequence or mapping of them
        Several are channels of one image.
    labels : str, DataFrame, mapping or callable, optional
        See `radiobject.ml.utils.load_labels`.
    batch_size : int
    patch_size : tuple of int, optional
        Sides in voxels.
    num_workers : int
        0 is recommended unless `transform` is heavy: reading is done ahead by a thread. By default
        4, or the cores of the machine if they are fewer.
    pin_memory, persistent_workers : bool
        As in PyTorch; the latter needs workers.
    transform : callable, optional
        Takes and returns a sample's dict.
    patches_per_volume : int
        Samples per volume and epoch.
    **options
        See `LoaderOptions`.

    Returns
    -------
    VolumeLoader
        A `torch.utils.data.DataLoader` of dicts: ``image`` is (B, C, X, Y, Z), float32 unless
        `dtype` says otherwise.

    Raises
    ------
    ConfigurationError
        If an option cannot work, or a batch is larger than the data set.
    """
    config = make_config(options, patch_size, patches_per_volume)
    dataset = VolumeCollectionDataset(
        collections, config, labels, transform, **volume_options(options)
    )
    sampler = EpochSampler(dataset, **_chosen(options, _ORDER))
    return _build(
        dataset, sampler, options, batch_size, num_workers, pin_memory, persistent_workers
    )


def create_validation_dataloader(
    collections: Collections,
    labels: LabelSource = None,
    batch_size: int = 4,
    patch_size: tuple[int, ...] | None = None,
    num_workers: int = DEFAULT_WORKERS,
    pin_memory: bool = True,
    transform: Transform | None = None,
    **options: Unpack[LoaderOptions],
) -> VolumeLoader:
    """Return batches in the order of the collection, the same patches at every iteration.

    Parameters are those of `create_training_dataloader`; an incomplete last batch is kept.
    """
    config = make_config(options, patch_size, 1)
    dataset = VolumeCollectionDataset(
        collections, config, labels, transform, **volume_options(options)
    )
    return _build(
        dataset,
        _in_order(dataset, options),
        options,
        batch_size,
        num_workers,
        pin_memory,
        False,
        last=True,
    )


def create_inference_dataloader(
    collections: Collections,
    batch_size: int = 1,
    num_workers: int = DEFAULT_WORKERS,
    pin_memory: bool = True,
    transform: Transform | None = None,
    **options: Unpack[LoaderOptions],
) -> VolumeLoader:
    """Return whole volumes in the order of the collection.

    Volumes of different shapes need ``batch_size=1``. For volumes larger than memory see
    `radiobject.ml.inference`.
    """
    dataset = VolumeCollectionDataset(
        collections, make_config(options, None, 1), None, transform, **volume_options(options)
    )
    return _build(
        dataset,
        _in_order(dataset, options),
        options,
        batch_size,
        num_workers,
        pin_memory,
        False,
        last=True,
    )


def create_segmentation_dataloader(
    image: Collections,
    mask: VolumeSource,
    batch_size: int = 4,
    patch_size: tuple[int, ...] | None = None,
    num_workers: int = DEFAULT_WORKERS,
    pin_memory: bool = True,
    persistent_workers: bool = True,
    transform: Transform | None = None,
    foreground_sampling: bool | float | Placement = False,
    patches_per_volume: int = 1,
    resample_masks: bool = False,
    **options: Unpack[LoaderOptions],
) -> VolumeLoader:
    """Return shuffled batches of image and mask, cut alike.

    Parameters are those of `create_training_dataloader` and `SegmentationDataset`.
    """
    dataset = SegmentationDataset(
        image,
        mask,
        make_config(options, patch_size, patches_per_volume),
        transform,
        foreground_sampling,
        resample_masks=resample_masks,
        **volume_options(options),
    )
    sampler = EpochSampler(dataset, **_chosen(options, _ORDER))
    return _build(
        dataset, sampler, options, batch_size, num_workers, pin_memory, persistent_workers
    )


def build_distributed(
    dataset: StoredDataset,
    rank: int,
    world_size: int,
    options: LoaderOptions,
    batch_size: int,
    num_workers: int,
    pin_memory: bool,
) -> VolumeLoader:
    """Return one rank's loader over any dataset: disjoint shards of equal length."""
    sampler = EpochSampler(dataset, rank=rank, world_size=world_size, **_chosen(options, _ORDER))
    return _build(dataset, sampler, options, batch_size, num_workers, pin_memory, False)


def _build(
    dataset: StoredDataset,
    sampler: EpochSampler,
    options: LoaderOptions,
    batch_size: int,
    num_workers: int,
    pin_memory: bool,
    persistent_workers: bool,
    *,
    last: bool = False,
) -> VolumeLoader:
    """Build every loader of this module; `last` keeps an incomplete batch and fixes the epoch."""
    if isinstance(num_workers, _Unchosen) and _gathers(dataset, options):
        num_workers = 0
    num_workers = _workers(num_workers)
    drop_last = options.get("drop_last", not last)
    if drop_last and isinstance(batch_size, int | np.integer) and batch_size > len(dataset):
        raise ConfigurationError(
            f"batch_size {batch_size} is larger than the data set of {len(dataset)} samples; use a "
            "smaller batch, more patches_per_volume, or drop_last=False"
        )
    if not dataset.is_uniform and dataset.transform is None and batch_size > 1:
        raise ShapeError(
            f"volumes of heterogeneous shapes cannot share a batch of {batch_size}; give "
            "patch_size, or batch_size=1"
        )
    chosen = _chosen(options, _LOADER)
    if num_workers == 0:
        chosen = {k: v for k, v in chosen.items() if k not in _WORKERS}
    return VolumeLoader(
        dataset,
        sampler=sampler,
        batch_size=batch_size,
        drop_last=drop_last,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=persistent_workers and num_workers > 0,
        fixed_epoch=last,
        **chosen,
    )


def _gathers(dataset: StoredDataset, options: LoaderOptions) -> bool:
    """Return whether a device makes its batches itself, which worker processes would only delay."""
    return options.get("device") is not None and dataset.transform is None


def _in_order(dataset: StoredDataset, options: LoaderOptions) -> EpochSampler:
    """Return the order of validation and inference; options of another order are refused."""
    return EpochSampler(
        dataset, shuffle=False, tail="uneven", fixed_epoch=True, **_chosen(options, _ORDER)
    )


def make_config(
    options: LoaderOptions, patch_size: tuple[int, ...] | None, patches_per_volume: int
) -> DatasetConfig:
    """Return the configuration of the samples that a factory's arguments ask for."""
    unknown = sorted(set(options) - set(LoaderOptions.__annotations__))
    if unknown:
        raise TypeError(
            f"unknown options {unknown}; options are {sorted(LoaderOptions.__annotations__)}"
        )
    mode = LoadingMode.FULL_VOLUME if patch_size is None else LoadingMode.PATCH
    if "slice_orientation" in options:
        mode = LoadingMode.SLICE_2D
    return DatasetConfig(
        loading_mode=mode,
        patch_size=patch_size,
        patches_per_volume=patches_per_volume,
        **_chosen(options, _SAMPLES),
    )


def volume_options(options: LoaderOptions) -> dict[str, Any]:
    """Return the options that datasets take."""
    return _chosen(options, _VOLUMES)


def _chosen(options: LoaderOptions, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in names}


def _workers(wanted: object) -> int:
    if isinstance(wanted, bool) or not isinstance(wanted, int | np.integer) or wanted < 0:
        raise ConfigurationError(f"num_workers must be a whole number >= 0, got {wanted!r}")
    if not isinstance(wanted, _Unchosen):
        return int(wanted)
    # A daemon, as Dask's workers are, may have no children; loky's processes start only their own.
    foreign = multiprocessing.get_start_method(allow_none=True) not in (None, *_START_METHODS)
    childless = foreign or multiprocessing.current_process().daemon
    childless |= not workers_start_cheaply
    return 0 if childless else min(int(wanted), processors())
