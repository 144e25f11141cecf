"""Ready-made loaders for training, validation, inference and segmentation, from one builder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from radiobject._types import LabelSource
from radiobject.ml.datasets.base import Transform
from radiobject.ml.datasets.volumes import Collections, Masks
from radiobject.ml.loaders.loader import VolumeLoader
from radiobject.ml.loaders.options import DEFAULT_WORKERS, LoaderOptions, LoaderRequest
from radiobject.sampling.foreground import Placement


def create_training_dataloader(
    collections: Collections,
    labels: LabelSource | Sequence[str] = None,
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
    labels : str, list of str, DataFrame, mapping or callable, optional
        See `radiobject.ml.utils.load_labels`; of several columns ``label`` holds each by its name.
    batch_size : int
        Samples per batch; by default 4.
    patch_size : tuple of int, optional
        Sides in voxels.
    num_workers : int
        0 reads ahead in threads. By default the loader measures its first batches and starts
        workers, at most one for each processor, where the loop would gain by them; its `report`
        says what was chosen and why.
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
    asked = LoaderRequest(
        options,
        batch_size,
        num_workers,
        pin_memory,
        persistent_workers,
        patch_size,
        patches_per_volume,
    )
    return asked.shuffled(asked.volumes(collections, labels, transform))


def create_validation_dataloader(
    collections: Collections,
    labels: LabelSource | Sequence[str] = None,
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
    asked = LoaderRequest(options, batch_size, num_workers, pin_memory, patch_size=patch_size)
    return asked.in_order(asked.volumes(collections, labels, transform))


def create_inference_dataloader(
    collections: Collections,
    batch_size: int = 1,
    num_workers: int = DEFAULT_WORKERS,
    pin_memory: bool = True,
    transform: Transform | None = None,
    labels: LabelSource | Sequence[str] = None,
    **options: Unpack[LoaderOptions],
) -> VolumeLoader:
    """Return whole volumes in the order of the collection.

    Parameters are those of `create_training_dataloader`; `batch_size` is 1 by default, which
    volumes of different shapes need. For volumes larger than memory see `radiobject.ml.inference`.
    """
    asked = LoaderRequest(options, batch_size, num_workers, pin_memory)
    return asked.in_order(asked.volumes(collections, labels, transform))


def create_segmentation_dataloader(
    image: Collections,
    mask: Masks,
    batch_size: int = 4,
    patch_size: tuple[int, ...] | None = None,
    num_workers: int = DEFAULT_WORKERS,
    pin_memory: bool = True,
    persistent_workers: bool = True,
    transform: Transform | None = None,
    foreground_sampling: bool | float | Placement = False,
    patches_per_volume: int = 1,
    labels: LabelSource | Sequence[str] = None,
    **options: Unpack[LoaderOptions],
) -> VolumeLoader:
    """Return shuffled batches of image and mask, cut alike.

    Parameters are those of `create_training_dataloader` and `SegmentationDataset`; `mask` may be a
    mapping of names to collections.
    """
    asked = LoaderRequest(
        options,
        batch_size,
        num_workers,
        pin_memory,
        persistent_workers,
        patch_size,
        patches_per_volume,
    )
    return asked.shuffled(asked.pairs(image, mask, transform, foreground_sampling, labels))
