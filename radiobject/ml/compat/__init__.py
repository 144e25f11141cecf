"""What MONAI and TorchIO expect, made when they are there and asked for."""

from typing import TYPE_CHECKING

from radiobject.lazy import lazy_names

if TYPE_CHECKING:
    from radiobject.ml.compat.compose import Compose
    from radiobject.ml.compat.torchio import VolumeCollectionSubjectsDataset

__all__ = ["Compose", "VolumeCollectionSubjectsDataset"]

__getattr__ = lazy_names(
    __name__,
    {
        "Compose": "radiobject.ml.compat.compose",
        "VolumeCollectionSubjectsDataset": "radiobject.ml.compat.torchio",
    },
)
