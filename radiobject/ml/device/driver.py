"""What the loaders ask of a CUDA driver: memory that it may read, and when it has read it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Protocol

import torch

from radiobject.storage.cache.registration import Registrar, RegistrationRefusedError

_POOL = 32
"""Streams that PyTorch hands out in turn, per priority; the 33rd is the first again."""
_PRIORITIES = 4
"""Priorities of which PyTorch keeps streams, at most."""
_RELAXED = 2
"""The mode of a thread whose calls end no capture."""
_CAPTURE_IMPLICIT = 906
"""What the driver says of the default stream while another, which waits for it, is captured."""


class HostMemory(Registrar, Protocol):
    """Memory of the processor, as a device copies from it."""

    def fence(self) -> Callable[[], bool]:
        """Return what shows whether everything that was started until now has ended."""
        ...


class CudaHost:
    """The driver, for every device that this process uses."""

    def __init__(self) -> None:
        self._streams: dict[int, list[tuple[torch.cuda.Stream, ctypes.c_void_p]]] = {}

    def register(self, address: int, nbytes: int) -> None:
        """Pin memory and let every device of the process read it at the address that it has."""
        try:
            torch.cuda.init()
        except RuntimeError as error:
            raise RegistrationRefusedError(f"CUDA does not start: {error}") from error
        runtime = torch.cuda.cudart()
        with _device_in_use():
            status = int(runtime.cudaHostRegister(address, nbytes, 0))
            if status:
                _forget_error()
                why = runtime.cudaGetErrorString(runtime.cudaError(status))
                raise RegistrationRefusedError(f"cudaHostRegister of {nbytes} bytes: {why}")
            seen = _address_on_device(address)
        if seen != address:
            self.unregister(address)
            raise RegistrationRefusedError(
                "this device sees registered memory at other addresses than the processor"
            )

    def unregister(self, address: int) -> None:
        """Unpin memory, when no copy can be reading it any more.

        Nothing happens where it is not registered.
        """
        for device in _devices_in_use():
            with suppress(RuntimeError):  # a device that was lost reads nothing
                torch.cuda.synchronize(device)
        with _device_in_use():
            if int(torch.cuda.cudart().cudaHostUnregister(address)):
                _forget_error()

    def fence(self) -> Callable[[], bool]:
        """Record an event on every stream that PyTorch has, of every device in use.

        A copy that the user started may be on any of them, and nothing tells on which.
        """
        events: list[torch.cuda.Event] = []
        if torch.cuda._is_in_bad_fork():  # a child, of which no device copies anything
            return lambda: True
        with _beside_captures():
            for device in _devices_in_use():
                # Through PyTorch, which sees to it that this thread may ask of the others, too.
                known = torch.cuda.current_stream(device), torch.cuda.default_stream(device)
                busy = [s for s in known if not _is_captured(s) and not s.query()]
                busy += _running(self._streams_of(device))
                for stream in busy:
                    event = torch.cuda.Event()
                    event.record(stream)
                    events.append(event)
        return lambda: _have_passed(events)

    def _streams_of(self, device: int) -> list[tuple[torch.cuda.Stream, ctypes.c_void_p]]:
        if device not in self._streams:
            lowest, highest = torch.cuda.Stream.priority_range()  # type: ignore[call-arg]
            pool = [
                torch.cuda.Stream(device, priority=priority)
                for priority in range(lowest, max(highest, lowest - _PRIORITIES + 1) - 1, -1)
                for _ in range(_POOL)
            ]
            self._streams[device] = [(s, ctypes.c_void_p(s.cuda_stream)) for s in pool]
        return self._streams[device]


def _devices_in_use() -> list[int]:
    """Return the devices that this process has begun to use: only there can anything run."""
    devices = range(torch.cuda.device_count())
    begun = getattr(torch._C, "_cuda_hasPrimaryContext", None)
    return [device for device in devices if begun is None or begun(device)]


@contextmanager
def _device_in_use() -> Iterator[None]:
    """Be on a device that this process has begun to use.

    A thread that has chosen none is on the first, which every rank of a machine would begin to use
    by a call from there, and take hundreds of megabytes of it.
    """
    used = _devices_in_use()
    if not used or torch.cuda.current_device() in used:
        yield
        return
    with torch.cuda.device(used[0]):
        yield


@contextmanager
def _beside_captures() -> Iterator[None]:
    """Ask of streams and events without ending a graph's capture, by this thread or another.

    To ask is among what the driver forbids while a capture is under way; a thread that says that it
    knows what it does may, of what is not captured.
    """
    driver = _libcuda(ctypes.PyDLL)
    if driver is None:
        yield
        return
    mode = ctypes.c_int(_RELAXED)
    driver.cuThreadExchangeStreamCaptureMode(ctypes.byref(mode))  # and has the former one
    try:
        yield
    finally:
        driver.cuThreadExchangeStreamCaptureMode(ctypes.byref(mode))


def _have_passed(events: list[torch.cuda.Event]) -> bool:
    with _beside_captures():
        return all(event.query() for event in events)


def _is_captured(stream: torch.cuda.Stream) -> bool:
    """Return whether a stream's work goes into a graph: nothing runs, and to query it is an error.

    The error would be that of the capture, which ends with it.
    """
    driver = _libcuda()
    status = ctypes.c_int()
    if driver is None:
        return False
    refused = driver.cuStreamIsCapturing(ctypes.c_void_p(stream.cuda_stream), ctypes.byref(status))
    return bool(status.value) or refused == _CAPTURE_IMPLICIT


def _running(streams: list[tuple[torch.cuda.Stream, ctypes.c_void_p]]) -> list[torch.cuda.Stream]:
    """Return those of PyTorch's pool on which something runs.

    There are 128, and a batch of patches is made in the time that PyTorch takes to ask of them:
    the driver itself is asked, without giving the interpreter's lock away each time.
    """
    driver = _libcuda(ctypes.PyDLL)
    if driver is None:
        return [stream for stream, _ in streams if not stream.query()]
    captured, query = driver.cuStreamIsCapturing, driver.cuStreamQuery
    status = ctypes.c_int()
    where, found = ctypes.byref(status), []
    for stream, handle in streams:
        status.value = 0
        refused = captured(handle, where)
        if not status.value and refused != _CAPTURE_IMPLICIT and query(handle):
            found.append(stream)  # not ready, or nobody knows
    return found


def _forget_error() -> None:
    """Take back the error that a refused call has left for the next launch to report."""
    with suppress(RuntimeError):
        torch.ones(1, device="cuda")


@cache
def _libcuda(kind: type[ctypes.CDLL] = ctypes.CDLL) -> ctypes.CDLL | None:
    """Return the driver's library; None where there is none.

    As a `ctypes.PyDLL` it is called without giving the interpreter's lock away: for many calls that
    wait for nothing.
    """
    try:
        return kind("libcuda.so.1")
    except OSError:
        return None


def _address_on_device(address: int) -> int | None:
    """Return where a device sees registered memory; None where that cannot be asked."""
    driver = _libcuda()
    if driver is None:
        return None
    seen = ctypes.c_uint64()
    status = driver.cuMemHostGetDevicePointer_v2(
        ctypes.byref(seen), ctypes.c_void_p(address), ctypes.c_uint(0)
    )
    return None if status else seen.value


_host: CudaHost | None = None


def host_memory() -> HostMemory | None:
    """Return the way to page-locked memory; None where no device would copy from it.

    A child that was forked after CUDA began cannot use it. Devices are counted: to ask whether they
    are available begins CUDA, and processes that are forked later could not.
    """
    global _host
    if not torch.cuda.device_count() or torch.cuda._is_in_bad_fork():
        return None
    if _host is None:
        _host = CudaHost()
    return _host
