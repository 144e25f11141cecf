"""MONAI's `PersistentDataset`: loaded volumes kept in files of their own."""

import tempfile
from typing import Any

from benchmarks.rivals.monai_dataset import MonaiDataset


class MonaiPersistentDataset(MonaiDataset):
    """`PersistentDataset` in a folder of this machine, warm after its first epoch.

    Second look: it keeps what comes before the first random transform, here the loaded volume.
    """

    name = "monai-persistent"
    label = "MONAI PersistentDataset"
    cites = "https://monai.readthedocs.io/en/stable/data.html#persistentdataset"

    def dataset(self) -> Any:
        from monai.data import PersistentDataset

        self._folder = tempfile.TemporaryDirectory(prefix="radiobject-bench-")
        return PersistentDataset(
            data=self.rows(), transform=self.transforms(), cache_dir=self._folder.name
        )
