"""Folders that are there whole, or not at all."""

import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.errors import BenchmarkError

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.partial")
# A folder younger than this may belong to a process that is about to lock it.
_GRACE_S = 60.0


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
    the next one.
    """
    folder = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise BenchmarkError(
            f"cannot write below {path.parent}: {error.strerror}; name another folder in "
            "RADIOBJECT_BENCHMARK_DIR"
        ) from error
    # The kernel lets go of the lock when its process ends, however it ends.
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_abandoned(path.parent)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned(parent: Path) -> list[Path]:
    """Remove the unfinished folders in `parent` that no living process holds; return them."""
    found = [folder for folder in parent.iterdir() if _UNFINISHED.fullmatch(folder.name)]
    removed = [folder for folder in found if _is_abandoned(folder)]
    for folder in removed:
        shutil.rmtree(folder, ignore_errors=True)
    return removed


def _is_abandoned(folder: Path) -> bool:
    with suppress(OSError):  # gone, not ours, or no folder: none of them is ours to remove
        if time.time() - folder.stat().st_mtime < _GRACE_S or folder.is_symlink():
            return False
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        finally:
            os.close(lock)
    return False


def tree_bytes(path: Path) -> int:
    """Return the size of a file, or of all files below a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
