"""What training does to a batch before it sees it, the same for every loader."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError

USUAL, AFFINE, ON_BATCH = "usual", "usual and affine", "on the batch"
_SEED = 7

Augmentation = Callable[[Any, int], Any]
"""Takes a batch of images, a float32 tensor (B, X, Y, Z), and its number."""


def augmentation(name: str) -> Augmentation:
    """Return an augmentation by its name."""
    makers = {USUAL: _usual, AFFINE: _usual_and_affine, ON_BATCH: _on_batch}
    if name not in makers:
        raise BenchmarkError(f"no augmentation {name!r}; known are {', '.join(makers)}")
    return makers[name]()


def _usual(*more: Any) -> Augmentation:
    """MONAI's transforms, sample by sample on the processor, as training scripts have them."""
    import torch
    from monai import transforms
    from monai.data import set_track_meta

    # MONAI's adapters turn it off, too: with metadata every other loader's augmentation would take
    # 1.6 times as long as theirs.
    set_track_meta(False)
    steps = transforms.Compose(
        [
            *[transforms.RandFlip(prob=0.5, spatial_axis=axis) for axis in range(3)],
            transforms.RandRotate90(prob=0.5, spatial_axes=(0, 1)),
            *more,
            transforms.RandGaussianNoise(prob=0.15, std=0.1),
            transforms.RandScaleIntensity(prob=0.5, factors=0.1),
        ]
    )
    steps.set_random_state(_SEED)
    return lambda images, _: torch.stack(
        [torch.as_tensor(steps(image[None]))[0] for image in images]
    )


def _usual_and_affine() -> Augmentation:
    """The same, turned by any angle and zoomed as well."""
    from monai.transforms import RandAffine

    return _usual(
        RandAffine(prob=0.5, rotate_range=(0.26,) * 3, scale_range=(0.1,) * 3, padding_mode="zeros")
    )


def _on_batch() -> Augmentation:
    """Those of `radiobject.ml.augment` that do the same, once for the batch."""
    import torch

    from radiobject.ml.augment import Affine, Brightness, Flip, GaussianNoise, Rotate90, Sequence
    from radiobject.ml.augment.randomness import SampleRandom

    steps = Sequence(Flip(), Rotate90(p=0.5), Affine(), GaussianNoise(p=0.15), Brightness(p=0.5))

    def augmented(images: Any, number: int) -> Any:
        index = number * len(images) + np.arange(len(images))
        random = SampleRandom(_SEED, np.zeros(len(images), np.int64), index)
        affine = torch.from_numpy(np.tile(np.eye(4), (len(images), 1, 1)))
        return steps({"image": images[:, None], "affine": affine}, random)["image"][:, 0]

    return augmented
