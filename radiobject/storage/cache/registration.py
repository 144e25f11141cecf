"""Which parts of the cache's memory a device may read by itself, and the end of that.

Memory that a device reads has to be registered with its driver, which pins the pages: they have
to exist, or pinning would fill a sparse file, and they must not be given away before the
registration is undone. So whole volumes are registered, once complete; each registration keeps
its image, and with the image the volume's place in the cache; and all are undone in the reverse
order when the process ends. A forked child inherits no registration: it forgets them, and calls
no driver.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import Protocol

import numpy as np

from radiobject import process

_log = logging.getLogger(__name__)


class RegistrationRefusedError(OSError):
    """The driver does not register this memory; the device gets copies instead."""


class Registrar(Protocol):
    """The two calls of a driver."""

    def register(self, address: int, nbytes: int) -> None:
        """Let the device read memory; raise RegistrationRefusedError if it may not."""
        ...

    def unregister(self, address: int) -> None:
        """End that."""
        ...


class Region(Protocol):
    """A part of the cache: `radiobject.storage.cache.tile_cache.VolumeImage`."""

    voxels: np.ndarray

    @property
    def region(self) -> tuple[int, int]:
        """Offset and bytes."""
        ...

    def is_complete(self) -> bool:
        """Return whether all of it has memory."""
        ...


class Registrations:
    """What this process has registered with a device.

    Parameters
    ----------
    registrar : Registrar
    limit_bytes : int
        Most bytes that are registered at once.
    """

    def __init__(self, registrar: Registrar, limit_bytes: int) -> None:
        self._registrar = registrar
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._held: dict[int, tuple[Region, int, int]] = {}
        self._bytes = 0
        self.refused: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes registered now."""
        return self._bytes if self._pid == os.getpid() else 0

    def __len__(self) -> int:
        return len(self._held) if self._pid == os.getpid() else 0

    def add(self, image: Region) -> bool:
        """Register a volume, or note another user of it; False where that cannot be.

        Nothing is registered that is not complete, nor beyond the limit, nor after the driver
        has refused once: the reason is logged then, and kept in `refused`.
        """
        if self._pid != os.getpid():
            return False
        address, nbytes = image.voxels.ctypes.data, image.region[1]
        with self._lock:
            held = self._held.get(address)
            if held is not None:
                self._held[address] = (held[0], held[1], held[2] + 1)
                return True
            if self.refused or self._bytes + nbytes > self._limit or not image.is_complete():
                return False
            try:
                self._registrar.register(address, nbytes)
            except RegistrationRefusedError as error:
                self.refused = str(error)
                _log.warning("the decoded cache is copied to the device instead: %s", error)
                return False
            self._held[address] = (image, nbytes, 1)
            self._bytes += nbytes
            _count(nbytes)
            return True

    def drop(self, image: Region) -> None:
        """End one use of a volume, and its registration with the last; no copy may be running."""
        if self._pid != os.getpid():
            return
        address = image.voxels.ctypes.data
        with self._lock:
            held = self._held.get(address)
            if held is None:
                return
            if held[2] > 1:
                self._held[address] = (held[0], held[1], held[2] - 1)
            else:
                self._undo(address)

    def close(self) -> None:
        """Undo every registration, the last first."""
        if self._pid != os.getpid():
            return
        with self._lock:
            for address in reversed(list(self._held)):
                self._undo(address)

    def _undo(self, address: int) -> None:
        image, nbytes, _ = self._held[address]
        self._registrar.unregister(address)
        del self._held[address]  # the image, too: from here on its memory may be given away
        self._bytes -= nbytes
        _count(-nbytes)
        del image


_registered = 0
_of_process: Registrations | None = None


def _count(nbytes: int) -> None:
    global _registered
    _registered += nbytes


def registered_bytes() -> int:
    """Return how much of the cache this process has registered."""
    return _registered


def registrations(registrar: Registrar, limit_bytes: int) -> Registrations:
    """Return the registrations of this process, made on first use."""
    global _of_process
    if _of_process is None or _of_process._pid != os.getpid():
        _of_process = Registrations(registrar, limit_bytes)
        atexit.register(_of_process.close)
    return _of_process


def _renew_in_child() -> None:
    global _registered, _of_process
    _registered, _of_process = 0, None


process.at_fork("registrations", in_child=_renew_in_child)
