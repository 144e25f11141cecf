"""The order in which a device works: beside the training, and ahead of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch


class Queue(Protocol):
    """Where the loader's work on a device is put, a stream of its own."""

    def running(self) -> AbstractContextManager[None]:
        """Put what is started inside the context into the queue."""
        ...

    def mark(self) -> Any:
        """Return what is reached when all that is in the queue now has ended."""
        ...

    def wait(self, mark: Any) -> None:
        """Return when a mark has been reached; the calling thread waits."""
        ...

    def hand_over(self, mark: Any, tensors: Iterable[torch.Tensor]) -> StreamWait | None:
        """Let what the caller's stream does from now on wait for a mark; no processor waits.

        The tensors belong to the caller's stream, too: their memory is not given to another
        before what that stream does with them has ended.

        Returns
        -------
        StreamWait or None
            How long that stream stood still for it, once it has come so far; None where nothing
            can be waited for.
        """
        ...


class StreamWait(Protocol):
    """A wait of a stream, which may be still to come."""

    def seconds(self) -> float | None:
        """Return how long it took; None while the stream has not passed it."""
        ...


_MOST_PENDING = 64
"""Waits that are remembered while the stream has not passed them; further ones are not measured."""


class StreamWaits:
    """How long the consumer's stream stood still for its batches, all together."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._pending: deque[StreamWait] = deque()

    def add(self, wait: StreamWait | None) -> None:
        """Take a wait in, and those that are over."""
        self._settle()
        if wait is not None and len(self._pending) < _MOST_PENDING:
            self._pending.append(wait)

    def clear(self) -> None:
        """Begin anew."""
        self._seconds = 0.0
        self._pending.clear()

    @property
    def seconds(self) -> float:
        """Of the waits that are over."""
        self._settle()
        return self._seconds

    def _settle(self) -> None:
        # A stream passes them in their order.
        while self._pending and (seconds := self._pending[0].seconds()) is not None:
            self._seconds += seconds
            self._pending.popleft()


class NoQueue:
    """A processor's: everything has ended when it returns."""

    def running(self) -> AbstractContextManager[None]:
        """Change nothing."""
        return nullcontext()

    def mark(self) -> None:
        """Return nothing: nothing is under way."""
        return

    def wait(self, mark: Any) -> None:
        """Return at once."""
        return

    def hand_over(self, mark: Any, tensors: Iterable[torch.Tensor]) -> None:
        """Do nothing: nothing is waited for."""
        return


class CudaWait:
    """What lies between two events of a stream.

    Parameters
    ----------
    before, after : torch.cuda.Event
        Recorded with timing.
    """

    def __init__(self, before: torch.cuda.Event, after: torch.cuda.Event) -> None:
        self._before, self._after = before, after

    def seconds(self) -> float | None:
        """Return how long it took; None while the stream has not passed it."""
        return 1e-3 * self._before.elapsed_time(self._after) if self._after.query() else None


class CudaQueue:
    """A stream of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._waited: tuple[torch.cuda.Event | None, int] = None, 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Make the stream the current one."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            yield

    def mark(self) -> torch.cuda.Event:
        """Record an event."""
        event = torch.cuda.Event()
        event.record(self._stream)
        return event

    def wait(self, mark: torch.cuda.Event) -> None:
        """Wait for the event, if it has not passed."""
        if not mark.query():
            mark.synchronize()

    def hand_over(
        self, mark: torch.cuda.Event, tensors: Iterable[torch.Tensor]
    ) -> StreamWait | None:
        """Let the current stream wait for the event, and know it for a user of the tensors."""
        current = torch.cuda.current_stream(self._device.index)
        for tensor in tensors:
            tensor.record_stream(current)
        if self._waited == (mark, current.cuda_stream):  # with another batch of the same launch
            return None
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record(current)
        current.wait_event(mark)
        after.record(current)
        self._waited = mark, current.cuda_stream
        return CudaWait(before, after)
