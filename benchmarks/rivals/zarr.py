"""zarr-python 3, one file per 32^3 chunk, zstd 3, its own codecs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.data.cohort import Subject
from benchmarks.data.forms import CHUNK, ZSTD_LEVEL
from benchmarks.rivals.base import BoxLoader


class ZarrPython(BoxLoader):
    """`zarr.open_array`, chunks of the tiles' size, as the citation advises for random reads."""

    name = "zarr"
    label = "zarr-python"
    framework = "zarr"
    storage = "zarr"
    suffix = ".zarr"
    cites = "https://zarr.readthedocs.io/en/stable/user-guide/performance/"
    needs = ("torch", "zarr")
    pipeline: ClassVar[str] = "zarr.core.codec_pipeline.BatchedCodecPipeline"

    def write(self, voxels: np.ndarray, subject: Subject, path: Path) -> None:
        save_zarr(voxels, path, None)

    def source(self, path: Path) -> Any:
        """Return what zarr opens."""
        return str(path)

    def volumes(self) -> list[Any]:
        import zarr

        # An array keeps the pipeline that was set when it was opened.
        with zarr.config.set({"codec_pipeline.path": self.pipeline}):
            return [zarr.open_array(self.source(path), mode="r") for path in self.files()]


def save_zarr(voxels: np.ndarray, path: Path, shards: tuple[int, ...] | None) -> None:
    """Write one array."""
    import zarr
    from zarr.codecs import BloscCodec

    shuffle = "shuffle" if voxels.itemsize > 1 else "noshuffle"
    array = zarr.create_array(
        store=str(path),
        shape=voxels.shape,
        dtype=voxels.dtype,
        chunks=CHUNK,
        shards=shards,
        compressors=BloscCodec(cname="zstd", clevel=ZSTD_LEVEL, shuffle=shuffle),
    )
    array[...] = voxels


def whole(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shard that holds a volume."""
    return tuple(math.ceil(n / c) * c for n, c in zip(shape, CHUNK, strict=True))
