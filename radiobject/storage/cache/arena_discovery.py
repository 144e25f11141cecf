"""Finding the arena that the processes of a user share, or making it."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from radiobject.storage.cache.arena import Arena, format_arena, is_arena
from radiobject.system.free_memory import free_bytes

NAME = "radiobject-tiles-1"
NAME_VARIABLE = "RADIOBJECT_CACHE"
_PATIENCE_S = 2.0


class ArenaUnavailableError(OSError):
    """There is no shared memory to be had; reading goes on without the cache."""


def arena_name() -> str:
    """Return the name that processes must have in common to share an arena."""
    suffix = os.environ.get(NAME_VARIABLE, "")
    return f"{NAME}-{suffix}" if suffix else NAME


def find_shared() -> int | None:
    """Open the arena that a process of this user holds; None if there is none."""
    for process in os.listdir("/proc"):
        if process.isdigit():
            fd = _arena_of(f"/proc/{process}/fd")
            if fd is not None:
                return fd
    return None


def _arena_of(folder: str) -> int | None:
    prefix = f"/memfd:{arena_name()} "
    try:
        names = os.listdir(folder)
    except OSError:
        return None  # another user's process, or one that has just ended
    for name in names:
        with suppress(OSError):
            if not os.readlink(f"{folder}/{name}").startswith(prefix):
                continue
            fd = os.open(f"{folder}/{name}", os.O_RDWR | os.O_CLOEXEC)
            if is_arena(fd):
                return fd
            os.close(fd)
    return None


def create_shared() -> int:
    """Make a new arena that other processes of this user can find."""
    fd = os.memfd_create(arena_name(), os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.fchmod(fd, 0o600)
    format_arena(fd, default_budget=free_bytes() // 4)
    return fd


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let only one process of the machine look for an arena and make one.

    The lock is on a folder that always exists, so that none has to be left behind. Should
    somebody hold it for long, two arenas may arise: each is right, and memory is spent twice.
    """
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        patience = time.monotonic() + _PATIENCE_S
        while time.monotonic() < patience:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.005)
        yield
    finally:
        os.close(fd)


def open_arena() -> Arena:
    """Return the user's arena on this machine, made now if there is none.

    Raises
    ------
    ArenaUnavailableError
        Where there are no memory files or no memory, or ``RADIOBJECT_CACHE=off`` forbids them.
    """
    if os.environ.get(NAME_VARIABLE) == "off":
        raise ArenaUnavailableError(f"{NAME_VARIABLE} is off")
    if not hasattr(os, "memfd_create"):
        raise ArenaUnavailableError("this system has no memory files to share")
    try:
        with _one_at_a_time():
            fd = find_shared()
            return Arena(create_shared() if fd is None else fd)
    except (OSError, ValueError) as error:
        raise ArenaUnavailableError(f"no shared memory for decoded tiles: {error}") from error
