"""Who carries out the gathers of a device, and whether that can be trusted.

The kernel is proved on a processor; what a driver and a compiler make of it on the device at hand
is compared with NumPy's once for every kind of gather, in the first batch that needs it. A kernel
that cannot be made, fails or differs is used no more: voxels are copied instead.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from radiobject.geometry.gather import GatherPlan, gather, held_as
from radiobject.lazy import LazyModule

_log = logging.getLogger(__name__)
kernel = LazyModule("radiobject.ml.device.kernel")

_COMPARED = 4
"""Boxes that are compared for each kind of gather."""

Memories = list[NDArray[np.uint8] | torch.Tensor | None]
CarryOut = Callable[[GatherPlan, Memories, Sequence[torch.Tensor]], None]


class Gatherer(Protocol):
    """Carries out plans.

    Attributes
    ----------
    slower : str or None
        Why it carries out none, where that is so.
    """

    slower: str | None

    def __call__(self, plan: GatherPlan, memories: Memories, outs: Sequence[torch.Tensor]) -> bool:
        """Fill the rows that the plan names; False if that cannot be.

        Each of `outs` has shape (rows, *side), and its rows follow those of the one before.
        """
        ...


def gatherer_of(device: torch.device) -> Gatherer:
    """Return what carries out the plans of a device."""
    return ProcessorGatherer() if device.type == "cpu" else CudaGatherer(device)


class ProcessorGatherer:
    """Carries out plans with NumPy; see `radiobject.geometry.gather.gather`."""

    slower: str | None = None

    def __call__(self, plan: GatherPlan, memories: Memories, outs: Sequence[torch.Tensor]) -> bool:
        """Fill the rows that the plan names."""
        gather_on_processor(plan, memories, outs)
        return True


def gather_on_processor(plan: GatherPlan, memories: Memories, outs: Sequence[torch.Tensor]) -> None:
    """Carry out a plan with NumPy, in memory of the processor."""
    empty: NDArray[np.uint8] = np.empty(0, np.uint8)
    arrays = [m.numpy() if isinstance(m, torch.Tensor) else m for m in memories]
    known = [empty if array is None else array for array in arrays]
    if len(outs) == 1:
        gather(plan, known, _plain(outs[0], plan))
        return
    number, row = np.divmod(plan.row, len(outs[0]))
    for which, out in enumerate(outs):
        chosen = np.flatnonzero(number == which)
        gather(plan.some(chosen, row[chosen]), known, _plain(out, plan))


class CudaGatherer:
    """Carries out plans with the kernel, on the current stream, as long as that is right.

    Parameters
    ----------
    device : torch.device
        The CUDA device that gathers.
    carry_out : callable, optional
        In place of the kernel.
    """

    def __init__(self, device: torch.device, carry_out: CarryOut | None = None) -> None:
        self.slower: str | None = None
        self._device = device
        self._proved: set[tuple[object, ...]] = set()
        try:
            self._carry_out = carry_out or _Launch(device)
        except ImportError as error:
            self._give_up(f"Triton is missing, so every batch is copied: {error}")

    def __call__(self, plan: GatherPlan, memories: Memories, outs: Sequence[torch.Tensor]) -> bool:
        """Fill the rows that the plan names; False if this has proved not to work."""
        try:
            self._carry_out(plan, memories, outs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - of Triton, a compiler or a driver: any type
            self._give_up(f"the gather does not run here, so every batch is copied: {error!r:.300}")
            return False
        kind = (*_kind(plan), len(outs) > 1)
        if kind not in self._proved:
            if not _is_right(plan, memories, outs):
                self._give_up(
                    f"the gather of {plan.stored} to {plan.delivered} differs from the processor's "
                    "here, so every batch is copied; please report it"
                )
                return False
            self._proved.add(kind)
        return True

    def _give_up(self, why: str) -> None:
        self.slower = why
        _log.warning("voxels are read by the processor and copied to %s: %s", self._device, why)


def _kind(plan: GatherPlan) -> tuple[object, ...]:
    """Return what decides which kernel is made, and of which memory it reads."""
    memories = int(plan.memory.min()), int(plan.memory.max())
    scaled = bool(plan.scaled.any())
    # Of the sides as much as the compiler knows: whole volumes have as many as there are volumes.
    last, size = plan.side[-1], math.prod(plan.side)
    row = (last - 1).bit_length(), last == 1, last % 16 == 0
    box = size == 1, size % 16 == 0, size >> 31 > 0
    mode = "constant" if plan.is_inside else plan.mode
    return plan.stored.str, plan.delivered, mode, plan.step, row, box, scaled, memories


def _is_right(plan: GatherPlan, memories: Memories, outs: Sequence[torch.Tensor]) -> bool:
    """Compare some boxes that were gathered with NumPy's."""
    _, first = np.unique(plan.memory, return_index=True)
    chosen = np.unique(np.concatenate((first, np.linspace(0, len(plan) - 1, _COMPARED)))).astype(
        int
    )
    volumes: list[NDArray] = []
    base: list[int] = []
    reach = (plan.shape - 1) * plan.stride * plan.stored.itemsize  # of each axis, to either side
    before, after = np.minimum(reach, 0).sum(axis=1), np.maximum(reach, 0).sum(axis=1)
    for number in chosen.tolist():
        memory, voxel = memories[plan.memory[number]], int(plan.base[number])
        begin, end = voxel + int(before[number]), voxel + int(after[number]) + plan.stored.itemsize
        assert memory is not None
        base.append(voxel - begin + sum(len(volume) for volume in volumes))
        part = memory[begin:end]
        volumes.append(part.cpu().numpy() if isinstance(part, torch.Tensor) else part)
    some = replace(
        plan.some(chosen, np.arange(len(chosen))),
        memory=np.zeros(len(chosen), np.int64),
        base=np.array(base, np.int64),
    )
    places = [divmod(row, len(outs[0])) for row in plan.row[chosen].tolist()]
    got = _plain(torch.stack([outs[which][row] for which, row in places]).cpu(), plan)
    want = np.empty(got.shape, held_as(plan.delivered))
    gather(some, [np.concatenate(volumes)], want)
    bits = f"u{want.itemsize}"
    differ = got.view(bits) != want.view(bits)
    if want.dtype.kind == "f" and differ.any():  # a NaN keeps its sign, not its payload
        both = np.isnan(got) & np.isnan(want) & (np.signbit(got) == np.signbit(want))
        differ &= ~both
    return not differ.any()


def _plain(out: torch.Tensor, plan: GatherPlan) -> NDArray:
    """Return a tensor in memory of the processor as the array that NumPy's gather fills."""
    plain = out.view(torch.int16) if out.dtype == torch.bfloat16 else out
    array: NDArray = plain.numpy().view(held_as(plan.delivered))
    return array


class _Launch:
    """Launches the kernel."""

    def __init__(self, device: torch.device) -> None:
        self._launch = kernel.launch
        self._device = device
        self._fills: dict[tuple[str, float], torch.Tensor] = {}

    def __call__(self, plan: GatherPlan, memories: Memories, outs: Sequence[torch.Tensor]) -> None:
        addresses = [_address(memory) for memory in memories]
        table = plan.packed(addresses, [out.data_ptr() for out in outs], len(outs[0]))
        packed = torch.from_numpy(table).pin_memory()
        self._launch(plan, packed.to(self._device, non_blocking=True), self._fill(plan), outs[0])

    def _fill(self, plan: GatherPlan) -> torch.Tensor:
        key = (plan.delivered, 0.0 if plan.pad is None else plan.pad.value)
        if key not in self._fills:
            value = plan.fill
            signed = torch.from_numpy(value.view(f"i{value.dtype.itemsize}"))
            self._fills[key] = signed.to(self._device)
        return self._fills[key]


def _address(memory: NDArray[np.uint8] | torch.Tensor | None) -> int:
    if memory is None:
        return 0
    return memory.data_ptr() if isinstance(memory, torch.Tensor) else int(memory.ctypes.data)
