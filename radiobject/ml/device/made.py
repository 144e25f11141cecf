"""A batch on its way to a device, and what its making needs and refuses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from radiobject.exceptions import RadiObjectError
from radiobject.ml.datasets.narrow import narrowed
from radiobject.ml.datasets.plan import SamplePlan

_SHARE = 256
"""Of a device's memory, the part that batches which one launch makes may take: one in so many."""
_BYTES = 128 << 20
"""The same where the device is the processor."""


@cache
def bytes_together(device: torch.device) -> int:
    """Return how much memory batches may take that one launch makes; larger ones gain nothing."""
    if device.type == "cpu":
        return _BYTES
    return int(torch.cuda.get_device_properties(device).total_memory) // _SHARE


class DeviceMemoryError(RadiObjectError, torch.OutOfMemoryError):
    """The device has no room for one batch."""


class Staging(Protocol):
    """Host memory for copies: `radiobject.ml.loaders.buffers.PrivateBuffers`."""

    def batch(self, layout: dict[str, tuple[tuple[int, ...], np.dtype]]) -> dict[str, torch.Tensor]:
        """Return tensors of the given shapes and types."""
        ...

    def take(self, nbytes: int) -> torch.Tensor:
        """Return bytes, not reused while anything of them lives or is being copied."""
        ...


class Check(Protocol):
    """Says, when it is known, whether what a batch was made of is right."""

    def is_right(self) -> bool:
        """Return it, and wait for it if need be."""
        ...


class OnDevice:
    """A batch that a queue is making, and the mark after which it is there.

    Parameters
    ----------
    batch : dict, optional
        None where the device had no room for it beside others; it is made when its turn comes.
    mark : object
        What the consumer waits for, on its stream, before it uses the batch.
    plan : SamplePlan, optional
        What it is made from, where it can be made again.
    check : Check, optional
        To be asked before the batch is handed over; one that is not right is made again.
    """

    def __init__(
        self,
        batch: dict[str, Any] | None,
        mark: Any,
        plan: SamplePlan | None = None,
        check: Check | None = None,
    ) -> None:
        self.batch, self.mark, self.plan = batch, mark, plan
        self._check = check

    def is_wrong(self) -> bool:
        """Return whether the batch is not to be used; waits until that is known."""
        return self._check is not None and not self._check.is_right()


def tensors_on(device: torch.device, batch: dict[str, Any]) -> list[torch.Tensor]:
    """Return what a batch holds that lies on a device, by name in it or in what is held by name."""
    found = []
    for value in batch.values():
        if isinstance(value, dict):
            found += tensors_on(device, value)
        elif isinstance(value, torch.Tensor) and value.device == device:
            found.append(value)
    return found


def copy_rows(host: torch.Tensor, out: torch.Tensor, rows: NDArray[np.int64]) -> None:
    """Copy rows, those that follow each other at once."""
    rows = np.sort(rows)
    for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
        first, last = int(run[0]), int(run[-1]) + 1
        part = host[first:last]
        if out.dtype != host.dtype:
            part = narrowed(part.to(out.device, non_blocking=True))
        out[first:last].copy_(part, non_blocking=True)


def rows_of(number: int, each: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of the rows of several batches that lie in one of them, counted there."""
    return rows[rows // each == number] - number * each


@contextmanager
def room_for(nbytes: int, device: torch.device) -> Iterator[None]:
    """Say what to do where a device has no room for a batch.

    Raises
    ------
    DeviceMemoryError
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        why = str(error).splitlines()[0] if str(error) else "out of memory"
        raise DeviceMemoryError(
            f"{why} -- a batch of {nbytes / (1 << 20):.0f} MiB has no room on {device}: "
            "choose a smaller batch_size or patch_size, or leave device out"
        ) from None


def moved(batch: dict[str, Any], names: Iterable[str], device: torch.device) -> dict[str, Any]:
    """Return a batch of which the named tensors, and those in named dicts, are copied there."""
    there = dict(batch)
    for name in names:
        value = batch.get(name)
        if isinstance(value, torch.Tensor):
            there[name] = value.to(device, non_blocking=True)
        elif isinstance(value, dict):
            there[name] = moved(value, value, device)
    return there
