"""Folders that are there whole, or not at all."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.errors import BenchmarkError

_SUFFIX = ".partial"
# No run takes so long: what is older was left by one that was killed.
_ABANDONED_S = 86_400.0


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the name `path` when the block ends without an error.

    When another process finished the same folder first, that one stays.
    """
    with scratch_folder(path) as building:
        try:
            yield building
            try:
                building.rename(path)
            except OSError:
                if not path.is_dir():
                    raise
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error.errno is None:
                raise
            raise BenchmarkError(
                f"writing {path} failed: {os.strerror(error.errno)}; nothing of it was kept"
            ) from error


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty hidden folder beside `path`, removed at the end; or, of a killed process, by
    another one a day later.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(_SUFFIX, f".{path.name}.", path.parent))
    except OSError as error:
        raise BenchmarkError(
            f"cannot write below {path.parent}: {error.strerror}; name another folder in "
            "RADIOBJECT_BENCHMARK_DIR"
        ) from error
    folder.chmod(0o755)  # mkdtemp's is nobody else's to read
    try:
        for other in path.parent.glob(f".*{_SUFFIX}"):
            if time.time() - other.lstat().st_mtime > _ABANDONED_S:
                shutil.rmtree(other, ignore_errors=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tree_bytes(path: Path) -> int:
    """Return the size of a file, or of all files below a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
