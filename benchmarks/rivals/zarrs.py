"""zarr-python 3 with the codec pipeline of zarrs, which decodes in Rust on all cores."""

from pathlib import Path
from typing import Any

from benchmarks.rivals.zarr import ZarrPython


class Zarrs(ZarrPython):
    """The same arrays; one line of configuration, as the citation says.

    Second look: by default it decodes with as many threads as there are cores.
    """

    name = "zarrs"
    label = "zarr-python (zarrs)"
    cites = "https://pypi.org/project/zarrs/"
    history = True
    needs = ("torch", "zarr", "zarrs")
    pipeline = "zarrs.ZarrsCodecPipeline"

    def open_volume(self, path: Path) -> Any:
        import zarrs  # noqa: F401 - registers the pipeline

        return super().open_volume(path)
