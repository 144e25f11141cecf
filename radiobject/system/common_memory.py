"""Memory that the processes of a user have in common, in the widest circle that the system allows.

``machine``
    A sparse memory file that every process of the user finds (Linux).
``session``
    A named section that every process of the user's session finds (Windows).
``children``
    Memory of this process and of those that it starts (macOS, and wherever there is no better).
    Forked processes have it; others are given it, pickled, when they start.
``process``
    Memory of this process alone, where the system refuses all of these. A forked process begins
    with a copy of it.

None of them is a file that could stay behind: the system frees all of it with the last process
that has it, however that ends.
"""

from __future__ import annotations

import mmap as _mmap
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from radiobject.system import files
from radiobject.system.huge_pages import map_shared
from radiobject.system.memory import (
    SharedMemory,
    has_named_memory,
    mmap,
    named_mapping,
    private_mapping,
)
from radiobject.system.present import fcntl, os
from radiobject.system.processes import is_mine, user_code

_PROCESSES = Path("/proc")
_ALWAYS_THERE = "/dev/shm"

finds_memory_files = (
    all(hasattr(os, name) for name in ("memfd_create", "posix_fallocate", "SEEK_HOLE"))
    and all(hasattr(fcntl, name) for name in ("F_ADD_SEALS", "F_SEAL_SHRINK"))
    and hasattr(mmap, "MADV_REMOVE")
    and Path("/proc/self/fd").exists()
)


class CommonMemory(Protocol):
    """Memory, zero where nothing was written, and one lock for all who have it.

    Attributes
    ----------
    reach : {"machine", "session", "children", "process"}
    size : int
    mapping : mmap.mmap
    first : int
        Where in `mapping` the memory begins.
    sparse : bool
        Whether only what was allocated takes memory, so that `size` may be beyond all bounds.
    """

    reach: str
    size: int
    mapping: _mmap.mmap
    first: int
    sparse: bool

    def lock(self) -> None:
        """Keep other processes out."""

    def unlock(self) -> None:
        """Let them in again."""

    def allocate(self, offset: int, size: int) -> None:
        """Give memory to a part, so that touching it cannot fail; raises OSError."""

    def drop(self, offset: int, size: int) -> None:
        """Give the memory of a part back, which then reads as zero."""

    def parts(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield those parts of a range that may hold anything but zero."""

    def is_allocated(self, offset: int, size: int) -> bool:
        """Return whether all of a part has memory."""

    def taken(self) -> int | None:
        """Return how much memory it takes; None where the system does not tell."""


class MemoryFile:
    """A sparse memory file; see `CommonMemory`.

    Parameters
    ----------
    fd : int
        Kept for as long as the process lives.
    size : int
    """

    reach = "machine"
    sparse = True

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self.mapping, self.first = map_shared(fd, size)

    def lock(self) -> None:
        """Keep other processes out."""
        files.lock(self.fd, wait=True)

    def unlock(self) -> None:
        """Let them in again."""
        files.unlock(self.fd)

    def allocate(self, offset: int, size: int) -> None:
        """Give memory to a part, so that touching it cannot fail; raises OSError."""
        os.posix_fallocate(self.fd, offset, size)

    def drop(self, offset: int, size: int) -> None:
        """Give the memory of a part back, which then reads as zero."""
        mapping: Any = self.mapping
        mapping.madvise(mmap.MADV_REMOVE, self.first + offset, size)

    def parts(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield those parts of a range that may hold anything but zero."""
        # Reading a page that was never allocated would allocate it: look for data.
        while start < stop:
            try:
                start = os.lseek(self.fd, start, os.SEEK_DATA)
            except OSError:
                return
            if start < stop:
                hole = min(os.lseek(self.fd, start, os.SEEK_HOLE), stop)
                yield start, hole
                start = hole

    def is_allocated(self, offset: int, size: int) -> bool:
        """Return whether all of a part has memory."""
        try:
            return bool(os.lseek(self.fd, offset, os.SEEK_HOLE) >= offset + size)
        except OSError:  # it begins beyond the last page that has
            return False

    def taken(self) -> int | None:
        """Return how much memory it takes."""
        return int(os.fstat(self.fd).st_blocks) * 512


def make_memory_file(name: str, size: int) -> int:
    """Make a memory file that `memory_files` finds and that nobody can cut short; return it."""
    fd = int(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    os.fchmod(fd, 0o600)
    os.ftruncate(fd, size)
    # A page that was allocated stays readable.
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


def memory_files(name: str, size: int) -> Iterator[int]:
    """Open each memory file of a name and size that a process of this user holds.

    The caller closes those that it does not want.
    """
    prefix = f"/memfd:{name} "
    for process in os.listdir(_PROCESSES):
        if not process.isdigit():
            continue
        folder = f"{_PROCESSES}/{process}/fd"
        try:
            descriptors = os.listdir(folder)
        except OSError:
            continue  # another user's process, or one that has just ended
        for descriptor in descriptors:
            with suppress(OSError):
                if not os.readlink(f"{folder}/{descriptor}").startswith(prefix):
                    continue
                fd = os.open(f"{folder}/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
                status = os.fstat(fd)
                if is_mine(status) and status.st_size == size:
                    yield fd
                else:
                    os.close(fd)


class _Whole:
    """What memory does that takes all of its size, or leaves that to the system."""

    sparse = False
    first = 0
    mapping: _mmap.mmap

    def allocate(self, offset: int, size: int) -> None:
        """Do nothing: the system reserved the memory when it was mapped, or never does."""

    def drop(self, offset: int, size: int) -> None:
        """Clear a part; its memory stays for what is stored there next."""
        np.frombuffer(self.mapping, np.uint8, size, offset)[:] = 0

    def parts(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the range: nobody tells what was never written."""
        yield start, stop

    def is_allocated(self, offset: int, size: int) -> bool:
        """Return whether all of a part has memory: the system does not tell, and not all may."""
        return False

    def taken(self) -> int | None:
        """Return None: the system does not tell."""
        return None


class NamedMemory(_Whole):
    """A section that the processes of this user's session know by a name; see `CommonMemory`.

    The first who asks decides on its size; a page of its own, of the same name, tells the others.

    Parameters
    ----------
    name : str
    size : int
        Wanted where there is none yet.
    """

    reach = "session"

    def __init__(self, name: str, size: int) -> None:
        own = f"{name}-{user_code()}"
        self._lock, self._locked_byte = files.lock_file(), files.lock_byte(own)
        self.lock()
        try:
            self._size_page = named_mapping(f"{own}-size", mmap.PAGESIZE)
            known: np.ndarray = np.frombuffer(self._size_page, np.uint64, 1)
            if not known[0]:
                known[0] = size
            self.size = int(known[0])
            self.mapping = named_mapping(f"{own}-{self.size}", self.size)
        finally:
            self.unlock()

    def lock(self) -> None:
        """Keep other processes out."""
        files.lock(self._lock, wait=True, at=self._locked_byte)

    def unlock(self) -> None:
        """Let them in again."""
        files.unlock(self._lock, at=self._locked_byte)


class InheritedMemory(_Whole):
    """Memory of this process and of those that it starts; see `CommonMemory`.

    Parameters
    ----------
    size : int
    """

    reach = "children"

    def __init__(self, size: int) -> None:
        self._attach(SharedMemory("tiles", size))

    def _attach(self, shared: SharedMemory) -> None:
        self._shared = shared
        self.size, self.mapping = shared.nbytes, shared.mapping
        self.lock, self.unlock = shared.lock, shared.unlock

    def __getstate__(self) -> dict[str, Any]:
        return {"shared": self._shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._attach(state["shared"])


class PrivateMemory(_Whole):
    """Memory of this process alone; see `CommonMemory`.

    Parameters
    ----------
    size : int
    """

    reach = "process"

    def __init__(self, size: int) -> None:
        self.size, self.mapping = size, private_mapping(size)

    def lock(self) -> None:
        """Do nothing: there are no other processes."""

    def unlock(self) -> None:
        """Do nothing: there are no other processes."""


def whole_memory(name: str, size: int) -> CommonMemory:
    """Return memory of at least the wanted size in the widest circle there is without sparse files.

    Raises
    ------
    OSError, ValueError
        If there is no room for it.
    """
    return NamedMemory(name, size) if has_named_memory else InheritedMemory(size)


def place_to_lock() -> str:
    """Return a folder that is always there, for `files.folder_lock`."""
    return _ALWAYS_THERE if os.path.isdir(_ALWAYS_THERE) else tempfile.gettempdir()
