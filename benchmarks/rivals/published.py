"""The published RadiObject as a rival: version 0.1.1 from PyPI, in a process of its own.

Its import name is ours. So it lies in a folder that no Python looks into by itself, where make puts
it, and a process that is to measure it puts this folder first on its path before anything imports
`radiobject`. It runs on the same Python, TileDB, NumPy and PyTorch as everything else here, which
its own requirements allow.
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.data.cohort import Cohort
from benchmarks.data.forms import COLLECTION, make_form
from benchmarks.errors import BenchmarkError
from benchmarks.operations import training_settings
from benchmarks.rivals.radiobject import RadiObjectLocal

VERSION = "0.1.1"
# Beside what it runs with: it goes when the environment goes.
FOLDER = Path(sys.prefix) / f"published-radiobject-{VERSION}"


def activate() -> None:
    """Make this process import the published package; refuse if it has imported another one."""
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))
    import radiobject

    found = Path(radiobject.__file__).resolve().parent
    if found != (FOLDER / "radiobject").resolve():
        raise BenchmarkError(
            f"this process has imported {found}; the published RadiObject needs one of its own"
        )


def write_published_store(cohort: Cohort, uri: Path) -> None:
    """Write `cohort` as the published package does, with isotropic tiles. Calls `activate`."""
    activate()
    from radiobject import RadiObject
    from radiobject.ctx import SliceOrientation, TileConfig, WriteConfig, configure

    configure(write=WriteConfig(tile=TileConfig(orientation=SliceOrientation.ISOTROPIC)))
    images = {COLLECTION: [(str(s.image), s.id) for s in cohort.subjects]}
    RadiObject.from_niftis(uri=str(uri), images=images, obs_meta=cohort.obs_meta())


class PublishedRadiObject(RadiObjectLocal):
    """Its `create_training_dataloader`: each patch through libtiledb, nothing decoded is kept.

    Second look: the tiling that its own guide takes for patches; it has no cache to be set.
    """

    name = "published"
    label = f"published RadiObject {VERSION}"
    framework = f"RadiObject {VERSION}"
    storage = f"published-{VERSION}"
    cites = f"https://pypi.org/project/radiobject/{VERSION}/"
    needs = ("torch", "boto3", "matplotlib", "pydicom", "tqdm")
    holds = False

    @classmethod
    def missing(cls) -> str | None:
        if not (FOLDER / "radiobject").is_dir():
            return "not installed: `make venv` fetches it"
        return super().missing()

    @cached_property
    def store(self) -> Path:
        """Return the store, written by a process of its own if it is not there."""
        return make_form(self.task.cohort, self.storage, self._write) / "store"

    def _write(self, folder: Path) -> None:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            written = alone.submit(write_published_store, self.task.cohort, folder / "store")
            if error := written.exception():
                raise BenchmarkError(f"{self.label} could not write its store: {error}")

    def open(self) -> Any:
        activate()
        from radiobject.ml import create_training_dataloader

        settings = training_settings(self.task)
        del settings["dtype"]  # it delivers 32-bit floats only
        return create_training_dataloader(self.collection(), **settings)
