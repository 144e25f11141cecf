"""Which parts of the cache's memory a device may read by itself, and the end of that.

Memory that a device reads has to be registered with its driver, which pins the pages: they have
to exist, or pinning would fill a sparse file, and they must not be given away before the
registration is undone. So whole volumes are registered, once complete; each registration keeps
its image, and with the image the volume's place in the cache; and all are undone in the reverse
order when the process ends. A forked child inherits no registration: it forgets them, and calls
no driver.

Ctrl-C may come between any two steps. A registration is therefore written down before the driver is
asked for it, and its users are a set: to end a use that never began ends nobody else's.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from radiobject import process

_log = logging.getLogger(__name__)


_all: weakref.WeakSet[Registrations] = weakref.WeakSet()


class RegistrationRefusedError(OSError):
    """The driver does not register this memory; the device gets copies instead."""


class Registrar(Protocol):
    """The two calls of a driver."""

    def register(self, address: int, nbytes: int) -> None:
        """Let the device read memory; raise RegistrationRefusedError if it may not."""
        ...

    def unregister(self, address: int) -> None:
        """End that; nothing happens where it never began."""
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


@dataclass(slots=True, eq=False)
class _Held:
    image: Region
    nbytes: int
    users: set[Hashable]


class Registrations:
    """What this process has registered with a device.

    Parameters
    ----------
    registrar : Registrar
    limit_bytes : callable
        Returns how many bytes may be registered at once, now: the cache may be switched on, or its
        budget changed, while the process has its registrations.
    """

    def __init__(self, registrar: Registrar, limit_bytes: Callable[[], int]) -> None:
        self._registrar = registrar
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._held: dict[int, _Held] = {}
        self.refused: str | None = None
        _all.add(self)

    @property
    def nbytes(self) -> int:
        """Bytes registered now."""
        return self._held_bytes() if self._pid == os.getpid() else 0

    def __len__(self) -> int:
        return len(self._held) if self._pid == os.getpid() else 0

    def add(self, image: Region, user: Hashable) -> bool:
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
                held.users.add(user)
                return True
            beyond = self._held_bytes() + nbytes > self._limit_bytes()
            if self.refused or beyond or not image.is_complete():
                return False
            self._held[address] = _Held(image, nbytes, {user})
            try:
                self._registrar.register(address, nbytes)
            except RegistrationRefusedError as error:
                self._forget(address)
                self.refused = str(error)
                _log.warning("the decoded cache is copied to the device instead: %s", error)
                return False
            except BaseException:  # interrupted: it may be registered, or not
                self._undo(address)
                raise
            return True

    def drop(self, image: Region, user: Hashable) -> None:
        """End a use of a volume, and its registration with the last; no copy may be running."""
        if self._pid != os.getpid():
            return
        address = image.voxels.ctypes.data
        with self._lock:
            held = self._held.get(address)
            if held is None or user not in held.users:
                return
            if len(held.users) == 1:
                self._undo(address)
            else:
                held.users.discard(user)

    def close(self) -> None:
        """Undo every registration, the last first."""
        if self._pid != os.getpid():
            return
        with self._lock:
            for address in reversed(list(self._held)):
                self._undo(address)

    def _undo(self, address: int) -> None:
        try:
            self._registrar.unregister(address)
        except KeyboardInterrupt:
            self._registrar.unregister(address)
            raise
        except Exception as error:  # noqa: BLE001 - a device that is lost reads nothing any more
            _log.warning("memory could not be unregistered: %s", error)
        finally:
            self._forget(address)

    def _forget(self, address: int) -> None:
        # With it goes the image: from here on its memory may be given away.
        self._held.pop(address, None)

    def _held_bytes(self) -> int:
        return sum(held.nbytes for held in list(self._held.values()))


_of_process: Registrations | None = None


def registered_bytes() -> int:
    """Return how much of the cache this process has registered."""
    return sum(some.nbytes for some in list(_all))


def registrations(registrar: Registrar, limit_bytes: Callable[[], int]) -> Registrations:
    """Return the registrations of this process with a driver, made on first use."""
    global _of_process
    held = _of_process
    if held is None or held._pid != os.getpid() or held._registrar is not registrar:
        held = _of_process = Registrations(registrar, limit_bytes)
        atexit.register(held.close)
    return held


def _renew_in_child() -> None:
    global _of_process
    _of_process = None


process.at_fork("registrations", in_child=_renew_in_child)
