"""What the loaders ask of a CUDA driver: memory that it may read, and when it has read it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Protocol

import torch

from radiobject.storage.cache.registration import Registrar, RegistrationRefusedError

_POOL = 32
"""Streams that PyTorch hands out in turn, per priority; the 33rd is the first again."""


class HostMemory(Registrar, Protocol):
    """Memory of the processor, as a device copies from it."""

    def fence(self) -> Callable[[], bool]:
        """Return what tells whether everything that was started until now has ended."""
        ...


class CudaHost:
    """The driver, of the device that is current when it is first asked."""

    def __init__(self) -> None:
        self._streams: list[torch.cuda.Stream] | None = None

    def register(self, address: int, nbytes: int) -> None:
        """Pin memory and let every device of the process read it at the address that it has."""
        torch.cuda.init()
        runtime = torch.cuda.cudart()
        status = int(runtime.cudaHostRegister(address, nbytes, 0))
        if status:
            why = runtime.cudaGetErrorString(runtime.cudaError(status))
            raise RegistrationRefusedError(f"cudaHostRegister of {nbytes} bytes: {why}")
        seen = _address_on_device(address)
        if seen != address:
            self.unregister(address)
            raise RegistrationRefusedError(
                "this device sees registered memory at other addresses than the processor"
            )

    def unregister(self, address: int) -> None:
        """Unpin memory, when no copy can be reading it any more."""
        torch.cuda.synchronize()
        torch.cuda.cudart().cudaHostUnregister(address)

    def fence(self) -> Callable[[], bool]:
        """Record an event on every stream that PyTorch has.

        A copy that the user started may be on any of them, and nothing tells on which.
        """
        if self._streams is None:
            pool = [torch.cuda.Stream(priority=p) for p in (0, -1) for _ in range(_POOL)]
            self._streams = [torch.cuda.default_stream(), *pool]
        events = []
        for stream in (torch.cuda.current_stream(), *self._streams):
            if stream.query():  # all that was started there has ended
                continue
            event = torch.cuda.Event()
            event.record(stream)
            events.append(event)
        return lambda: all(event.query() for event in events)


def _address_on_device(address: int) -> int | None:
    """Return where a device sees registered memory; None where that cannot be asked."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    seen = ctypes.c_uint64()
    status = driver.cuMemHostGetDevicePointer_v2(
        ctypes.byref(seen), ctypes.c_void_p(address), ctypes.c_uint(0)
    )
    return None if status else seen.value


_host: CudaHost | None = None


def host_memory() -> HostMemory | None:
    """Return the way to page-locked memory; None where no device would copy from it."""
    global _host
    if not torch.cuda.is_available():
        return None
    if _host is None:
        _host = CudaHost()
    return _host
