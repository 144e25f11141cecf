"""zarr-python 3 with zarrs, one shard per volume."""

from pathlib import Path

import numpy as np

from benchmarks.data.cohort import Subject
from benchmarks.rivals.zarr import save_zarr, whole
from benchmarks.rivals.zarrs import Zarrs


class ZarrSharded(Zarrs):
    """A file per volume, which the citation advises where there would be many small ones."""

    name = "zarr-sharded"
    label = "zarr-python (sharded, zarrs)"
    storage = "zarr-sharded"
    cites = "https://zarr.readthedocs.io/en/stable/user-guide/performance/#sharding"

    def write(self, voxels: np.ndarray, subject: Subject, path: Path) -> None:
        save_zarr(voxels, path, whole(voxels.shape))
