"""Choosing the filters of a volume from its own voxels."""

from __future__ import annotations

from dataclasses import dataclass

import lz4.block
import numpy as np
import tiledb
import zstandard

from radiobject.ctx import CompressionConfig, Compressor, WriteProfile
from radiobject.geometry.tiling import Tiling

_SAMPLES = 4
_ZSTD_LEVEL = {WriteProfile.SMALL: 9, WriteProfile.BALANCED: 3}


@dataclass(frozen=True, slots=True)
class FilterChoice:
    """Filters to write with.

    Attributes
    ----------
    shuffle : bool
        Whether the bytes of the voxels are grouped by significance before compression.
    config : CompressionConfig
        The compression itself.
    """

    shuffle: bool
    config: CompressionConfig

    def filters(self, ctx: tiledb.Ctx) -> tiledb.FilterList:
        """Return them as TileDB's.

        Everything is made in `ctx`: TileDB warns about every later fork of a process that has
        used its default context.
        """
        kinds = {"zstd": tiledb.ZstdFilter, "lz4": tiledb.LZ4Filter, "gzip": tiledb.GzipFilter}
        chain = [tiledb.ByteShuffleFilter(ctx=ctx)] if self.shuffle else []
        algorithm, level = self.config.resolved()
        kind = kinds.get(algorithm.value)
        if kind is not None:
            chain.append(kind(level=level, ctx=ctx))
        return tiledb.FilterList(chain, ctx=ctx)


def choose_filters(voxels: np.ndarray, tiling: Tiling, config: CompressionConfig) -> FilterChoice:
    """Return the filters to write `voxels` with.

    An explicit algorithm or level is used as it is. Otherwise the profile decides: "small" and
    "balanced" compress with zstd, "fast" with LZ4. Integers of several bytes are shuffled before
    zstd and not before LZ4, which then decodes a third faster; single bytes are never shuffled.
    Floats are shuffled if that makes some tiles of the volume itself smaller: it helps measured
    values, and hurts integers that were only rescaled.
    """
    if not config.is_chosen_by_us:
        return FilterChoice(False, config)
    fast = config.profile is WriteProfile.FAST
    algorithm, level = (
        (Compressor.LZ4, 1) if fast else (Compressor.ZSTD, _ZSTD_LEVEL[config.profile])
    )
    chosen = CompressionConfig(algorithm=algorithm, level=level, profile=config.profile)
    if voxels.dtype.itemsize == 1:
        return FilterChoice(False, chosen)
    if voxels.dtype.kind in "iu":
        return FilterChoice(not fast, chosen)
    plain = shuffled = 0
    for tile in _samples(voxels, tiling):
        plain += _size(tile.tobytes(), fast, level)
        shuffled += _size(_shuffled(tile), fast, level)
    return FilterChoice(shuffled < plain, chosen)


def _samples(voxels: np.ndarray, tiling: Tiling) -> list[np.ndarray]:
    """Return some tiles along the volume's diagonal, where its content is likely to be."""
    tiles = []
    for i in range(_SAMPLES):
        position = [g * (2 * i + 1) // (2 * _SAMPLES) for g in tiling.grid]
        tiles.append(np.ascontiguousarray(voxels[tiling.box(position).slices]))
    return tiles


def _shuffled(tile: np.ndarray) -> bytes:
    planes = tile.reshape(-1).view(np.uint8).reshape(-1, tile.dtype.itemsize)
    return planes.T.tobytes()


def _size(content: bytes, fast: bool, level: int) -> int:
    if fast:
        return len(lz4.block.compress(content))
    return len(zstandard.ZstdCompressor(level=level).compress(content))
