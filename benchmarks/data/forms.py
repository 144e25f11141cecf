"""The same volumes in every form that a loader reads, made once per cohort.

A form lies under ``forms/<cohort>/<form>-<digest>``; the digest holds the settings that its bytes
depend on and, for RadiObject's stores, the library's own source: a store is written by the code
that is measured.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.config import BENCHMARK_DIR
from benchmarks.data.cohort import Cohort, Subject
from benchmarks.folders import new_folder
from benchmarks.infrastructure.progress import track

CHUNK = (32, 32, 32)
ZSTD_LEVEL = 3
COLLECTION = "MR"
MASK_COLLECTION = "seg"

Write = Callable[[np.ndarray, Subject, Path], None]


def make_form(
    cohort: Cohort, form: str, suffix: str, settings: Sequence[object], write: Write
) -> Path:
    """Return the folder with a file per volume, ``<id><suffix>``, written if it is not there.

    Parameters
    ----------
    settings
        What the files' bytes depend on beside the voxels: other settings, another folder.
    write
        Writes one volume: voxels in their stored type, the subject, the file's path.
    """
    import nibabel as nib

    folder = _place(cohort, form, settings, BENCHMARK_DIR)
    if not folder.is_dir():
        with new_folder(folder) as building:
            for subject in track(cohort.subjects, f"writing {form}", total=len(cohort.subjects)):
                voxels = np.ascontiguousarray(np.asanyarray(nib.load(subject.image).dataobj))
                write(voxels, subject, building / f"{subject.id}{suffix}")
    return folder


def make_store(cohort: Cohort, tiling: str, home: Path | None = None) -> Path:
    """Return the cohort as a RadiObject with tiles of `tiling`, written if it is not there.

    Parameters
    ----------
    home
        Where it is kept; asv gives the folder that lives as long as the commit it measures.
    """
    folder = _place(cohort, f"radiobject-{tiling}", [library_digest()], home or BENCHMARK_DIR)
    if not folder.is_dir():
        with new_folder(folder) as building:
            write_store(cohort, building / "store", tiling)
        _remove_superseded(folder, f"radiobject-{tiling}")
    return folder / "store"


def _place(cohort: Cohort, form: str, settings: Sequence[object], home: Path) -> Path:
    described = json.dumps([form, CHUNK, ZSTD_LEVEL, *settings])
    digest = hashlib.sha256(described.encode()).hexdigest()[:12]
    return home / "forms" / cohort.key / f"{form}-{digest}"


def _remove_superseded(folder: Path, form: str) -> None:
    """Remove the same form as other versions of the library wrote it, unless a name leads there."""
    named = BENCHMARK_DIR / form
    kept = {folder.resolve(), named.resolve().parent}
    for other in folder.parent.glob(f"{form}-*"):
        if other.resolve() not in kept:
            shutil.rmtree(other)


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
    import pandas as pd

    from radiobject import RadiObject

    images = {COLLECTION: [(str(s.image), s.id) for s in cohort.subjects]}
    if labels and cohort.has_labels:
        images[MASK_COLLECTION] = [(str(s.label), s.id) for s in cohort.subjects]
    obs_meta = pd.DataFrame([{"obs_subject_id": s.id, **s.columns} for s in cohort.subjects])
    with tiles_of(tiling):
        RadiObject.from_images(uri=str(uri), images=images, obs_meta=obs_meta)


@contextmanager
def tiles_of(tiling: str) -> Iterator[None]:
    """Write volumes with tiles of `tiling` inside the block."""
    from radiobject import TileConfig, WriteConfig, configure, get_radiobject_config

    before = get_radiobject_config().write
    configure(write=WriteConfig(tile=TileConfig(orientation=tiling)))
    try:
        yield
    finally:
        configure(write=before)
