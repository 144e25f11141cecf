"""Loaders for several processes: each takes a disjoint share of one global order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from torch.utils.data import DataLoader, DistributedSampler

from radiobject._types import LabelSource
from radiobject.ml.datasets.base import Transform
from radiobject.ml.datasets.volumes import Collections, Masks
from radiobject.ml.loaders.loader import VolumeLoader
from radiobject.ml.loaders.options import DEFAULT_WORKERS, LoaderOptions, LoaderRequest
from radiobject.sampling.foreground import Placement

__all__ = [
    "create_distributed_dataloader",
    "create_distributed_segmentation_dataloader",
    "create_distributed_validation_dataloader",
    "set_epoch",
]


def create_distributed_dataloader(
    collections: Collections,
    rank: int,
    world_size: int,
    labels: LabelSource | Sequence[str] = None,
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
    asked = LoaderRequest(
        options,
        batch_size,
        num_workers,
        pin_memory,
        patch_size=patch_size,
        patches_per_volume=patches_per_volume,
    )
    return asked.shuffled(asked.volumes(collections, labels, transform), rank, world_size)


def create_distributed_segmentation_dataloader(
    image: Collections,
    mask: Masks,
    rank: int,
    world_size: int,
    batch_size: int = 4,
    patch_size: tuple[int, ...] | None = None,
    num_workers: int = DEFAULT_WORKERS,
    pin_memory: bool = True,
    transform: Transform | None = None,
    foreground_sampling: bool | float | Placement = False,
    patches_per_volume: int = 1,
    labels: LabelSource | Sequence[str] = None,
    **options: Unpack[LoaderOptions],
) -> VolumeLoader:
    """Return the shuffled batches of image and mask of one rank.

    Parameters are those of `create_segmentation_dataloader`, and `rank` and `world_size` those of
    `create_distributed_dataloader`.
    """
    asked = LoaderRequest(
        options,
        batch_size,
        num_workers,
        pin_memory,
        patch_size=patch_size,
        patches_per_volume=patches_per_volume,
    )
    dataset = asked.pairs(image, mask, transform, foreground_sampling, labels)
    return asked.shuffled(dataset, rank, world_size)


def create_distributed_validation_dataloader(
    collections: Collections,
    rank: int,
    world_size: int,
    labels: LabelSource | Sequence[str] = None,
    batch_size: int = 4,
    patch_size: tuple[int, ...] | None = None,
    num_workers: int = DEFAULT_WORKERS,
    pin_memory: bool = True,
    transform: Transform | None = None,
    *,
    mask: Masks | None = None,
    **options: Unpack[LoaderOptions],
) -> VolumeLoader:
    """Return one rank's share of a validation: the same patches at every pass, in order.

    Together the ranks see every sample once: none is left out and none is repeated to make the
    shares equal. So one rank may have a sample, and a batch, more than another, or none at all: sum
    what you count over samples, and reduce over the ranks once, after the loop; a collective call
    for each batch would wait for a rank that has no more.

    Parameters
    ----------
    collections, rank, world_size
        As in `create_distributed_dataloader`, as are the parameters not named here.
    mask : VolumeCollection, or mapping of str to VolumeCollection, optional
        Labels that are cut with the images; see `SegmentationDataset`.
    """
    asked = LoaderRequest(options, batch_size, num_workers, pin_memory, patch_size=patch_size)
    if mask is None:
        return asked.in_order(asked.volumes(collections, labels, transform), rank, world_size)
    pairs = asked.pairs(collections, mask, transform, False, labels)
    return asked.in_order(pairs, rank, world_size)


def set_epoch(loader: DataLoader, epoch: int) -> None:
    """Choose the epoch that the next iteration of `loader` visits; call it alike on every rank.

    Parameters
    ----------
    loader : DataLoader
        Of one that is not of this package its `DistributedSampler` gets the epoch; one that has
        none is left alone.
    epoch : int
        From 0; the order and the patches of an epoch are functions of it and the seed.
    """
    if isinstance(loader, VolumeLoader):
        loader.set_epoch(epoch)
        return
    sampler = getattr(loader, "sampler", None)
    if isinstance(sampler, DistributedSampler):
        sampler.set_epoch(epoch)
