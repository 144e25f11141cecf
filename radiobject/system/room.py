"""Room on a disk: every way in which a system says that there is none becomes one error."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from radiobject.exceptions import DiskFullError, RadiObjectError, StorageError

_WHY = {
    errno.ENOSPC: "has no room left",
    getattr(errno, "EDQUOT", errno.ENOSPC): "has a quota, which is used up",
    errno.EFBIG: "takes no file so large (a limit of the process, ulimit -f, or of the disk)",
}
_SAID = {os.strerror(code): why for code, why in _WHY.items()}
_WINDOWS = {
    39: _WHY[errno.ENOSPC],
    112: _WHY[errno.ENOSPC],
    1295: "has a quota, which is used up",
}
_QUOTED = re.compile(r"GetLastError (\d+) \(")
"""libtiledb's way to quote Windows, whose words are in the language of the user."""
_A_COMMIT = 1 << 20
"""What the files of a commit take beside its volumes and rows, rounded up."""


@contextmanager
def writing(place: str | os.PathLike[str], needed: int = _A_COMMIT) -> Iterator[None]:
    """Turn what a system says while files are written into errors of ours.

    Parameters
    ----------
    place : str or path
        What is written; what is free is told of the disk that it is on.
    needed : int
        Bytes that are written at most.

    Raises
    ------
    DiskFullError
        If there is no room, whoever said so: Python, libtiledb, or an error of ours because of it.
    StorageError
        For any other failure of the system.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        why = _reason(error)
        if why is not None:
            raise DiskFullError(_message(os.fspath(place), needed, why)) from error
        if isinstance(error, OSError) and not isinstance(error, RadiObjectError):
            reason = error.strerror or str(error)
            raise StorageError(
                f"{error.filename or place} cannot be written: {reason}; check the permissions of "
                "its folder, or write to another one"
            ) from error
        raise


def is_full(error: BaseException) -> bool:
    """Return whether an error says that there is no room."""
    return _reason(error) is not None


def _reason(error: BaseException | None) -> str | None:
    """Return how the disk of an error, or of what it was made from, is full; None if it is not."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _WHY:
            return _WHY[error.errno]
        code = getattr(error, "winerror", None)
        if code in _WINDOWS:
            return _WINDOWS[code]
        # libtiledb quotes the system.
        text = str(error)
        quoted = (_WINDOWS.get(int(number)) for number in _QUOTED.findall(text))
        said = (why for words, why in _SAID.items() if words in text)
        found = next((why for why in (*quoted, *said) if why is not None), None)
        if found is not None:
            return found
        error = error.__cause__
    return None


def _message(place: str, needed: int, why: str) -> str:
    return (
        f"{place} cannot be written: its disk {why}{_free(place)}; this takes up to "
        f"{_size(needed)}. What was there before is as it was. Make room, give up old states with "
        "vacuum() (radiobject vacuum), or write elsewhere"
    )


def _free(place: str) -> str:
    """Return what is free on the disk of a path, which need not exist yet; "" if unknown."""
    while place:
        try:
            return f" ({_size(shutil.disk_usage(place).free)} free)"
        except OSError:
            parent = os.path.dirname(place)
            place = "" if parent == place else parent
    return ""


def _size(count: int) -> str:
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= step:
            return f"{count / step:.3g} {unit}"
    return f"{count} bytes"
