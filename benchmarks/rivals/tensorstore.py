"""tensorstore over zarr 3, the reads of a batch in flight together, written into the batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.boxes import Box, slices
from benchmarks.rivals.base import BoxLoader
from benchmarks.rivals.zarr import save_zarr


class Tensorstore(BoxLoader):
    """Nothing decoded is kept; each box is copied straight to its place in the batch.

    Second look: the citation's array views the batch without a copy, so that
    a read is one write of the chunks into it, a quarter faster than ``read().result()``.
    """

    name = "tensorstore"
    label = "tensorstore"
    framework = "tensorstore"
    storage = "zarr"
    suffix = ".zarr"
    cites = "https://google.github.io/tensorstore/python/api/tensorstore.array.html"
    needs = ("torch", "tensorstore", "zarr")

    def write(self, voxels: np.ndarray, path: Path) -> None:
        save_zarr(voxels, path)

    def pool_bytes(self) -> int:
        """Return the limit of tensorstore's cache of decoded chunks."""
        return 0

    def kvstore(self, path: Path) -> dict[str, Any]:
        """Return where tensorstore finds an array."""
        return {"driver": "file", "path": str(path)}

    def volumes(self) -> list[Any]:
        import tensorstore as ts

        context = ts.Context({"cache_pool": {"total_bytes_limit": self.pool_bytes()}})
        opened = [
            ts.open(
                {"driver": "zarr3", "kvstore": self.kvstore(path)},
                open=True,
                read=True,
                context=context,
                recheck_cached_data="open",
            )
            for path in self.files()
        ]
        return [future.result() for future in opened]

    def read(self, boxes: Sequence[Box], out: np.ndarray) -> None:
        import tensorstore as ts

        pending = []
        for target, (volume, start) in zip(out, boxes, strict=True):
            box = self.opened[volume][slices(start, target.shape[1:])]
            place = ts.array(target[0], copy=False, write=True)
            pending.append(place.write(box[ts.d[:].translate_to[0]]))
        for written in pending:
            written.result()
