"""Finding the arena that processes have in common, or making it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

from radiobject.storage.cache.arena import (
    VIRTUAL_BYTES,
    Arena,
    bytes_for,
    format_arena,
    is_arena,
)
from radiobject.system import common_memory
from radiobject.system.common_memory import CommonMemory, MemoryFile, PrivateMemory
from radiobject.system.files import folder_lock
from radiobject.system.free_memory import free_bytes

_log = logging.getLogger(__name__)

NAME = "radiobject-tiles-1"
NAME_VARIABLE = "RADIOBJECT_CACHE"
_PATIENCE_S = 2.0


class ArenaUnavailableError(OSError):
    """There is no memory to be had; reading goes on without the cache."""


def arena_name() -> str:
    """Return the name that processes must have in common to share an arena."""
    suffix = os.environ.get(NAME_VARIABLE, "")
    return f"{NAME}-{suffix}" if suffix else NAME


def find_shared() -> int | None:
    """Open the arena that a process of this user holds; None if there is none."""
    return next(_arenas(), None)


def _arenas() -> Iterator[int]:
    for fd in common_memory.memory_files(arena_name(), VIRTUAL_BYTES):
        if is_arena(fd):
            yield fd
        else:
            os.close(fd)


def open_arena(budget: int | None = None) -> Arena:
    """Return the arena that this process can have in common with most others, made if need be.

    Where the system refuses memory that processes share, this process has an arena of its own, and
    a warning in the log says why.

    Parameters
    ----------
    budget : int, optional
        Bytes of tiles that are wanted; a quarter of the memory that is free by default. Memory
        that is not sparse is made so large that they fit.

    Raises
    ------
    ArenaUnavailableError
        Where there is no memory, or ``RADIOBJECT_CACHE=off`` forbids it.
    """
    if os.environ.get(NAME_VARIABLE) == "off":
        raise ArenaUnavailableError(f"{NAME_VARIABLE} is off")
    default = free_bytes() // 4
    size = bytes_for(budget or default)
    shared = _machine_arena if common_memory.finds_memory_files else _common_arena
    try:
        return shared(size, default)
    except (OSError, ValueError) as error:
        why = error
    try:
        arena = arena_in(PrivateMemory(size), default)
    except (OSError, ValueError) as error:
        _log.warning("no memory for decoded tiles (%s): every read decodes anew", error)
        raise ArenaUnavailableError(f"no memory for decoded tiles: {error}") from error
    _log.warning("no shared memory for decoded tiles (%s): each process keeps its own", why)
    return arena


def _machine_arena(size: int, default: int) -> Arena:
    # Should somebody hold the lock for long, two arenas may arise: each is right, and memory is
    # spent twice.
    with folder_lock(common_memory.place_to_lock(), _PATIENCE_S):
        fd = find_shared()
        made = fd is None
        if fd is None:
            fd = common_memory.make_memory_file(arena_name(), VIRTUAL_BYTES)
        memory: CommonMemory = MemoryFile(fd, VIRTUAL_BYTES)
        if made:
            format_arena(memory, default)
        return Arena(memory)


def _common_arena(size: int, default: int) -> Arena:
    return arena_in(common_memory.whole_memory(arena_name(), size), default)


def arena_in(memory: CommonMemory, default_budget: int) -> Arena:
    """Return the arena in memory that may be new."""
    arena = Arena(memory)
    with arena.locked():
        if not arena.is_ready:
            format_arena(memory, default_budget)
    return arena
