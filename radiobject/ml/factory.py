"""Loaders over collections; an import path of 0.1.x."""

from radiobject.ml.loaders.factories import (
    create_inference_dataloader,
    create_segmentation_dataloader,
    create_training_dataloader,
    create_validation_dataloader,
)

__all__ = [
    "create_inference_dataloader",
    "create_segmentation_dataloader",
    "create_training_dataloader",
    "create_validation_dataloader",
]
