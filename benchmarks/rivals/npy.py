"""Memory-mapped ``.npy``, uncompressed, C order."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.cohort import Subject
from benchmarks.rivals.base import BoxLoader


class NpyMemmap(BoxLoader):
    """`numpy.load` with ``mmap_mode="r"``."""

    name = "npy"
    label = "memory-mapped .npy"
    framework = "NumPy"
    storage = "npy"
    suffix = ".npy"
    cites = "https://numpy.org/doc/stable/reference/generated/numpy.load.html"
    read_calls = False

    def write(self, voxels: np.ndarray, subject: Subject, path: Path) -> None:
        np.save(path, voxels)

    def volumes(self) -> list[Any]:
        return [np.load(path, mmap_mode="r") for path in self.files()]
