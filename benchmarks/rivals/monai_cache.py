"""MONAI's `CacheDataset`: whole volumes in memory."""

from typing import Any

from benchmarks.rivals.monai_dataset import MonaiDataset


class MonaiCacheDataset(MonaiDataset):
    """`CacheDataset` with ``copy_cache=False``, and `cache_rate` for a limited memory.

    Second look: the citation advises to leave out the copy of each cached
    volume where random transforms, such as random crops, do not modify what is cached.
    """

    name = "monai-cache"
    label = "MONAI CacheDataset"
    cites = "https://monai.readthedocs.io/en/stable/data.html#cachedataset"
    history = True
    holds = limits = True

    def dataset(self) -> Any:
        from monai.data import CacheDataset

        return CacheDataset(
            data=self.rows(),
            transform=self.transforms(),
            cache_rate=self.task.cache_share,
            copy_cache=False,
            progress=False,
        )
