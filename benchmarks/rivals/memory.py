"""The physical limit: boxes copied out of arrays in memory."""

from pathlib import Path
from typing import Any

from benchmarks.rivals.base import BoxLoader, Loader


class RamCopy(BoxLoader):
    """Whole volumes as arrays; with workers, what plain arrays in every worker give."""

    name = "memory"
    label = "copy from memory (the limit)"
    framework = "NumPy"
    storage = "memory"
    cites = "https://docs.pytorch.org/docs/stable/data.html#map-style-datasets"
    history = True
    needs = ("torch", "nibabel")

    def files(self) -> list[Path]:
        return Loader.files(self)

    def volumes(self) -> list[Any]:
        return self.task.cohort.volumes()
