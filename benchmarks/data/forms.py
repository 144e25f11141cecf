"""The same volumes in every form that a loader reads, made once per cohort."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.config import BENCHMARK_DIR
from benchmarks.data.cohort import Cohort
from benchmarks.folders import new_folder
from benchmarks.infrastructure.progress import track

CHUNK = (32, 32, 32)
ZSTD_LEVEL = 3
COLLECTION = "MR"
MASK_COLLECTION = "seg"


def make_form(
    cohort: Cohort,
    form: str,
    build: Callable[[Path], None],
    settings: Sequence[object] = (),
    home: Path | None = None,
    *,
    supersedes: bool = False,
) -> Path:
    """Return the folder of a form, made by `build(folder)` if it is not there.

    `settings` are what its bytes depend on beside the voxels: other settings, another folder.
    One that supersedes removes those others when it is made, but where a notebook's name leads.
    """
    described = json.dumps([form, CHUNK, ZSTD_LEVEL, *settings])
    digest = hashlib.sha256(described.encode()).hexdigest()[:12]
    folder = (home or BENCHMARK_DIR) / "forms" / cohort.key / f"{form}-{digest}"
    if not folder.is_dir():
        with new_folder(folder) as building:
            build(building)
        kept = {folder.resolve(), (BENCHMARK_DIR / form).resolve().parent}
        for other in folder.parent.glob(f"{form}-*") if supersedes else ():
            if other.resolve() not in kept:
                shutil.rmtree(other)
    return folder


def make_files(
    cohort: Cohort,
    form: str,
    suffix: str,
    settings: Sequence[object],
    write: Callable[[np.ndarray, Path], None],
) -> list[Path]:
    """Return a file per volume, ``<id><suffix>``, written if they are not there."""

    def build(folder: Path) -> None:
        for subject in track(cohort.subjects, f"writing {form}", total=len(cohort.subjects)):
            write(subject.voxels(), folder / f"{subject.id}{suffix}")

    folder = make_form(cohort, form, build, settings)
    return [folder / f"{subject.id}{suffix}" for subject in cohort.subjects]


def make_store(cohort: Cohort, tiling: str, home: Path | None = None) -> Path:
    """Return the cohort as a RadiObject with tiles of `tiling`, written by the code measured."""

    def build(folder: Path) -> None:
        write_store(cohort, folder / "store", tiling)

    settings = [library_digest()]
    folder = make_form(cohort, f"radiobject-{tiling}", build, settings, home, supersedes=True)
    return folder / "store"


def library_digest() -> str:
    """Return a digest of the source of the radiobject that is imported."""
    import radiobject

    digest = hashlib.sha256()
    package = Path(radiobject.__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def write_store(cohort: Cohort, uri: Path | str, tiling: str, *, labels: bool = True) -> None:
    """Write `cohort` as a RadiObject with tiles of `tiling` ("isotropic", "axial", ...)."""
    from radiobject import RadiObject

    images = {COLLECTION: [(str(s.image), s.id) for s in cohort.subjects]}
    if labels and cohort.has_labels:
        images[MASK_COLLECTION] = [(str(s.label), s.id) for s in cohort.subjects]
    with _tiles_of(tiling):
        RadiObject.from_images(uri=str(uri), images=images, obs_meta=cohort.obs_meta())


@contextmanager
def _tiles_of(tiling: str) -> Iterator[None]:
    from radiobject import TileConfig, WriteConfig, configure, get_radiobject_config

    before = get_radiobject_config().write
    configure(write=WriteConfig(tile=TileConfig(orientation=tiling)))
    try:
        yield
    finally:
        configure(write=before)
