"""Memory of this process, and memory that processes share and that nothing has to clean up.

Shared memory has no name that could stay behind: on Linux it is a memory file, on macOS a
shared-memory object whose name is taken back at once, on Windows a section that goes with its last
handle. However the processes that map it end, the system frees every byte.
"""

from __future__ import annotations

import mmap as _mmap
import os as _plain_os
import tempfile
import uuid
import weakref
from multiprocessing import reduction
from typing import Any

from radiobject.system import files
from radiobject.system.present import os, posixshmem

mmap: Any = _mmap
_reduction: Any = reduction
PAGE = int(_mmap.PAGESIZE)

_PRIVATE = (
    mmap.MAP_PRIVATE | (mmap.MAP_ANONYMOUS if hasattr(mmap, "MAP_ANONYMOUS") else mmap.MAP_ANON)
    if hasattr(mmap, "MAP_PRIVATE")
    else None
)
has_memory_files = hasattr(os, "memfd_create")
has_named_memory = not hasattr(mmap, "MAP_SHARED")
"""Whether shared memory is found by name: then it needs no file, and takes no flags."""


def private_mapping(nbytes: int, extra_flags: int = 0) -> _mmap.mmap:
    """Map memory that only this process sees; it goes back to the system with the last view."""
    flags: Any = {} if _PRIVATE is None else {"flags": _PRIVATE | extra_flags}
    return _mmap.mmap(-1, nbytes, **flags)


def ask_for_huge_pages(mapping: Any) -> None:
    """Ask for huge pages, where the system gives them to those that ask."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            mapping.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            return  # a kernel without them


def nameless_file(purpose: str, size: int) -> int:
    """Return the descriptor of a new file of memory that is gone with the last one who has it.

    Where there are no memory files and no shared-memory objects, a file without a name on the
    disk for temporary files.

    Raises
    ------
    OSError
        If there is no room for it.
    """
    if has_memory_files:
        descriptor = int(os.memfd_create(f"radiobject-{purpose}", os.MFD_CLOEXEC))
    elif posixshmem is not None:
        name = f"/radiobject-{uuid.uuid4().hex[:16]}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        descriptor = int(posixshmem.shm_open(name, flags, mode=0o600))
        posixshmem.shm_unlink(name)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def named_mapping(name: str, nbytes: int) -> _mmap.mmap:
    """Map the section of memory that processes of this user's session know by a name.

    It is made, all zero, by the first who asks, and goes with the last who has it.
    """
    arguments: Any = {"tagname": f"Local\\{name}"}
    return _mmap.mmap(-1, nbytes, **arguments)


class SharedMemory:
    """Memory that this process and those that get it by fork, or pickled at their start, share.

    Attributes
    ----------
    nbytes : int
    mapping : mmap.mmap
        All zero when it is new.

    Parameters
    ----------
    purpose : str
        A word for those who look at the process's open files.
    nbytes : int
    """

    def __init__(self, purpose: str, nbytes: int) -> None:
        if has_named_memory:
            name = f"radiobject-{purpose}-{uuid.uuid4().hex}"
            self._attach(nbytes, name, None, files.lock_file())
            return
        descriptor = nameless_file(purpose, nbytes)
        lockable = has_memory_files or posixshmem is None
        lock = descriptor if lockable else files.lock_file(own=True)
        self._attach(nbytes, None, descriptor, lock)

    def _attach(self, nbytes: int, name: str | None, descriptor: int | None, lock: int) -> None:
        self.nbytes = nbytes
        self._name = name
        self._descriptor = descriptor
        self._lock = lock
        self._locked_byte = files.lock_byte(name or "")
        self.mapping: _mmap.mmap
        if descriptor is None:
            self.mapping = named_mapping(str(name), nbytes)
        else:
            self.mapping = _mmap.mmap(descriptor, nbytes)
        for each in {lock} if descriptor is None else {lock, descriptor}:
            weakref.finalize(self, _plain_os.close, each)

    def lock(self) -> None:
        """Keep other processes out; threads of this one are not kept out."""
        if files.can_lock:
            files.lock(self._lock, wait=True, at=self._locked_byte)

    def unlock(self) -> None:
        """Let others in again."""
        if files.can_lock:
            files.unlock(self._lock, at=self._locked_byte)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {"nbytes": self.nbytes, "name": self._name}
        if self._descriptor is not None:
            state["descriptor"] = _reduction.DupFd(self._descriptor)
            if self._lock != self._descriptor:
                state["lock"] = _reduction.DupFd(self._lock)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        name = state["name"]
        if name is not None:
            self._attach(state["nbytes"], name, None, files.lock_file())
            return
        descriptor = state["descriptor"].detach()
        lock = state["lock"].detach() if "lock" in state else descriptor
        self._attach(state["nbytes"], None, descriptor, lock)
