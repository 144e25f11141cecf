"""HDF5 through h5py: 32^3 chunks, LZF, with its chunk cache."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.boxes import Box, slices
from benchmarks.data.forms import CHUNK
from benchmarks.rivals.base import BoxLoader

_MANY_SLOTS = 100_003  # a prime far above the chunks of a volume, as the citation asks


class H5py(BoxLoader):
    """A file a volume; the chunk cache shares what the task allows, and reads fill the batch.

    Second look: `rdcc_nbytes` is 1 MiB by default, less than 16 chunks;
    `read_direct` spares the copy that indexing makes.
    """

    name = "h5py"
    label = "h5py (chunk cache)"
    framework = "h5py"
    storage = "hdf5"
    suffix = ".h5"
    cites = "https://docs.h5py.org/en/stable/high/file.html#chunk-cache"
    history = True
    needs = ("torch", "h5py")
    holds = limits = True

    def write(self, voxels: np.ndarray, path: Path) -> None:
        import h5py

        chunk = tuple(map(min, CHUNK, voxels.shape))
        with h5py.File(path, "w") as file:
            file.create_dataset(
                "voxels", data=voxels, chunks=chunk, shuffle=True, compression="lzf"
            )

    def open_volume(self, path: Path) -> Any:
        import h5py

        each = self.task.cache_bytes // len(self.task.cohort.subjects)
        # Chunks at the edges are decoded whole: all of them take more than the volume does.
        each = 2 * each if self.task.cache_share >= 1 else each
        return h5py.File(path, "r", rdcc_nbytes=each, rdcc_nslots=_MANY_SLOTS)["voxels"]

    def read(self, boxes: Sequence[Box], out: np.ndarray) -> None:
        for target, (volume, start) in zip(out, boxes, strict=True):
            self.opened[volume].read_direct(target[0], slices(start, target.shape[1:]))
