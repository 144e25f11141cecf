"""Voxels in the order that tiles are cut in."""

from __future__ import annotations

import numpy as np

from radiobject.geometry.blocked_copy import copy_in_blocks
from radiobject.system.huge_pages import private_memory


def c_ordered(voxels: np.ndarray) -> np.ndarray:
    """Return `voxels` in C order, without a copy if they are in it already.

    Parameters
    ----------
    voxels : ndarray, 3-D or 4-D, any strides
    """
    if voxels.flags.c_contiguous:
        return voxels
    memory = private_memory(voxels.nbytes)
    out = np.frombuffer(memory, voxels.dtype, voxels.size).reshape(voxels.shape)
    first, *others = map(abs, voxels.strides)
    if first > min(others):
        # Neighbours lie along another axis than the first: NumPy copies that as fast as can be.
        out[...] = voxels
    else:
        copy_in_blocks(voxels, out)
    return out
