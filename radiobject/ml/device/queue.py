"""The order in which a device works: beside the training, and ahead of it."""

from __future__ import annotations

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

    def hand_over(self, mark: Any, tensors: Iterable[torch.Tensor]) -> None:
        """Let what the caller's stream does from now on wait for a mark; no processor waits.

        The tensors belong to the caller's stream, too: their memory is not given to another
        before what that stream does with them has ended.
        """
        ...


class NoQueue:
    """A processor's: everything has ended when it returns."""

    def running(self) -> AbstractContextManager[None]:
        """Change nothing."""
        return nullcontext()

    def mark(self) -> None:
        """Return nothing: nothing is under way."""
        return

    def hand_over(self, mark: Any, tensors: Iterable[torch.Tensor]) -> None:
        """Do nothing."""


class CudaQueue:
    """A stream of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

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

    def hand_over(self, mark: torch.cuda.Event, tensors: Iterable[torch.Tensor]) -> None:
        """Let the current stream wait for the event, and know it for a user of the tensors."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(mark)
        for tensor in tensors:
            tensor.record_stream(current)
