"""zarr-python 3, one file per 32^3 chunk, zstd 3, its own codecs."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.forms import CHUNK, ZSTD_LEVEL
from benchmarks.rivals.base import BoxLoader


class ZarrPython(BoxLoader):
    """`zarr.open_array`, chunks of the tiles' size, as the citation advises for random reads.

    Second look: with its own codecs, for those who cannot install `zarrs`, which stands beside it.
    """

    name = "zarr"
    label = "zarr-python"
    framework = "zarr"
    storage = "zarr"
    suffix = ".zarr"
    cites = "https://zarr.readthedocs.io/en/stable/user-guide/performance/"
    needs = ("torch", "zarr")
    pipeline = "zarr.core.codec_pipeline.BatchedCodecPipeline"
    sharded = False

    def write(self, voxels: np.ndarray, path: Path) -> None:
        save_zarr(voxels, path, self.sharded)

    def source(self, path: Path) -> Any:
        """Return what zarr opens."""
        return str(path)

    def open_volume(self, path: Path) -> Any:
        import zarr

        # An array keeps the pipeline that was set when it was opened.
        with zarr.config.set({"codec_pipeline.path": self.pipeline}):
            return zarr.open_array(self.source(path), mode="r")


def save_zarr(voxels: np.ndarray, path: Path, sharded: bool = False) -> None:
    """Write one array; sharded, a file holds all its chunks."""
    import zarr
    from zarr.codecs import BloscCodec

    whole = tuple(math.ceil(n / c) * c for n, c in zip(voxels.shape, CHUNK, strict=True))
    shuffle = "shuffle" if voxels.itemsize > 1 else "noshuffle"
    array = zarr.create_array(
        store=str(path),
        shape=voxels.shape,
        dtype=voxels.dtype,
        chunks=CHUNK,
        shards=whole if sharded else None,
        compressors=BloscCodec(cname="zstd", clevel=ZSTD_LEVEL, shuffle=shuffle),
    )
    array[...] = voxels
