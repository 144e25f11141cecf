"""Data sets that the users of a group write in turn.

A data set is private to its owner's hands unless it was asked for otherwise. A shared one is known
by its lock, which the group may write; every writer of it then gives the group what it makes. No
permission of a file that is there already is ever changed, but that of the lock.
"""

from __future__ import annotations

import os

from radiobject.addresses import is_remote
from radiobject.exceptions import ConfigurationError, StorageError
from radiobject.storage.io import layout
from radiobject.system import room, sharing

PERMISSIONS = {
    "vfs.file.posix_file_permissions": "664",
    "vfs.file.posix_directory_permissions": "775",
}
"""What libtiledb gives, less the umask. A folder's group and its setgid bit come from above it."""

_DEPTH = 8
"""A table of a collection has its stand-ins so far below the data set."""


def is_shared(uri: str) -> bool:
    """Return whether `uri` is of a data set whose group may write it, or in one."""
    if not sharing.can_share or is_remote(uri):
        return False
    folder = uri
    for _ in range(_DEPTH):
        if sharing.is_for_group(layout.join(folder, layout.LOCK)):
            return True
        folder = layout.parent(folder)
    return False


def refuse_private_umask(uri: str) -> None:
    """Raise a `StorageError` if this process would keep from the group what it writes to `uri`."""
    umask = sharing.current_umask()
    if sharing.keeps_from_group(umask):
        raise StorageError(
            f"{uri} is shared with a group, and the umask {umask:03o} of this process would close "
            "to it what is written now; set umask 002 in the shell that starts the process, or "
            "os.umask(0o002) in it"
        )


def refuse_unshareable(uri: str) -> None:
    """Raise unless what is made at `uri` can be shared with a group.

    Raises
    ------
    ConfigurationError
        If nothing there belongs to a group: on an object store, or on Windows.
    StorageError
        If the folder does not hand its group on, or the umask closes files to it.
    """
    if is_remote(uri) or not sharing.can_share:
        raise ConfigurationError(
            f"{uri} cannot be shared with a group of users (shared=True): files there belong to "
            "none; let the bucket, or the folder's own permissions, say who may write"
        )
    folder = uri
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    if not sharing.hands_on_group(folder):
        raise StorageError(
            f"{uri} cannot be shared with a group: {folder} does not hand its group on; as its "
            f"owner run: chgrp GROUP {folder} && chmod g+rwxs {folder}"
        )
    refuse_private_umask(uri)


def mark(uri: str) -> None:
    """Make the lock of the data set at `uri`, which is being made, one for its group."""
    path = layout.join(uri, layout.LOCK)
    if sharing.is_for_group(path):
        return  # and perhaps held by this process, which would lose it with any handle it closes
    with room.writing(uri):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(sharing.open_for_group(path))
