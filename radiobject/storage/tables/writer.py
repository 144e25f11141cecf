"""Voxels on their way into the store: every write goes through `write_volume`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

import numpy as np
import tiledb
import tiledb.libtiledb as lt

from radiobject.addresses import is_remote
from radiobject.ctx import WriteConfig, get_radiobject_config
from radiobject.exceptions import ShapeError, StorageError, StoreExistsError
from radiobject.geometry.box import Box
from radiobject.geometry.content import content_box
from radiobject.geometry.tiling import Tiling, extents_for_patch
from radiobject.storage.io import layout, owned, stats
from radiobject.storage.io.libtiledb import writing, writing_ctx
from radiobject.storage.io.tiledb_names import (
    ENUMERATIONS,
    FRAGMENT_METADATA_FOLDER,
    LABELS,
    SCHEMA,
)
from radiobject.storage.read import reader
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.tables.filter_trial import choose_filters
from radiobject.storage.tiles.c_order import c_ordered
from radiobject.storage.tiles.fragment import UnsupportedArrayError
from radiobject.storage.tiles.index_build import build_tile_index
from radiobject.storage.tiles.tile_index import TileIndex

AXES = ("x", "y", "z", "t")


def write_volume(
    uri: str,
    data: np.ndarray,
    *,
    metadata: Mapping[str, str | int | float] | None = None,
    config: WriteConfig | None = None,
    patch_size: Sequence[int] | None = None,
    timestamp: int | None = None,
) -> VolumeLocator:
    """Write one volume as one immutable fragment: one create, one open, one write.

    Tiles of background around the content are not written: the array's fill value is what lies
    there, for every reader of TileDB.

    Parameters
    ----------
    uri : str
        Where the volume's dense array goes; nothing may lie there.
    data : ndarray, shape (X, Y, Z) or (X, Y, Z, T)
        Voxels in stored units, in any memory order. Integers, floats and bool are stored in their
        own type in native byte order; float16 is stored as float32, which holds it exactly.
    metadata : mapping, optional
        Written beside the voxels.
    config : WriteConfig, optional
        Tiles and compression; the process's settings by default.
    patch_size : sequence of int, optional
        Patch that training will read; the tile extents are fitted to it.
    timestamp : int, optional
        Milliseconds since the epoch at which the fragment appears; now by default.

    Returns
    -------
    VolumeLocator
        With the packed tile index, so that a reader needs nothing else.

    Raises
    ------
    StoreExistsError
        If something lies at `uri`.
    ShapeError
        If `data` is not 3-D or 4-D, or has an empty side.
    TypeError
        If the voxels are not real numbers.
    StorageError
        If libtiledb cannot write.
    """
    voxels = storable(data)
    settings = config if config is not None else get_radiobject_config().write
    tiling = Tiling(voxels.shape, tile_extents(voxels.shape, settings, patch_size))
    ctx = writing_ctx(uri)
    filters = choose_filters(voxels, tiling, settings.compression).filters(ctx)
    box, fill = _content(voxels, tiling)
    reader.forget(uri)
    with ExitStack() as undo, writing(uri, voxels.nbytes):
        _create(uri, _schema(voxels.dtype, fill, tiling, filters, ctx), ctx)
        undo.callback(_remove, uri)
        _write(uri, box, c_ordered(voxels[box.slices]), metadata or {}, timestamp, ctx)
        index = _index(uri)
        undo.pop_all()
    _remove_unused_folders(uri)
    stored = voxels.nbytes if index is None else index.file_size
    stats.count(volumes_written=1, bytes_written=stored)
    if is_remote(uri):
        stats.count(remote_writes=1, remote_bytes_written=stored)
    packed = None if index is None else index.pack()
    return VolumeLocator(uri, voxels.shape, voxels.dtype.name, packed)


def _content(voxels: np.ndarray, tiling: Tiling) -> tuple[Box, np.generic | None]:
    """Return the box to write, and the value of all voxels beyond it, None where there are none."""
    whole = Box.whole(voxels.shape)
    background = voxels[whole.start]
    if not np.isfinite(background):
        # A NaN is no constant to the tile index: its minimum and maximum do not show it.
        return whole, None
    box = content_box(voxels, tiling.extents)
    return box, None if box == whole else background


def _create(uri: str, schema: tiledb.ArraySchema, ctx: tiledb.Ctx) -> None:
    try:
        # `tiledb.Array.create` copies the settings of `ctx` first, one by one: 1.4 ms.
        lt.Array._create(ctx, uri, schema)
    except tiledb.TileDBError as error:
        if "already exists" in str(error):
            raise StoreExistsError(f"a volume lies at {uri!r} already; choose another") from error
        _remove(uri)
        raise


def _remove(uri: str) -> None:
    """Take back an array that was created here and could not be filled."""
    with suppress(StorageError):
        owned.remove(uri, owned.ARRAY)


_UNUSED = (LABELS, FRAGMENT_METADATA_FOLDER, f"{SCHEMA}/{ENUMERATIONS}")
"""Folders that libtiledb makes in every array, on a disk alone, and a volume puts nothing in."""


def _remove_unused_folders(uri: str) -> None:
    """Take three of 14 entries of a file system that holds a million volumes."""
    if is_remote(uri):
        return
    for folder in _UNUSED:
        with suppress(OSError):
            os.rmdir(layout.join(uri, folder))


def _index(uri: str) -> TileIndex | None:
    try:
        return build_tile_index(uri)
    except UnsupportedArrayError:
        # A newer libtiledb may write a format that only it can read: then it does the reading.
        return None


def storable(data: np.ndarray) -> np.ndarray:
    """Return `data` in a type that the store has, without copying where it is one already.

    Raises
    ------
    ShapeError
        If it is not 3-D or 4-D, or has an empty side.
    TypeError
        If its values are not real numbers of at most 64 bits.
    """
    voxels = np.asarray(data)
    if voxels.ndim not in (3, 4):
        raise ShapeError(f"Shape must be 3D or 4D, got {voxels.shape}")
    if 0 in voxels.shape:
        raise ShapeError(f"a volume needs at least one voxel per axis, got shape {voxels.shape}")
    if voxels.dtype == np.float16:
        return voxels.astype(np.float32)
    if voxels.dtype.kind not in "buif" or voxels.dtype.itemsize > 8:
        raise TypeError(
            f"voxels must be bool, integers or floats of at most 64 bits, got {voxels.dtype}"
        )
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)


def tile_extents(
    shape: Sequence[int], config: WriteConfig, patch_size: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Return the tile extents for a volume of `shape`, none longer than the volume.

    Explicit settings of the tiles win, then the declared patch size, then cubes of 32.
    """
    if patch_size is not None and config.tile.is_chosen_by_us:
        return extents_for_patch(shape, patch_size)
    extents = config.tile.extents_for_shape(shape)
    return tuple(min(int(e), int(n)) for e, n in zip(extents, shape, strict=True))


def _schema(
    dtype: np.dtype,
    fill: np.generic | None,
    tiling: Tiling,
    filters: tiledb.FilterList,
    ctx: tiledb.Ctx,
) -> tiledb.ArraySchema:
    dimensions = [
        tiledb.Dim(name, domain=(0, side - 1), tile=extent, dtype=np.int32, ctx=ctx)
        for name, side, extent in zip(AXES, tiling.shape, tiling.extents, strict=False)
    ]
    attribute = tiledb.Attr(layout.VOXELS_ATTR, dtype=dtype, fill=fill, filters=filters, ctx=ctx)
    return tiledb.ArraySchema(
        domain=tiledb.Domain(*dimensions, ctx=ctx), attrs=[attribute], ctx=ctx
    )


def _write(
    uri: str,
    box: Box,
    voxels: np.ndarray,
    metadata: Mapping[str, str | int | float],
    timestamp: int | None,
    ctx: tiledb.Ctx,
) -> None:
    with tiledb.open(uri, "w", ctx=ctx, timestamp=timestamp) as array:
        _submit(array, box, voxels, ctx)
        for key, value in metadata.items():
            array.meta[key] = value


def _submit(array: tiledb.Array, box: Box, voxels: np.ndarray, ctx: tiledb.Ctx) -> None:
    """Write the voxels of a box in one query, whose objects die before the array is closed."""
    low_level = lt.Array(ctx, array)
    subarray = lt.Subarray(ctx, low_level)
    for axis, (first, end) in enumerate(zip(box.start, box.stop, strict=True)):
        subarray._add_dim_range(axis, (first, end - 1))
    query = lt.Query(ctx, low_level, lt.QueryType.WRITE)
    query.layout = lt.LayoutType.ROW_MAJOR
    query.set_subarray(subarray)
    flat = voxels.reshape(-1)
    query.set_data_buffer(
        layout.VOXELS_ATTR, flat.view(np.uint8) if flat.dtype == np.bool_ else flat, flat.size
    )
    query._submit()
    query.finalize()
