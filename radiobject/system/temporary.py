"""What is kept for a while in the folder for temporary files, and that folder being full."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from radiobject.exceptions import DiskFullError, RadiObjectError, StorageError
from radiobject.system import files, room


@contextmanager
def keeping(what: str) -> Iterator[None]:
    """Turn what the system says while temporary files are written into errors of ours.

    Raises
    ------
    DiskFullError, StorageError
        Naming `what` was to be kept, where, why it cannot be, and what to do.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, RadiObjectError):
            raise
        kind = DiskFullError if room.is_full(error) else StorageError
        raise kind(
            f"{what} cannot be kept in {_place()}: {error.strerror or error}; make room there, or "
            "name another folder in TMPDIR"
        ) from error


def _place() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return "any folder for temporary files"


@contextmanager
def folder(purpose: str, what: str) -> Iterator[Path]:
    """Give a folder of the user's own for temporary files, which goes with all that it holds.

    Parameters
    ----------
    purpose : str
        A word for its name.
    what : str
        What is kept in it, for the error of `keeping`.
    """
    with keeping(what):
        place = Path(tempfile.mkdtemp(prefix=f"radiobject-{purpose}-"))
    try:
        yield place
    finally:
        files.discard_tree(place)
