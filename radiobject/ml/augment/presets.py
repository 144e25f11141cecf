"""Sets of augmentations that have a name."""

from __future__ import annotations

from radiobject.ml.augment.base import Sequence
from radiobject.ml.augment.intensity import (
    Brightness,
    Contrast,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    LowResolution,
)
from radiobject.ml.augment.spatial import Affine, Flip


def nnunet_like() -> Sequence:
    """Return the augmentations of nnU-Net's 3-D default with its probabilities, without elastic.

    As there, images are expected with mean 0 and standard deviation 1. Differences: one draw for
    all channels of a sample; rotation is about the patch's centre in millimetres; low resolution
    comes back linearly instead of by cubic splines.

    F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image
    segmentation", Nature Methods 18 (2021), doi:10.1038/s41592-020-01008-z.
    """
    return Sequence(
        Affine(
            rotation_degrees=30.0, scale=(0.7, 1.4), p_rotation=0.2, p_scale=0.2, isotropic=True
        ),
        GaussianNoise(variance=(0.0, 0.1), p=0.1),
        GaussianBlur(sigma=(0.5, 1.0), p=0.2),
        Brightness(factor=(0.75, 1.25), p=0.15),
        Contrast(factor=(0.75, 1.25), p=0.15),
        LowResolution(zoom=(0.5, 1.0), p=0.25),
        Gamma(gamma=(0.7, 1.5), p=0.1, invert=True),
        Gamma(gamma=(0.7, 1.5), p=0.3),
        Flip(p=0.5),
    )
