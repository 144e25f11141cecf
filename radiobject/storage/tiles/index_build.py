"""Making a volume's tile index from its array, or refusing to."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace

import numpy as np
import tiledb

from radiobject.addresses import is_remote
from radiobject.exceptions import IntegrityError, StorageError, StoreNotFoundError
from radiobject.geometry.box import Box
from radiobject.geometry.tiling import Tiling, tiles_covering
from radiobject.storage.io import libtiledb, stats
from radiobject.storage.io import tiledb_names as tdb
from radiobject.storage.io.array_files import ArrayFiles, open_files
from radiobject.storage.io.checksum import crc32
from radiobject.storage.io.layout import VOLUMES, base_name
from radiobject.storage.io.layout import parent as parent_of
from radiobject.storage.tiles.decode import CHUNK_BYTES, COMPRESSIONS, MAX_TILE_BYTES
from radiobject.storage.tiles.fragment import (
    MAX_METADATA_BYTES,
    FragmentTiles,
    UnsupportedArrayError,
    parse,
)
from radiobject.storage.tiles.tile_index import MAX_TILES, TileIndex, constant_sums
from radiobject.storage.tiles.voxel_check import inside_tile, matches_statistics, usable_sum

_FILTER_NAMES = {
    "ByteShuffleFilter": "byteshuffle",
    "ZstdFilter": "zstd",
    "LZ4Filter": "lz4",
    "GzipFilter": "gzip",
}
_ORDERS = {"row-major": "C", "col-major": "F"}


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the schema says of every tile, and of voxels that no tile holds."""

    tiling: Tiling
    dtype: np.dtype
    cell_order: str
    filters: tuple[str, ...]
    fill: np.generic


def build_tile_index(uri: str) -> TileIndex:
    """Make the tile index of the volume at `uri` from the fragment's own metadata.

    Filters, type and orders come from the array's schema, never from a guess. With the tile file
    on a local disk, one tile is decoded and compared with its stored minimum, maximum and sum,
    and every tile gets a checksum.

    Raises
    ------
    StoreNotFoundError
        If nothing lies at `uri`.
    UnsupportedArrayError
        If the array is not a dense one with one committed, unencrypted fragment of whole tiles, of
        a known version and known filters; libtiledb can still read it.
    IntegrityError
        If it is such an array, but its bytes contradict its metadata.
    """
    if sys.byteorder != "little":
        raise UnsupportedArrayError("tiles are decoded only on little-endian machines")
    files = open_files(uri)
    names = files.names()
    if not any(tdb.is_in(name, tdb.SCHEMA) for name in names):
        raise StoreNotFoundError(f"no volume lies at {uri!r}")
    fragment = _only_fragment(uri, names)
    layout = _understand(uri, _schema(uri))
    metadata = files.read(f"{fragment}/{tdb.FRAGMENT_METADATA}", MAX_METADATA_BYTES)
    tiles = parse(metadata, ndim=len(layout.tiling.shape), dtype=layout.dtype)
    if f"{tdb.SCHEMA}/{tiles.schema_name}" not in names:
        raise UnsupportedArrayError(f"the fragment of {uri!r} was written with another schema")
    index = _assemble(uri, f"{fragment}/{tdb.FIRST_ATTRIBUTE}", layout, tiles)
    stats.count(index_builds=1)
    return _verified(uri, index, files) if not is_remote(uri) else index


def _only_fragment(uri: str, names: set[str]) -> str:
    """Return the folder of the one fragment that is committed, and that nothing amends."""
    commits = {n for n in names if tdb.is_in(n, tdb.COMMITS)}
    folders = {"/".join(n.split("/")[:2]) for n in names if tdb.is_in(n, tdb.FRAGMENTS)}
    schemas = {n for n in names if tdb.is_in(n, tdb.SCHEMA) and n.count("/") == 1}
    others = {n for n in names if tdb.is_in(n, tdb.LABELS, tdb.FRAGMENT_METADATA_FOLDER)}
    if not (folders and commits) and base_name(parent_of(uri)) == VOLUMES:
        raise IntegrityError(
            f"volume at {uri!r} has lost its voxels: its array is there and holds no fragment; "
            "restore its folder from a copy"
        )
    if len(folders) != 1 or len(commits) != 1 or len(schemas) != 1 or others:
        raise UnsupportedArrayError(
            f"{uri!r} has {len(folders)} fragments, {len(commits)} commits and {len(schemas)} "
            "schemas, expected one each"
        )
    folder = folders.pop()
    if commits.pop() != f"{tdb.COMMITS}/{folder.partition('/')[2]}{tdb.WRITTEN}":
        raise UnsupportedArrayError(f"the fragment of {uri!r} is not committed by itself")
    first, last = folder.partition("/__")[2].split("_")[:2]
    if first != last:
        # Consolidation counts the fill beyond the volume's border in minimum, maximum and sum.
        raise UnsupportedArrayError(f"the fragment of {uri!r} was made by consolidation")
    return folder


def _schema(uri: str) -> tiledb.ArraySchema:
    ctx = libtiledb.session(remote=is_remote(uri)).ctx
    try:
        return tiledb.ArraySchema.load(uri, ctx=ctx)
    except (tiledb.TileDBError, UnicodeDecodeError) as error:
        raise StorageError(f"schema of {uri!r} cannot be read: {error}") from error


def _understand(uri: str, schema: tiledb.ArraySchema) -> _Layout:
    domain = schema.domain
    dims = [domain.dim(i) for i in range(schema.ndim)]
    bounds = [dim.domain for dim in dims]
    attribute, orders = schema.attr(0), (schema.tile_order, schema.cell_order)
    dtype, chain = attribute.dtype, attribute.filters
    kinds = [type(f).__name__ for f in chain]
    filters = tuple(_FILTER_NAMES.get(kind, kind) for kind in kinds)
    problems = [
        (schema.sparse or schema.nattr != 1, "is not a dense array with one attribute"),
        (len(dims) not in (3, 4), f"has {len(dims)} axes"),
        (any(dim.dtype != np.int32 for dim in dims), "has unusual coordinates"),
        (any(first != 0 for first, _ in bounds), "has unusual coordinates"),
        (attribute.isvar or attribute.ncells != 1 or attribute.isnullable, "has unusual cells"),
        (attribute.enum_label is not None, "has an enumeration"),
        (dtype.kind not in "buif", f"holds {dtype}"),
        (not _known_filters(filters), f"has filters {kinds}"),
        (chain.chunksize != CHUNK_BYTES, "is filtered in unusual chunks"),
        (not set(orders) <= set(_ORDERS), "has unusual orders"),
    ]
    for wrong, what in problems:
        if wrong:
            raise UnsupportedArrayError(f"{uri!r} {what}")
    tile_order, cell_order = (_ORDERS[order] for order in orders)
    extents = tuple(int(dim.tile) for dim in dims)
    if math.prod(extents) * dtype.itemsize > MAX_TILE_BYTES:
        raise UnsupportedArrayError(f"{uri!r} has tiles of more than {MAX_TILE_BYTES:,} bytes")
    tiling = Tiling(tuple(int(last) + 1 for _, last in bounds), extents, tile_order)
    if tiling.count > MAX_TILES:
        raise UnsupportedArrayError(f"{uri!r} has {tiling.count:,} tiles, more than {MAX_TILES:,}")
    return _Layout(tiling, dtype, cell_order, filters, attribute.fill[0])


def _known_filters(filters: tuple[str, ...]) -> bool:
    compressions = filters[1:] if filters[:1] == ("byteshuffle",) else filters
    return len(compressions) <= 1 and set(compressions) <= set(COMPRESSIONS)


def _assemble(uri: str, path: str, layout: _Layout, tiles: FragmentTiles) -> TileIndex:
    tiling, dtype = layout.tiling, layout.dtype
    written = _written(uri, tiling, tiles)
    if len(written) < tiling.count and not np.isfinite(layout.fill):
        raise UnsupportedArrayError(f"voxels of {uri!r} that were not written are {layout.fill}")
    stored = np.append(tiles.offsets, np.uint64(tiles.file_size)).astype(np.int64)
    lengths = np.diff(stored)
    if (lengths <= 0).any():
        raise IntegrityError(f"tile offsets of {uri!r} are not in order")
    if lengths.max() >= 1 << 32:
        raise UnsupportedArrayError(f"{uri!r} has a tile of more than 4 GiB")
    # A tile that was not written has no bytes, and the fill value everywhere.
    offsets = np.zeros(tiling.count + 1, np.int64)
    offsets[1:][written] = lengths
    minimum = np.full(tiling.count, layout.fill, dtype)
    minimum[written] = tiles.minimum
    maximum = minimum.copy()
    maximum[written] = tiles.maximum
    total = constant_sums(tiling, minimum)
    total[written] = tiles.total
    constant = np.ones(tiling.count, bool)
    constant[written] = _constant(tiles)
    return TileIndex(
        tiling,
        dtype.name,
        layout.cell_order,
        layout.filters,
        path,
        stored[0] + np.cumsum(offsets),
        minimum,
        maximum,
        total,
        constant,
    )


def _written(uri: str, tiling: Tiling, tiles: FragmentTiles) -> np.ndarray:
    """Return the numbers of the tiles that the fragment holds, in its order.

    Raises
    ------
    UnsupportedArrayError
        If it holds a part of a tile, or does not lie in the volume.
    """
    ends = tiles.domain.tolist()
    if any(not 0 <= a <= b < n for (a, b), n in zip(ends, tiling.shape, strict=True)):
        raise UnsupportedArrayError(f"the fragment of {uri!r} covers {ends} of {tiling.shape}")
    box = Box(tuple(a for a, _ in ends), tuple(b + 1 for _, b in ends))
    grid = tiles_covering(box, tiling.extents)
    low = tiling.box([part.start for part in grid])
    high = tiling.box([part.stop - 1 for part in grid])
    numbers = tiling.numbers()[grid].ravel(order=tiling.order)  # type: ignore[arg-type]
    if (low.start, high.stop) != (box.start, box.stop) or len(numbers) != len(tiles.offsets):
        raise UnsupportedArrayError(f"the fragment of {uri!r} holds parts of tiles: {box}")
    return numbers


def _constant(tiles: FragmentTiles) -> np.ndarray:
    """Return which tiles have one value for certain.

    Minimum and maximum ignore NaN, which the sum shows; and they do not tell 0.0 from -0.0, so
    tiles of floating-point zeros count as varied until they were seen.
    """
    constant = tiles.minimum == tiles.maximum
    if tiles.minimum.dtype.kind == "f":
        constant &= usable_sum(tiles.total) & (tiles.minimum != 0)
    return constant


def _verified(uri: str, index: TileIndex, files: ArrayFiles) -> TileIndex:
    """Return `index` with checksums, after looking at the tiles themselves."""
    content = files.map(index.path)
    if len(content) != index.file_size:
        raise IntegrityError(
            f"tile file of {uri!r} has {len(content)} bytes, expected {index.file_size}"
        )
    constant = index.constant.copy()
    checksums = np.zeros(len(constant), np.uint32)
    checked = False
    for number in np.flatnonzero(~index.constant):
        stored = content[int(index.offsets[number]) : int(index.offsets[number + 1])]
        zero = index.minimum.dtype.kind == "f" and index.minimum[number] == index.maximum[number]
        if zero or not checked:
            voxels = inside_tile(index, int(number), stored, repr(uri))
            if not matches_statistics(index, int(number), voxels):
                raise IntegrityError(
                    f"tile {number} of {uri!r} contradicts its stored minimum, maximum or sum"
                )
            constant[number] = zero and _bits_equal(voxels, index.minimum[number])
            checked = True
        checksums[number] = 0 if constant[number] else crc32(stored)
    return replace(index, constant=constant, checksums=checksums)


def _bits_equal(voxels: np.ndarray, value: np.generic) -> bool:
    return voxels.tobytes() == np.full(voxels.shape, value).tobytes()
