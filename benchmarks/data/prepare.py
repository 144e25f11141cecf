"""The data sets that notebooks read, under the names that they use."""

import uuid
from pathlib import Path

from benchmarks.config import BENCHMARK_DIR, S3_PREFIX
from benchmarks.data.cohort import Cohort
from benchmarks.data.forms import make_store
from benchmarks.errors import BenchmarkError
from benchmarks.s3 import upload_folder


def prepare(cohort: Cohort, bucket: str | None = None) -> list[str]:
    """Make the folders that notebooks name, and return where everything lies.

    The names are links to folders kept by content, so preparing twice costs nothing and another
    size replaces nothing made before. The isotropic store is also copied to a bucket, if named.
    """
    made = [_point(BENCHMARK_DIR / "nifti-compressed", cohort.root / "image")]
    for tiling in ("axial", "isotropic"):
        store = make_store(cohort, tiling)
        made.append(_point(BENCHMARK_DIR / f"radiobject-{tiling}", store))
    if bucket:
        made.append(f"s3://{bucket}/{S3_PREFIX}/radiobject-isotropic")
        upload_folder(store, made[-1])
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
