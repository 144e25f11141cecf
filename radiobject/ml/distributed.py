"""Loaders for several processes: each takes a disjoint share of one global order."""

from __future__ import annotations

from typing import Unpack

from radiobject._types import LabelSource
from radiobject.ml.datasets.base import Transform
from radiobject.ml.datasets.source import VolumeSource
from radiobject.ml.datasets.volumes import Collections, SegmentationDataset, VolumeCollectionDataset
from radiobject.ml.loaders.factories import (
    DEFAULT_WORKERS,
    LoaderOptions,
    build_distributed,
    make_config,
    volume_options,
)
from radiobject.ml.loaders.loader import VolumeLoader
from radiobject.sampling.foreground import Placement

__all__ = [
    "create_distributed_dataloader",
    "create_distributed_segmentation_dataloader",
    "set_epoch",
]


def create_distributed_dataloader(
    collections: Collections,
    rank: int,
    world_size: int,
    labels: LabelSource = None,
    batch_size: int = 4,
    patch_size: tuple[int, ...] | None = None,
    num_workers: int = DEFAULT_WORKERS,
    pin_memory: bool = True,
    transform: Transform | None = None,
    patches_per_volume: int = 1,
    **options: Unpack[LoaderOptions],
) -> VolumeLoader:
    """Return the shuffled batches of one rank.

    The ranks' shards are disjoint and of equal length, so every rank takes the same number of
    steps; what does not divide is left out, another part each epoch. Every rank must be given the
    same collections, seed and sizes. A state saved by any of them can be loaded by any number of
    ranks.

    Parameters
    ----------
    collections
        As in `create_training_dataloader`, as are the parameters not named here.
    rank, world_size : int
        This process's number and how many there are.
    """
    dataset = VolumeCollectionDataset(
        collections,
        make_config(options, patch_size, patches_per_volume),
        labels,
        transform,
        **volume_options(options),
    )
    return build_distributed(
        dataset, rank, world_size, options, batch_size, num_workers, pin_memory
    )


def create_distributed_segmentation_dataloader(
    image: Collections,
    mask: VolumeSource,
    rank: int,
    world_size: int,
    batch_size: int = 4,
    patch_size: tuple[int, ...] | None = None,
    num_workers: int = DEFAULT_WORKERS,
    pin_memory: bool = True,
    transform: Transform | None = None,
    foreground_sampling: bool | float | Placement = False,
    patches_per_volume: int = 1,
    resample_masks: bool = False,
    **options: Unpack[LoaderOptions],
) -> VolumeLoader:
    """Return the shuffled batches of image and mask of one rank."""
    dataset = SegmentationDataset(
        image,
        mask,
        make_config(options, patch_size, patches_per_volume),
        transform,
        foreground_sampling,
        resample_masks=resample_masks,
        **volume_options(options),
    )
    return build_distributed(
        dataset, rank, world_size, options, batch_size, num_workers, pin_memory
    )


def set_epoch(loader: VolumeLoader, epoch: int) -> None:
    """Choose the epoch that the next iteration of `loader` visits; call it alike on every rank."""
    loader.set_epoch(epoch)
