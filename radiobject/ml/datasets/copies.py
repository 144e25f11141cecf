"""The copies of a batch in one call, in which the interpreter is free for other threads.

NumPy takes the interpreter back after each box. Where several threads read and train, each of
those times one of them waits for another; a batch of small patches then takes longer to hand
over than to copy.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from radiobject.storage.read.convert import copy_each

_BITS: dict[int, np.dtype] = {n: np.dtype(f"i{n}") for n in (1, 2, 4, 8)}
_ALIKE: set[np.dtype] = {np.dtype(stored) for stored in ("i1", "u1", "i2", "i4", "i8")}
"""Types that PyTorch converts to float32 and float64 as NumPy does, by one rounding or none; the
NaNs of float16 lose what else they say, where they are few."""
_FLOATS: set[np.dtype] = {np.dtype(np.float32), np.dtype(np.float64)}


def copy_together(outs: list[np.ndarray], sources: list[np.ndarray]) -> None:
    """Copy arrays, each as `radiobject.storage.read.convert.copy_each` does, in one call.

    Parameters
    ----------
    outs, sources : list of ndarray
        Pairs of one shape.
    """
    threads = _openmp_threads()
    kinds = {(out.dtype, source.dtype) for out, source in zip(outs, sources, strict=True)}
    types = _types_of(*next(iter(kinds))) if len(kinds) == 1 else None
    if threads is None or types is None or len(outs) == 1:
        copy_each(outs, sources)
        return
    to, of = types
    try:
        targets = [torch.from_numpy(out if out.dtype == to else out.view(to)) for out in outs]
        voxels = [torch.from_numpy(s if s.dtype == of else s.view(of)) for s in sources]
    except ValueError:  # axes that run backwards
        copy_each(outs, sources)
        return
    before = torch.get_num_threads()
    threads(1)  # the other processors read other batches
    try:
        torch._foreach_copy_(targets, voxels)
    finally:
        threads(before)


def _types_of(out: np.dtype, source: np.dtype) -> tuple[np.dtype, np.dtype] | None:
    """Return the types as which PyTorch may copy one to the other; None where NumPy is to do it."""
    if out == source:
        bits = _BITS.get(out.itemsize)
        return None if bits is None or out.kind not in "biuf" else (bits, bits)
    return (out, source) if out in _FLOATS and source in _ALIKE else None


@cache
def _openmp_threads() -> Callable[[int], None] | None:
    """Return what sets the threads of PyTorch's OpenMP for the calling thread alone, if it can.

    `torch.set_num_threads` would set them for threads that start later, too.
    """
    try:
        # `PyDLL` keeps the interpreter. Names are looked up in the libraries it depends on, too.
        found = ctypes.PyDLL(torch._C.__file__).omp_set_num_threads
    except (AttributeError, OSError):  # Windows, or a PyTorch of threads of its own
        return None
    found.argtypes, found.restype = [ctypes.c_int], None
    before = torch.get_num_threads()  # this thread's are settled by it
    found(1)
    is_pytorchs = torch.get_num_threads() == 1
    found(before)
    return found if is_pytorchs and before == torch.get_num_threads() else None
