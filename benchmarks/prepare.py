"""The data sets that notebooks read, under the names that they use."""

from __future__ import annotations

import uuid
from pathlib import Path

from benchmarks.cohort import Cohort
from benchmarks.config import BENCHMARK_DIR, S3_BUCKET, S3_PREFIX
from benchmarks.errors import BenchmarkError
from benchmarks.forms import make_form

TILINGS = ("axial", "isotropic")


def prepare(
    cohort: Cohort, patch_size: tuple[int, int, int], *, s3: bool = False, bucket: str = S3_BUCKET
) -> list[str]:
    """Make the folders that notebooks name, and return where everything lies.

    `nifti-compressed`, `radiobject-axial` and `radiobject-isotropic` are links to folders kept by
    content, so preparing twice costs nothing and another size replaces nothing made before.

    Parameters
    ----------
    s3
        Also copy the isotropic store to ``s3://<bucket>/benchmark/radiobject-isotropic``.
    """
    made = [_point(BENCHMARK_DIR / "nifti-compressed", cohort.root / "image")]
    for tiling in TILINGS:
        store = make_form(cohort, f"radiobject-{tiling}", patch_size)
        made.append(_point(BENCHMARK_DIR / f"radiobject-{tiling}", store))
    if s3:
        from benchmarks.s3 import upload_folder

        uri = f"s3://{bucket}/{S3_PREFIX}/radiobject-isotropic"
        upload_folder(store, uri)
        made.append(uri)
    return made


def _point(name: Path, target: Path) -> str:
    """Make the link `name` lead to `target` in one step."""
    if name.exists() and not name.is_symlink():
        raise BenchmarkError(
            f"{name} is not a link of ours; move it away, or name another folder in "
            "RADIOBJECT_BENCHMARK_DIR"
        )
    fresh = name.with_name(f".{name.name}.{uuid.uuid4().hex[:8]}")
    fresh.symlink_to(target.resolve(), target_is_directory=True)
    fresh.replace(name)
    return str(name)
