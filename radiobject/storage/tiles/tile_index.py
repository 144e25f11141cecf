"""The tile index of a volume: all that is needed to fetch and decode its tiles directly."""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np
import zstandard

from radiobject.exceptions import IntegrityError
from radiobject.geometry.tiling import Tiling
from radiobject.storage.io import tiledb_names as tdb
from radiobject.storage.tiles.decode import COMPRESSIONS, MAX_TILE_BYTES, TileDecoder

PACKED_VERSION = 1
MAX_TILES = 1 << 24
_MAGIC = b"ROTI"
_HEAD = struct.Struct("<4sHxxII")
_HEADER_SIZE = struct.Struct("<I")
_DTYPES = frozenset(
    ["bool", "float32", "float64"] + [f"{sign}int{8 << i}" for sign in ("", "u") for i in range(4)]
)
_FILTERS = frozenset(
    [()]
    + [(c,) for c in COMPRESSIONS]
    + [("byteshuffle",)]
    + [("byteshuffle", c) for c in COMPRESSIONS]
)


@dataclass(frozen=True)
class TileIndex:
    """Where the tiles of a volume lie in its one tile file, how to decode them, what they hold.

    Parameters
    ----------
    tiling : Tiling
        Shape of the volume, extents of a tile, and the order in which tiles are numbered.
    dtype : str
        NumPy name of the stored type.
    cell_order : {"C", "F"}
        Order of the voxels within a tile.
    filters : tuple of str
        Applied when the tile was written, in that order; see `decode.decode_tile`.
    path : str
        The tile file, relative to the array.
    offsets : ndarray of int64, shape (n + 1,)
        Where each tile starts in the file; the last entry is the file's size.
    minimum, maximum : ndarray of the stored type, shape (n,)
        Over the voxels of the tile that lie in the volume, NaN left out.
    total : ndarray of int64, uint64 or float64, shape (n,)
        Their sum.
    constant : ndarray of bool, shape (n,)
        Tiles whose voxels all have the bits of `minimum`: they are never fetched.
    checksums : ndarray of uint32, shape (n,), optional
        CRC-32 of each stored tile; those of constant tiles are 0 and unused. None for volumes
        whose tile file was not at hand when the index was made.
    """

    tiling: Tiling
    dtype: str
    cell_order: str
    filters: tuple[str, ...]
    path: str
    offsets: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    total: np.ndarray
    constant: np.ndarray
    checksums: np.ndarray | None = None

    # What every read needs, made at once: `functools.cached_property` takes a lock of the whole
    # process, and a child forked while another thread holds it waits for ever.
    numpy_dtype: np.dtype = field(init=False, repr=False)
    decoder: TileDecoder = field(init=False, repr=False)
    offset_list: list[int] = field(init=False, repr=False)
    checksum_list: list[int] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        extents = self.tiling.extents
        dtype = np.dtype(self.dtype)
        made = {
            "numpy_dtype": dtype,
            "decoder": TileDecoder(self.filters, dtype, extents, self.cell_order),
            # Python integers are faster to take one by one.
            "offset_list": self.offsets.tolist(),
            "checksum_list": None if self.checksums is None else self.checksums.tolist(),
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)

    @property
    def file_size(self) -> int:
        """Bytes of the tile file."""
        return self.offset_list[-1]

    @property
    def tile_bytes(self) -> int:
        """Decoded bytes of a whole tile."""
        return self.decoder.tile_bytes

    def pack(self) -> bytes:
        """Return the index as bytes: versioned, checked, without pickle, about 3 KB a volume.

        What follows from the other fields (maximum and sum of a constant tile) is left out.
        """
        header = {
            "shape": self.tiling.shape,
            "extents": self.tiling.extents,
            "tile_order": self.tiling.order,
            "cell_order": self.cell_order,
            "dtype": self.dtype,
            "filters": self.filters,
            "path": self.path,
            "first": int(self.offsets[0]),
            "varied": int(np.count_nonzero(~self.constant)),
            "checksums": self.checksums is not None,
        }
        text = json.dumps(header, separators=(",", ":")).encode()
        varied = ~self.constant
        pieces = [_HEADER_SIZE.pack(len(text)), text]
        pieces += [
            np.packbits(self.constant).tobytes(),
            np.diff(self.offsets).astype("<u4").tobytes(),
            _little(self.minimum),
            _little(self.maximum[varied]),
            _little(self.total[varied]),
        ]
        if self.checksums is not None:
            pieces.append(_little(self.checksums[varied]))
        body = b"".join(pieces)
        packed = zstandard.ZstdCompressor(level=9).compress(body)
        return _HEAD.pack(_MAGIC, PACKED_VERSION, len(body), zlib.crc32(packed)) + packed

    @classmethod
    def unpack(cls, packed: bytes) -> TileIndex:
        """Return the index from the bytes that `pack` made.

        Raises
        ------
        IntegrityError
            If they are cut, altered or of another version, or do not add up; no size that they
            claim is believed before it is checked.
        """
        try:
            return _unpack(packed)
        except (
            struct.error,
            zstandard.ZstdError,
            ValueError,
            KeyError,
            TypeError,
            OverflowError,
        ) as error:
            raise IntegrityError(f"packed tile index of {len(packed)} bytes: {error}") from error


def _little(values: np.ndarray) -> bytes:
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _unpack(packed: bytes) -> TileIndex:
    magic, version, size, checksum = _HEAD.unpack_from(packed)
    body = memoryview(packed)[_HEAD.size :]
    if magic != _MAGIC or version != PACKED_VERSION:
        raise ValueError(f"is not one of version {PACKED_VERSION}")
    if zlib.crc32(body) != checksum:
        raise ValueError("its checksum does not match")
    if size > MAX_TILES * 64:
        raise ValueError(f"claims {size} bytes")
    content = zstandard.ZstdDecompressor().decompress(body, max_output_size=size)
    if len(content) != size:
        raise ValueError(f"has {len(content)} bytes, expected {size}")
    length = _HEADER_SIZE.unpack_from(content)[0]
    start = _HEADER_SIZE.size + length
    header = json.loads(content[_HEADER_SIZE.size : start])
    tiling = _tiling(header)
    dtype, filters, path = header["dtype"], tuple(header["filters"]), header["path"]
    if dtype not in _DTYPES or filters not in _FILTERS or header["cell_order"] not in ("C", "F"):
        raise ValueError(f"type {dtype!r} or filters {filters} are unknown")
    if math.prod(tiling.extents) * np.dtype(dtype).itemsize > MAX_TILE_BYTES:
        raise ValueError(f"claims tiles of {tiling.extents} voxels")
    _check_path(path)
    arrays = _Arrays(content, start)
    count = tiling.count
    constant = np.unpackbits(arrays.take("u1", -(-count // 8)), count=count).astype(bool)
    varied = ~constant
    if int(np.count_nonzero(varied)) != header["varied"]:
        raise ValueError("its counts of constant tiles differ")
    offsets = np.empty(count + 1, np.int64)
    offsets[0] = header["first"]
    np.cumsum(arrays.take("u4", count), out=offsets[1:])
    offsets[1:] += offsets[0]
    if offsets[0] < 0:
        raise ValueError("a tile lies before its file")
    if (np.diff(offsets)[varied] == 0).any():
        raise ValueError("a tile that is not constant has no bytes")
    kind = np.dtype(dtype)
    minimum = arrays.take(kind, count)
    maximum = minimum.copy()
    maximum[varied] = arrays.take(kind, header["varied"])
    total = constant_sums(tiling, minimum)
    total[varied] = arrays.take(total.dtype, header["varied"])
    checksums = None
    if header["checksums"]:
        checksums = np.zeros(count, np.uint32)
        checksums[varied] = arrays.take("u4", header["varied"])
    arrays.finish()
    return TileIndex(
        tiling,
        dtype,
        header["cell_order"],
        filters,
        path,
        offsets,
        minimum,
        maximum,
        total,
        constant,
        checksums,
    )


def _tiling(header: dict[str, object]) -> Tiling:
    shape, extents, order = header["shape"], header["extents"], header["tile_order"]
    sides = [*shape, *extents]  # type: ignore[misc]
    valid = (
        len(shape) == len(extents)  # type: ignore[arg-type]
        and len(shape) in (3, 4)  # type: ignore[arg-type]
        and all(type(n) is int and 0 < n < 1 << 31 for n in sides)
        and order in ("C", "F")
    )
    if not valid:
        raise ValueError(f"shape {shape} or extents {extents} are impossible")
    tiling = Tiling(tuple(shape), tuple(extents), str(order))  # type: ignore[arg-type]
    if tiling.count > MAX_TILES:
        raise ValueError(f"claims {tiling.count} tiles, more than {MAX_TILES}")
    return tiling


def _check_path(path: object) -> None:
    parts = path.split("/") if isinstance(path, str) else []
    if len(parts) != 3 or parts[0] != tdb.FRAGMENTS or {"", ".", ".."} & set(parts):
        raise ValueError(f"tile file {path!r} is not one of the array's")


def constant_sums(tiling: Tiling, values: np.ndarray) -> np.ndarray:
    """Return the sum of every tile if all its voxels had the value given for it."""
    kind = {"i": np.int64, "f": np.float64}.get(values.dtype.kind, np.uint64)
    cells = np.ones(tiling.grid, kind)
    for axis, (n, e) in enumerate(zip(tiling.shape, tiling.extents, strict=True)):
        sides = np.full(tiling.grid[axis], e, kind)
        sides[-1] = n - (tiling.grid[axis] - 1) * e
        cells *= sides.reshape([-1 if i == axis else 1 for i in range(len(tiling.grid))])
    flat = cells.ravel(order=tiling.order)  # type: ignore[arg-type]
    with np.errstate(over="ignore", invalid="ignore"):
        return flat * values.astype(kind)


class _Arrays:
    """Takes arrays of known length out of the body, one after the other."""

    def __init__(self, content: bytes, position: int) -> None:
        self._content = content
        self._position = position

    def take(self, dtype: str | np.dtype, count: int) -> np.ndarray:
        kind = np.dtype(dtype).newbyteorder("<")
        array = np.frombuffer(self._content, kind, count, self._position)
        self._position += array.nbytes
        return array.astype(kind.newbyteorder("="))

    def finish(self) -> None:
        if self._position != len(self._content):
            raise ValueError(f"{len(self._content) - self._position} bytes follow its end")
