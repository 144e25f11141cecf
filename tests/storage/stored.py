"""Arrays written straight through TileDB, as the oracle of the tests of direct reading."""

import numpy as np
import tiledb

DTYPES = (
    "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float32 float64".split()  # noqa: SIM905
)
FILTERS = {
    "none": [],
    "zstd": [tiledb.ZstdFilter(3)],
    "lz4": [tiledb.LZ4Filter()],
    "gzip": [tiledb.GzipFilter(4)],
    "shuffle": [tiledb.ByteShuffleFilter()],
    "shuffle-zstd": [tiledb.ByteShuffleFilter(), tiledb.ZstdFilter(3)],
    "shuffle-lz4": [tiledb.ByteShuffleFilter(), tiledb.LZ4Filter()],
    "shuffle-gzip": [tiledb.ByteShuffleFilter(), tiledb.GzipFilter(4)],
}


def coded(shape, dtype="int32"):
    """A volume of which every voxel tells its own position, with a background and constant areas.

    The low corner is background; the rest is the C-order position, wrapped to the type's range.
    """
    values = np.arange(np.prod(shape), dtype=np.int64).reshape(shape) % 60013
    dtype = np.dtype(dtype)
    values = values / 7 - 3 if dtype.kind == "f" else values
    data = values.astype(np.float64 if dtype.kind == "f" else np.int64).astype(dtype)
    data[tuple(slice(0, n // 2) for n in shape)] = 0
    data[tuple(slice(n - n // 3, None) for n in shape)] = 1
    return data


def create(uri, shape, dtype, extents, filters=(), *, cell_order="C", tile_order="C", axes="xyzt"):
    """Create an empty dense array."""
    names = {"C": "row-major", "F": "col-major"}
    dims = [
        tiledb.Dim(name, domain=(0, n - 1), tile=e, dtype=np.int32)
        for name, n, e in zip(axes, shape, extents, strict=False)
    ]
    attr = tiledb.Attr("voxels", dtype=np.dtype(dtype), filters=tiledb.FilterList(list(filters)))
    schema = tiledb.ArraySchema(
        domain=tiledb.Domain(*dims),
        attrs=[attr],
        cell_order=names[cell_order],
        tile_order=names[tile_order],
    )
    tiledb.Array.create(uri, schema)


def write(uri, data, extents, filters=(), **orders):
    """Create a dense array and write all of `data` into it; return the URI."""
    create(uri, data.shape, data.dtype, extents, filters, **orders)
    with tiledb.open(uri, "w") as array:
        array[...] = data
    return uri
