"""The published RadiObject as a rival: version 0.1.1 from PyPI, in a process of its own.

Its import name is ours. So it lies in a folder that no Python looks into by itself, and a process
that is to measure it puts this folder first on its path before anything imports `radiobject`. It
runs on the same Python, TileDB, NumPy and PyTorch as everything else here, which its own
requirements allow, and reads as its documentation says: `create_training_dataloader` over a store
with isotropic tiles, each patch through libtiledb.

It is fetched when the environment is made, not when it is measured: ``python -m
benchmarks.rivals.published``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.config import BENCHMARK_DIR, ROOT
from benchmarks.data.boxes import Box
from benchmarks.data.cohort import Cohort, read_cohort
from benchmarks.data.forms import COLLECTION
from benchmarks.errors import BenchmarkError
from benchmarks.folders import new_folder
from benchmarks.rivals.base import Loader

VERSION = "0.1.1"
# As PyPI states it for the one wheel of that version.
SHA256 = "5e7bef85da73c168ee111e5a6dfe00927a51a9cfe1b1fd603a67add8d08036a9"
# Beside what it runs with: it goes when the environment goes.
FOLDER = Path(sys.prefix) / f"published-radiobject-{VERSION}"
_COMMAND = "python -m benchmarks.rivals.published"


def install() -> Path:
    """Fetch the published package, checked against its digest, without touching the environment.

    Raises
    ------
    BenchmarkError
        If pip cannot deliver it, or delivers something else.
    """
    if FOLDER.is_dir():
        return FOLDER
    with new_folder(FOLDER) as building:
        requirement = building / "requirement.txt"
        requirement.write_text(f"radiobject=={VERSION} --hash=sha256:{SHA256}\n")
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes"]
        command += ["--quiet", "--target", str(building), "--requirement", str(requirement)]
        # Constraints without digests are refused where digests are required.
        environment = {k: v for k, v in os.environ.items() if k != "PIP_CONSTRAINT"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise BenchmarkError(f"pip could not deliver radiobject {VERSION}: {last}")
        requirement.unlink()
    return FOLDER


def activate() -> None:
    """Make this process import the published package.

    Raises
    ------
    BenchmarkError
        If another `radiobject` was imported before.
    """
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
    import pandas as pd

    from radiobject import RadiObject
    from radiobject.ctx import SliceOrientation, TileConfig, WriteConfig, configure

    configure(write=WriteConfig(tile=TileConfig(orientation=SliceOrientation.ISOTROPIC)))
    RadiObject.from_niftis(
        uri=str(uri),
        images={COLLECTION: [(str(s.image), s.id) for s in cohort.subjects]},
        obs_meta=pd.DataFrame([{"obs_subject_id": s.id, **s.columns} for s in cohort.subjects]),
    )


class PublishedRadiObject(Loader):
    """The published RadiObject's training loader, positions fixed by the data set's index."""

    name = "published"
    label = f"published RadiObject {VERSION}"
    framework = f"RadiObject {VERSION}"
    storage = f"published-{VERSION}"
    cites = f"https://pypi.org/project/radiobject/{VERSION}/"
    needs = ("torch", "boto3", "matplotlib", "pydicom", "tqdm")

    @classmethod
    def missing(cls) -> str | None:
        if not FOLDER.is_dir():
            return f"not installed: `{_COMMAND}` fetches it"
        return super().missing()

    @cached_property
    def store(self) -> Path:
        """Return the store, written by a process of its own if it is not there."""
        cohort = self.task.cohort
        folder = BENCHMARK_DIR / "forms" / cohort.key / self.storage
        if not folder.is_dir():
            with new_folder(folder) as building:
                self._write(cohort, building / "store")
        return folder / "store"

    def _write(self, cohort: Cohort, uri: Path) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.rivals.published"]
        done = subprocess.run(
            [*command, "write", str(cohort.root), str(uri)],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise BenchmarkError(f"radiobject {VERSION} could not write its store: {last}")

    def prepare(self) -> None:
        _ = self.store

    def files(self) -> list[Path]:
        return [self.store / "collections" / COLLECTION]

    def open(self) -> Any:
        activate()
        from radiobject import RadiObject
        from radiobject.ml import create_training_dataloader

        collection = RadiObject(str(self.store)).collection(COLLECTION)
        numbers = {s.id: n for n, s in enumerate(self.task.cohort.subjects)}
        self._numbers = [numbers[subject] for subject in collection.obs_subject_ids]
        return create_training_dataloader(
            collection,
            batch_size=self.task.batch_size,
            patch_size=self.task.patch_size,
            num_workers=self.task.num_workers,
            persistent_workers=self.task.num_workers > 0,
            pin_memory=False,
            patches_per_volume=self.task.patches_per_volume,
        )

    def boxes(self, batch: Any) -> list[Box]:
        starts = zip(*(axis.tolist() for axis in batch["patch_start"]), strict=True)
        return [
            (self._numbers[volume], tuple(start))
            for volume, start in zip(batch["idx"].tolist(), starts, strict=True)
        ]


def _write(root: str, uri: str) -> None:
    write_published_store(read_cohort(Path(root)), Path(uri))


def main(arguments: list[str]) -> int:
    """Install, or write a store: ``write COHORT STORE``."""
    command: Callable[..., Any] = _write if arguments[:1] == ["write"] else install
    try:
        command(*arguments[1:])
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
