"""nnU-Net's way: blosc2, memory-mapped, blocks shaped for the patch, zstd 8."""

import math
import os
from pathlib import Path

import numpy as np

from benchmarks.rivals.blosc2 import Blosc2, save_blosc2

# What nnU-Net takes of a core's caches when it shapes its blocks (Isensee et al., 2024).
_L1_BYTES, _L3_BYTES = 0.8 * (32 << 10), 0.8 * (1408 << 10)


class NnunetBlosc2(Blosc2):
    """nnU-Net's own data set class: its block rule, its level, mapped, one thread a worker.

    Second look: the rule, read again in the citation's `comp_blosc2_params`, takes 1,408 KiB for
    the last-level cache and leaves axes alone along which a patch is one voxel thick. It sets one
    thread as its workers share the cores; where there are none, as many as cores share the blocks
    of a chunk, 1.3 times as fast on two.
    """

    name = "nnunet-blosc2"
    label = "nnU-Net's way (blosc2)"
    framework = "nnU-Net"
    storage = "blosc2-nnunet"
    cites = (
        "https://github.com/MIC-DKFZ/nnUNet/blob/master/nnunetv2/training/dataloading/"
        "nnunet_dataset.py"
    )
    history = True

    def threads(self) -> int:
        return 1 if self.task.num_workers else len(os.sched_getaffinity(0))

    def settings(self) -> tuple[object, ...]:
        first = self.task.cohort.subjects[0]
        itemsize = np.dtype(first.dtype).itemsize
        return (self.task.patch_size, nnunet_blocks(first.shape, self.task.patch_size, itemsize))

    def write(self, voxels: np.ndarray, path: Path) -> None:
        blocks, chunks = nnunet_blocks(voxels.shape, self.task.patch_size, voxels.itemsize)
        save_blosc2(voxels, path, chunks, blocks, 8)


def nnunet_blocks(
    shape: tuple[int, ...], patch_size: tuple[int, ...], itemsize: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return (blocks, chunks) by nnU-Net's rule for a patch size.

    A block starts as the patch rounded up to powers of two and is halved along its relatively
    longest axis, of equals the last, until it fits in the first-level cache. A chunk grows by
    blocks until it fills the last-level cache, the volume, or one and a half patches; it does not
    grow where the patch is one voxel thick.
    """
    patch, sides = np.array(patch_size), np.array(shape)
    block = np.array([2 ** math.ceil(math.log2(n)) for n in patch_size])
    while block.prod() * itemsize > _L1_BYTES:
        longest = np.where(block > 1, block / patch, 0)
        axis = len(block) - 1 - int(np.argmax(longest[::-1]))
        block[axis] = min(2 ** int(math.log2(block[axis] - 1)), sides[axis])
    block = np.minimum(block, sides)
    chunk = block.copy()
    while chunk.prod() * itemsize < _L3_BYTES:
        room = (chunk < sides) & (patch > 1)
        if not room.any():
            break
        axis = int(np.argmin(np.where(room, chunk / block, np.inf)))
        grown = chunk.copy()
        grown[axis] = min(grown[axis] + block[axis], sides[axis])
        if (grown / patch).mean() > 1.5:
            break
        chunk = grown
    return tuple(int(n) for n in block), tuple(int(n) for n in chunk)
