"""Delivery as bfloat16, which NumPy and so the readers do not know: float32, rounded once more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

_QUIET_NAN = 0x7FC0


def narrowed(voxels: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return float32 as bfloat16, rounded to the nearest and halfway to even, in `out` if given.

    A NaN becomes the quiet NaN of its sign: PyTorch's own differs between processors and devices.
    """
    if out is None:
        out = torch.empty(voxels.shape, dtype=torch.bfloat16, device=voxels.device)
    out.copy_(voxels, non_blocking=True)
    sign = torch.signbit(voxels).to(torch.int16) * -0x8000
    nan = torch.where(torch.isnan(voxels), sign | _QUIET_NAN, out.view(torch.int16))
    out.view(torch.int16).copy_(nan)
    return out


def with_narrowed(
    arrays: dict[str, Any],
    names: Iterable[str],
    memory: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> dict[str, Any]:
    """Return a sample or batch with the named arrays as bfloat16, where they are float32.

    Parameters
    ----------
    arrays : dict
        Tensors of a batch by name; the result has the narrowed ones in their place.
    names : iterable of str
        Which of them are delivered as bfloat16.
    memory : callable, optional
        Takes an array, returns the bfloat16 tensor of its shape to put it into.
    """
    done = dict(arrays)
    for name in names:
        value = arrays.get(name)
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            done[name] = narrowed(value, None if memory is None else memory(value))
    return done
