"""Memory for batches, used again as soon as nobody holds a tensor of it, and never before.

A batch is handed out as tensors over one *lease*: a NumPy array of bytes that the tensors' storage
keeps alive, however they are sliced, viewed or converted. When the last of them dies, so does the
lease, and its memory goes back to the pool. A batch that the user keeps therefore never changes.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from radiobject.ml.datasets.base import Layout
from radiobject.ml.device.driver import HostMemory
from radiobject.storage.cache.registration import RegistrationRefusedError
from radiobject.system.huge_pages import private_memory

T = TypeVar("T")

_log = logging.getLogger(__name__)

_ALIGNMENT = 64
_POLL_S = 2e-4
_TOGETHER = 4
"""Pieces given back that one fence waits for: it costs as much as a small batch."""


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
        What the arrays are views of.
    """
    # By NumPy: an operation of PyTorch offers the interpreter to other threads, which make it wait.
    leased, tensors, offset = memory.numpy(), {}, 0
    for name, (shape, dtype) in layout.items():
        nbytes = math.prod(shape) * dtype.itemsize
        part = leased[offset : offset + nbytes]
        tensors[name] = torch.from_numpy(part.view(dtype).reshape(shape))
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


class PinnedMemory:
    """Memory that a device copies from by itself, registered once for as long as it lives."""

    def __init__(self, memory: mmap.mmap, offset: int, nbytes: int, host: HostMemory) -> None:
        view: NDArray[np.uint8] = np.frombuffer(memory, np.uint8, nbytes, offset)
        address = view.ctypes.data
        # The finalizer keeps the memory until the registration is undone, at the end of the
        # process at the latest. It is there first: what follows may be interrupted.
        undo = weakref.finalize(self, _unregister, host, address, os.getpid(), view)
        try:
            host.register(address, nbytes)
        except RegistrationRefusedError:
            undo.detach()
            raise


def _unregister(host: HostMemory, address: int, pid: int, _memory: NDArray[np.uint8]) -> None:
    if os.getpid() != pid:
        return
    try:
        host.unregister(address)
    except KeyboardInterrupt:
        host.unregister(address)
        raise


def pinned_or_none(
    memory: mmap.mmap, offset: int, nbytes: int, host: HostMemory
) -> PinnedMemory | None:
    """Register memory; where the driver refuses, say so, and batches are copied the slower way."""
    try:
        return PinnedMemory(memory, offset, nbytes, host)
    except RegistrationRefusedError as error:
        _log.warning("batches are not page-locked, copies of them will wait: %s", error)
        return None


class Reclaimer(Generic[T]):
    """Pieces of memory that were given back, of which copies to a device may still be running.

    A copy that was started with ``non_blocking=True`` goes on when the batch is long forgotten,
    and nothing tells on which stream. A piece is free once everything that had been started when
    it was given back has ended.

    Parameters
    ----------
    host : HostMemory, optional
        Without one, no copy goes on after a batch is gone: pieces are free at once.
    """

    def __init__(self, host: HostMemory | None) -> None:
        self._host = host
        self._free: deque[T] = deque()
        self._given_back: deque[T] = deque()
        self._fenced: list[T] = []
        self._passed: Callable[[], bool] | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, host: HostMemory, others: Reclaimer[T]) -> Reclaimer[T]:
        """Return one that begins with the free pieces of another."""
        made = cls(host)
        made._free = others._free
        return made

    def __len__(self) -> int:
        """Return how many pieces may be taken, as far as is known."""
        return len(self._free)

    @property
    def waiting(self) -> int:
        """Pieces of which a copy may be running."""
        return len(self._given_back) + len(self._fenced)

    def give_back(self, piece: T) -> None:
        """Take a piece back. Garbage collection calls this, in any thread: no lock, no driver."""
        (self._free if self._host is None else self._given_back).append(piece)

    def take(self) -> T | None:
        """Return a piece that nobody reads, the last one used first; None if there is none."""
        if self._host is not None and (len(self._given_back) >= _TOGETHER or not self._free):
            with self._lock:
                self._look()
        try:
            return self._free.pop()
        except IndexError:
            return None

    def _look(self) -> None:
        if self._passed is None and self._given_back and self._host is not None:
            while self._given_back:
                self._fenced.append(self._given_back.popleft())
            self._passed = self._host.fence()
        if self._passed is not None and self._passed():
            while self._fenced:  # one by one: interrupted, none may be in both
                self._free.append(self._fenced.pop())
            self._passed = None


class PrivateBuffers:
    """Batches of this process.

    Parameters
    ----------
    nbytes : int
        Capacity of a buffer.
    keep : int
        Buffers kept for later; more are made while the user holds more.
    host : HostMemory, optional
        Where it is given, buffers are page-locked when they are made, for asynchronous copies to
        a device.
    """

    def __init__(self, nbytes: int, keep: int, *, host: HostMemory | None = None) -> None:
        self._nbytes = -(-max(nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._keep = keep
        self._host = host
        self._unused: Reclaimer[_Buffer] = Reclaimer(host)

    def take(self, nbytes: int) -> torch.Tensor:
        """Return a buffer of at least `nbytes` that nobody else holds."""
        if nbytes > self._nbytes:
            return torch.empty(nbytes, dtype=torch.uint8, device="cpu")
        buffer = self._unused.take()
        while buffer is None and self._unused.waiting > 2 * self._keep:
            time.sleep(_POLL_S)  # the device lags behind: wait for it, and take no more memory
            buffer = self._unused.take()
        if buffer is None:
            buffer = self._new()
        return lease(buffer.memory, 0, self._nbytes, self._give_back, buffer)

    def batch(self, layout: Layout) -> dict[str, torch.Tensor]:
        """Return tensors of the given shapes and types in a buffer that nobody else holds."""
        return split_views(self.take(layout_bytes(layout)), layout)

    def _new(self) -> _Buffer:
        memory = private_memory(self._nbytes)
        if self._host is None:
            return _Buffer(memory, None)
        pinned = pinned_or_none(memory, 0, self._nbytes, self._host)
        if pinned is None:
            self._host = None
        return _Buffer(memory, pinned)

    def _give_back(self, buffer: _Buffer) -> None:
        # Called by the garbage collector, in any thread: a deque needs no lock. What is pinned is
        # kept whatever it takes: to unpin it would wait for the device.
        if buffer.pinned is not None or len(self._unused) < self._keep:
            self._unused.give_back(buffer)


@dataclass(frozen=True, slots=True, eq=False)
class _Buffer:
    memory: mmap.mmap
    pinned: PinnedMemory | None
