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

from radiobject.system.present import os, posixshmem

mmap: Any = _mmap
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


def ask_for_huge_pages(mapping: _mmap.mmap) -> None:
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

    Parameters
    ----------
    purpose : str
        A word for those who look at the process's open files.
    nbytes : int
    """

    def __init__(self, purpose: str, nbytes: int) -> None:
        self._attach(
            f"radiobject-{purpose}-{uuid.uuid4().hex}"
            if has_named_memory
            else nameless_file(purpose, nbytes),
            nbytes,
        )

    def _attach(self, place: str | int, nbytes: int) -> None:
        self.nbytes = nbytes
        self._place = place
        self.mapping: _mmap.mmap
        if isinstance(place, str):
            self.mapping = named_mapping(place, nbytes)
        else:
            self.mapping = mmap.mmap(place, nbytes)
            weakref.finalize(self, _plain_os.close, place)

    def __getstate__(self) -> dict[str, Any]:
        place = self._place
        return {
            "place": place if isinstance(place, str) else reduction.DupFd(place),  # type: ignore[attr-defined, unused-ignore]
            "nbytes": self.nbytes,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        place = state["place"]
        self._attach(place if isinstance(place, str) else place.detach(), state["nbytes"])
