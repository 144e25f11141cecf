"""Huge pages for the decoded cache, and for memory of many megabytes that is soon given back.

A patch of 64^3 voxels touches some 300 small pages, more than the processor's table of addresses
keeps, and its copy takes up to half as long again as from huge pages. Memory files get none by
default (``/sys/kernel/mm/transparent_hugepage/shmem_enabled``), but since Linux 6.1 a process can
ask for pages that it has filled to be gathered into a huge one (``MADV_COLLAPSE``). That costs
some milliseconds, so it is done in the background, once. Where it is not to be had nothing is
lost but speed.
"""

from __future__ import annotations

import ctypes
import errno
import threading
from mmap import mmap as Mapping
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from radiobject import process
from radiobject.system.memory import ask_for_huge_pages, mmap, private_mapping

_SIZE_FILE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
_MADV_COLLAPSE = 25
_MAP_NORESERVE = 0x4000
_MAP_FIXED = 0x10


def huge_page_bytes() -> int:
    """Return the size of a huge page; 0 where the system has none."""
    try:
        return int(_SIZE_FILE.read_bytes())
    except (OSError, ValueError):
        return 0


HUGE = huge_page_bytes()


def private_memory(nbytes: int) -> Mapping:
    """Map private memory, in huge pages where the system has them.

    It goes back to the system with the last array that lies in it. What `malloc` gave to a thread,
    up to 64 MB of it, stays with the process when the thread has ended.
    """
    memory = private_mapping(nbytes)
    ask_for_huge_pages(memory)
    return memory


def map_shared(fd: int, size: int) -> tuple[Mapping, int]:
    """Map a file from its start, so that its huge pages can be huge pages of the mapping.

    Returns
    -------
    mapping : mmap.mmap
    first : int
        Where in the mapping the file begins.
    """
    aligned = _map_aligned(fd, size) if HUGE else None
    return aligned or (mmap.mmap(fd, size), 0)


def _map_aligned(fd: int, size: int) -> tuple[Mapping, int] | None:
    try:
        # Python chooses no addresses: reserve some, and put the file over an aligned part. The
        # memory is unmapped with the reservation, when the last array that lies in it is gone.
        room = private_mapping(size + HUGE, _MAP_NORESERVE)
    except OSError:
        return None
    address = np.frombuffer(room, np.uint8, 1).ctypes.data
    first = -address % HUGE
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    access, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_FIXED
    if libc.mmap(address + first, size, access, flags, fd, 0) != address + first:
        return None
    return room, first


class Gatherer:
    """Gathers small pages into huge ones, in a thread that holds no lock of the interpreter."""

    def __init__(self) -> None:
        self._wanted: SimpleQueue[np.ndarray] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._usable = HUGE > 0

    def gather(self, block: np.ndarray) -> None:
        """Ask for one huge page.

        Parameters
        ----------
        block : ndarray of uint8, shape (HUGE,)
            Filled shared memory at an address that is a multiple of `HUGE`.
        """
        if not self._usable:
            return
        self._wanted.put(block)
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._work, name="radiobject-huge-pages", daemon=True
            )
            self._thread.start()

    def _work(self) -> None:
        madvise = ctypes.CDLL(None, use_errno=True).madvise
        madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        while self._usable:
            block = self._wanted.get()
            if madvise(block.ctypes.data, block.size, _MADV_COLLAPSE):
                # Anything else (no huge page free just now) may be different for the next one.
                self._usable = ctypes.get_errno() != errno.EINVAL
            del block


_gatherer = Gatherer()


def gather(block: np.ndarray) -> None:
    """Ask this process's gatherer for a huge page; see `Gatherer.gather`."""
    _gatherer.gather(block)


def _renew_in_child() -> None:
    global _gatherer
    _gatherer = Gatherer()


process.at_fork("huge pages", in_child=_renew_in_child)
