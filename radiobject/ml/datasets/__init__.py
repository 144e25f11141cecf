"""From collections to samples and filled buffers."""

from typing import TYPE_CHECKING

from radiobject.lazy import lazy_names

if TYPE_CHECKING:
    from radiobject.ml.datasets.volumes import SegmentationDataset, VolumeCollectionDataset

__all__ = ["SegmentationDataset", "VolumeCollectionDataset"]

__getattr__ = lazy_names(
    __name__,
    {
        "SegmentationDataset": "radiobject.ml.datasets.volumes",
        "VolumeCollectionDataset": "radiobject.ml.datasets.volumes",
    },
)
