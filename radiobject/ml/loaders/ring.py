"""A ring of batch buffers that worker processes write and the training process reads.

PyTorch makes a shared-memory file and passes a descriptor for every tensor that a worker sends;
here the memory is mapped once, and a worker sends the number of the slot it has filled. The file
has no name: it is gone when the last process that maps it ends, however it ends, and it is not
limited by the size of ``/dev/shm``. Pages are taken only when a slot is first written, and the
slot used last is used first, so the ring takes as much memory as is in use at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from radiobject.ml.device.driver import HostMemory
from radiobject.ml.loaders.buffers import PinnedMemory, Reclaimer, lease, pinned_or_none
from radiobject.system.memory import PAGE, SharedMemory


class SharedRing:
    """Slots of shared memory.

    Parameters
    ----------
    nbytes : int
        Capacity of one slot.
    slots : int
        Batches that the ring holds at once.
    """

    def __init__(self, nbytes: int, slots: int) -> None:
        self.nbytes = -(-max(nbytes, 1) // PAGE) * PAGE
        self.slots = slots
        self._shared = SharedMemory("batches", self.nbytes * slots)
        self._restart()

    def _restart(self) -> None:
        self._unused: Reclaimer[int] = Reclaimer(None)
        self._host: HostMemory | None = None
        self._pinned: dict[int, PinnedMemory] = {}
        for slot in range(self.slots - 1, -1, -1):
            self._unused.give_back(slot)

    def __getstate__(self) -> dict[str, Any]:
        return {"nbytes": self.nbytes, "slots": self.slots, "_shared": self._shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._restart()

    def pin(self, host: HostMemory) -> None:
        """Page-lock slots when they are first taken, for asynchronous copies to a device.

        To be called in the training process. Where the driver refuses, slots stay as they are.
        """
        self._host = host
        self._unused = Reclaimer.of(host, self._unused)

    @property
    def pinned_bytes(self) -> int:
        """Bytes that are page-locked."""
        return len(self._pinned) * self.nbytes

    @property
    def free_slots(self) -> int:
        """Slots that nobody writes, reads or holds."""
        return len(self._unused)

    def take(self) -> int | None:
        """Return a slot to write into, or None if all are in use."""
        slot = self._unused.take()
        if slot is not None and self._host is not None and slot not in self._pinned:
            offset = slot * self.nbytes
            pinned = pinned_or_none(self._shared.mapping, offset, self.nbytes, self._host)
            if pinned is None:
                self._host = None
            else:
                self._pinned[slot] = pinned
        return slot

    def give_back(self, slot: int) -> None:
        """Make a slot available again, when no copy of it is running any more."""
        self._unused.give_back(slot)

    def view(self, slot: int) -> torch.Tensor:
        """Return a slot's bytes, to be written."""
        return torch.from_numpy(
            np.frombuffer(self._shared.mapping, np.uint8, self.nbytes, slot * self.nbytes)
        )

    def lease(self, slot: int) -> torch.Tensor:
        """Return a slot's bytes, which are given back when nobody holds them any more."""
        return lease(self._shared.mapping, slot * self.nbytes, self.nbytes, self.give_back, slot)
