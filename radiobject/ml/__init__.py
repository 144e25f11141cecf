"""Datasets and loaders for PyTorch, MONAI and TorchIO. Importing this package needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from radiobject._types import LabelSource
from radiobject.ml.config import DatasetConfig, LoadingMode
from radiobject.ml.datasets.batch import collate
from radiobject.ml.datasets.volumes import SegmentationDataset, VolumeCollectionDataset
from radiobject.ml.loaders.factories import (
    create_inference_dataloader,
    create_segmentation_dataloader,
    create_training_dataloader,
    create_validation_dataloader,
)
from radiobject.ml.loaders.loader import VolumeLoader
from radiobject.ml.loaders.samplers import EpochSampler
from radiobject.sampling.foreground import Foreground, PercentForeground, Uniform, Weighted

if TYPE_CHECKING:
    from radiobject.ml.compat.compose import Compose
    from radiobject.ml.compat.torchio import VolumeCollectionSubjectsDataset

__all__ = [
    "Compose",
    "DatasetConfig",
    "EpochSampler",
    "Foreground",
    "LabelSource",
    "LoadingMode",
    "PercentForeground",
    "SegmentationDataset",
    "Uniform",
    "VolumeCollectionDataset",
    "VolumeCollectionSubjectsDataset",
    "VolumeLoader",
    "Weighted",
    "collate",
    "create_inference_dataloader",
    "create_segmentation_dataloader",
    "create_training_dataloader",
    "create_validation_dataloader",
]


def __getattr__(name: str) -> Any:
    """Import what needs MONAI or TorchIO when it is first asked for: they take seconds."""
    if name == "Compose":
        from radiobject.ml.compat.compose import Compose

        return Compose
    if name == "VolumeCollectionSubjectsDataset":
        from radiobject.ml.compat.torchio import VolumeCollectionSubjectsDataset

        return VolumeCollectionSubjectsDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
