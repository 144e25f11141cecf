"""Datasets and loaders for PyTorch, MONAI and TorchIO. Importing this package needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radiobject._types import LabelSource
from radiobject.lazy import lazy_names
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
from radiobject.ml.normalisation import Normalization
from radiobject.sampling.at import At
from radiobject.sampling.foreground import Foreground, PercentForeground, Uniform, Weighted

if TYPE_CHECKING:
    from radiobject.ml.compat.compose import Compose
    from radiobject.ml.compat.torchio import VolumeCollectionSubjectsDataset

__all__ = [
    "At",
    "Compose",
    "DatasetConfig",
    "EpochSampler",
    "Foreground",
    "LabelSource",
    "LoadingMode",
    "Normalization",
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


# MONAI and TorchIO take seconds to import.
__getattr__ = lazy_names(
    __name__,
    {
        "Compose": "radiobject.ml.compat.compose",
        "VolumeCollectionSubjectsDataset": "radiobject.ml.compat.torchio",
    },
)
