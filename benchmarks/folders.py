"""Folders that are there whole, or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.errors import BenchmarkError


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the name `path` when the block ends without an error.

    Until then it lies beside `path` under a hidden name, and an error removes it. When another
    process finished the same folder first, that one stays.

    Raises
    ------
    BenchmarkError
        If the folder cannot be made, or the disk fails or fills up in the block.
    """
    building = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        building.mkdir(parents=True)
    except OSError as error:
        raise BenchmarkError(
            f"cannot write below {path.parent}: {error.strerror}; name another folder in "
            "RADIOBJECT_BENCHMARK_DIR"
        ) from error
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
    finally:
        shutil.rmtree(building, ignore_errors=True)


def tree_bytes(path: Path) -> int:
    """Return the size of a file, or of all files below a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
