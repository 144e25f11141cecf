"""Memory-mapped ``.npy``, uncompressed, C order."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rivals.base import BoxLoader


class NpyMemmap(BoxLoader):
    """`numpy.load` with ``mmap_mode="r"``.

    Second look: a box is copied once, from the mapped pages into its place in the batch.
    """

    name = "npy"
    label = "memory-mapped .npy"
    framework = "NumPy"
    storage = "npy"
    suffix = ".npy"
    cites = "https://numpy.org/doc/stable/reference/generated/numpy.load.html"
    history = True

    def write(self, voxels: np.ndarray, path: Path) -> None:
        np.save(path, voxels)

    def open_volume(self, path: Path) -> Any:
        return np.load(path, mmap_mode="r")
