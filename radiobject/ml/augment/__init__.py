"""Augmentation of whole batches, on the device that they lie on.

Parameters are drawn per sample, from (seed, epoch, index): an augmented sample is a function of
them as a plain one is, whatever batch it is in. Image and mask are changed alike, and the sample's
affine follows what is linear. Pass one as `batch_transform` of a loader.
"""

from radiobject.ml.augment.base import BatchAugmentation, Sequence
from radiobject.ml.augment.intensity import (
    Brightness,
    Contrast,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    LowResolution,
)
from radiobject.ml.augment.presets import nnunet_like
from radiobject.ml.augment.randomness import SampleRandom
from radiobject.ml.augment.spatial import Affine, Elastic, Flip, Rotate90

__all__ = [
    "Affine",
    "BatchAugmentation",
    "Brightness",
    "Contrast",
    "Elastic",
    "Flip",
    "Gamma",
    "GaussianBlur",
    "GaussianNoise",
    "LowResolution",
    "Rotate90",
    "SampleRandom",
    "Sequence",
    "nnunet_like",
]
