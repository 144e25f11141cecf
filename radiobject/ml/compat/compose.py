"""A chain of transforms: MONAI's, else TorchIO's, else a plain one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any


class PlainCompose:
    """Apply transforms one after the other.

    Parameters
    ----------
    transforms : sequence of callables
        Applied one after another, each to what the one before returned.
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, sample: Any) -> Any:
        """Return the sample after all transforms."""
        for transform in self.transforms:
            sample = transform(sample)
        return sample


Compose: Any
if find_spec("monai"):
    from monai.transforms import Compose
elif find_spec("torchio"):
    from torchio import Compose
else:
    Compose = PlainCompose
