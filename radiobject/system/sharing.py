"""Files that a group of users shares: who may write there, and whether this process lets them."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from radiobject.system.files import open_mode
from radiobject.system.present import fcntl, os

can_share = fcntl is not None
"""Whether files here have an owner, a group, and what each of them may do."""

_FILE = stat.S_IRGRP | stat.S_IWGRP
_FOLDER = stat.S_IRWXG | stat.S_ISGID
_STATUS = "/proc/self/status"
_UMASK = re.compile(rb"^Umask:\s*([0-7]+)$", re.MULTILINE)


def is_for_group(path: str | Path) -> bool:
    """Return whether a regular file is there that its group may read and write."""
    if not can_share:
        return False
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and mode & _FILE == _FILE


def hands_on_group(folder: str | Path) -> bool:
    """Return whether a folder's group may write there, and owns what is made in it."""
    return bool(os.stat(folder).st_mode & _FOLDER == _FOLDER)


def open_for_group(path: str | Path) -> int:
    """Open a file that its group may read and write, made now if it is not there.

    Raises
    ------
    OSError
        If it cannot be opened, is a link, or is another user's and private.
    """
    fd = open_mode(path, _FILE | stat.S_IRUSR | stat.S_IWUSR)
    mode = os.fstat(fd).st_mode
    if mode & _FILE != _FILE:
        try:
            os.fchmod(fd, stat.S_IMODE(mode) | _FILE)
        except OSError:
            os.close(fd)
            raise
    return fd


def current_umask() -> int:
    """Return what this process takes from the permissions of the files that it makes."""
    try:
        with open(_STATUS, "rb") as status:  # the name of a process is bytes in no encoding
            found = _UMASK.search(status.read())
    except OSError:
        found = None
    if found is not None:
        return int(found.group(1), 8)
    # There is no way to ask but to set it: what other threads make meanwhile is the user's alone.
    kept = os.umask(0o077)
    os.umask(kept)
    return int(kept)


def keeps_from_group(umask: int) -> bool:
    """Return whether what is made under a umask is closed to the group in any way."""
    return bool(umask & stat.S_IRWXG)
