"""Memory for batches, used again as soon as nobody holds a tensor of it, and never before.

A batch is handed out as tensors over one *lease*: a NumPy array of bytes that the tensors' storage
keeps alive, however they are sliced, viewed or converted. When the last of them dies, so does the
lease, and its memory goes back to the pool. A batch that the user keeps therefore never changes.
"""

from __future__ import annotations

import math
import mmap
import weakref
from collections import deque
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from radiobject.storage.io.huge_pages import private_memory

_ALIGNMENT = 64

Layout = dict[str, tuple[tuple[int, ...], np.dtype]]


@cache
def torch_dtype(dtype: np.dtype) -> torch.dtype:
    """Return PyTorch's name of a NumPy type."""
    return torch.from_numpy(np.empty(0, dtype)).dtype


def aligned(nbytes: int) -> int:
    """Return `nbytes` rounded up to the alignment of arrays in a buffer."""
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def layout_bytes(layout: Layout) -> int:
    """Return the bytes that `split_views` needs for a layout."""
    return sum(aligned(math.prod(shape) * dtype.itemsize) for shape, dtype in layout.values())


def split_views(memory: torch.Tensor, layout: Layout) -> dict[str, torch.Tensor]:
    """Return tensors of the given shapes and types, one after the other in `memory`.

    Parameters
    ----------
    memory : tensor of uint8, at least `layout_bytes` long
    """
    tensors, offset = {}, 0
    for name, (shape, dtype) in layout.items():
        nbytes = math.prod(shape) * dtype.itemsize
        part = memory[offset : offset + nbytes]
        tensors[name] = part.view(torch_dtype(dtype)).view(shape)
        offset += aligned(nbytes)
    return tensors


def lease(memory: Any, offset: int, nbytes: int, give_back: Any, *args: Any) -> torch.Tensor:
    """Return bytes of `memory` as a tensor, and call ``give_back(*args)`` when its storage dies.

    The lease is a new array over a buffer that is not an array: NumPy then makes it the base of
    every view, instead of looking through it to the owner of the memory.
    """
    lease: NDArray[np.uint8] = np.frombuffer(memory, np.uint8, nbytes, offset)
    weakref.finalize(lease, give_back, *args).atexit = False
    return torch.from_numpy(lease)


class PrivateBuffers:
    """Batches of this process.

    Parameters
    ----------
    nbytes : int
        Capacity of a buffer.
    keep : int
        Buffers kept for later; more are made while the user holds more.
    pinned : bool
        Page-locked memory, for asynchronous copies to a device. PyTorch's own allocator then
        recycles it, because it alone knows when such a copy has ended.
    """

    def __init__(self, nbytes: int, keep: int, *, pinned: bool = False) -> None:
        self._nbytes = max(nbytes, 1)
        self._keep = keep
        self._pinned = pinned
        self._free: deque[mmap.mmap] = deque()

    def take(self, nbytes: int) -> torch.Tensor:
        """Return a buffer of at least `nbytes` that nobody else holds."""
        if self._pinned:
            return torch.empty(max(nbytes, 1), dtype=torch.uint8, pin_memory=True)
        if nbytes > self._nbytes:
            return torch.empty(nbytes, dtype=torch.uint8)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = private_memory(self._nbytes)
        return lease(memory, 0, self._nbytes, self._give_back, memory)

    def _give_back(self, memory: mmap.mmap) -> None:
        # Called by the garbage collector, in any thread: a deque needs no lock.
        if len(self._free) < self._keep:
            self._free.append(memory)
