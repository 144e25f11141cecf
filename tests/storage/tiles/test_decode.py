"""One tile, decoded bit for bit as libtiledb decodes it, whatever its type, filters and place."""

import os
import struct
import threading
import zlib

import lz4.block
import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored import DTYPES, FILTERS, write

from radiobject.exceptions import IntegrityError
from radiobject.storage.tiles import blosc_chunk
from radiobject.storage.tiles.decode import TileDecoder, scratch
from radiobject.storage.tiles.index_build import build_tile_index

EXTENTS = {3: (4, 3, 5), 4: (4, 3, 2, 2)}
SHAPES = {3: (9, 7, 5), 4: (5, 7, 3, 3)}
"""No side is a multiple of its extent: every tiling has tiles that jut out of the volume."""


@pytest.fixture(scope="module", autouse=True, params=["with Blosc2", "before it is imported"])
def _each_way(request):
    """What decodes while Blosc2 is being imported takes and refuses the same bytes."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "with Blosc2":
            blosc_chunk._load()
        else:
            patch.setattr(blosc_chunk, "_decompress2", None)
            patch.setattr(blosc_chunk, "_is_here", lambda: False)
        yield


def tile_bytes(uri, index):
    with open(os.path.join(uri, index.path), "rb") as file:
        content = memoryview(file.read())
    return [content[a:b] for a, b in zip(index.offset_list, index.offset_list[1:], strict=False)]


def decoder_of(index):
    return TileDecoder(index.filters, index.numpy_dtype, index.tiling.extents, index.cell_order)


def decode(decoder, stored):
    return decoder.decode(stored, np.empty(len(stored) * decoder.tile_bytes, np.uint8))


def check(uri, data):
    """Compare what lies in the volume of each tile, decoded alone and with others."""
    index = build_tile_index(uri)
    decoder, pieces = decoder_of(index), tile_bytes(uri, index)
    numbers = np.flatnonzero(~index.constant).tolist()
    for at_once in {1, decoder.tiles_at_once}:
        for first in range(0, len(numbers), at_once):
            group = numbers[first : first + at_once]
            tiles = decode(decoder, [pieces[number] for number in group])
            assert tiles.shape == (len(group), *index.tiling.extents)
            for number, tile in zip(group, tiles, strict=True):
                box = index.tiling.box(index.tiling.position(number))
                inside = tile[tuple(slice(0, n) for n in box.shape)]
                assert inside.tobytes() == data[box.slices].tobytes()


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_filter_and_number_of_axes(tmp_path, dtype, filters):
    rng = np.random.default_rng(DTYPES.index(dtype))
    for axes, shape in SHAPES.items():
        raw = rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        bits = np.frombuffer(raw, np.uint8 if dtype == "bool" else dtype).reshape(shape)
        voxels = bits > 99 if dtype == "bool" else bits
        check(write(str(tmp_path / str(axes)), voxels, EXTENTS[axes], FILTERS[filters]), voxels)


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_tiling_of_any_volume(tmp_path_factory, data):
    sides = st.integers(1, 9)
    shape = data.draw(st.lists(sides, min_size=3, max_size=4))
    extents = [data.draw(st.integers(1, side)) for side in shape]
    dtype = data.draw(st.sampled_from(DTYPES[1:]))
    raw = data.draw(st.randoms()).randbytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    voxels = np.frombuffer(raw, dtype).reshape(shape)
    uri = str(tmp_path_factory.mktemp("decode") / "v")
    write(
        uri,
        voxels,
        extents,
        FILTERS[data.draw(st.sampled_from(sorted(FILTERS)))],
        cell_order=data.draw(st.sampled_from("CF")),
        tile_order=data.draw(st.sampled_from("CF")),
    )
    check(uri, voxels)


@pytest.mark.parametrize("filters", ["none", "zstd", "shuffle-lz4", "shuffle-gzip", "shuffle"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
def test_tiles_of_several_chunks(tmp_path, dtype, filters):
    """TileDB cuts a tile into chunks of 64 KiB; the last one is shorter."""
    voxels = np.random.default_rng(0).integers(0, 200, (50, 47, 45)).astype(dtype)
    uri = write(str(tmp_path / "v"), voxels, (50, 47, 45), FILTERS[filters])
    check(uri, voxels)


@pytest.mark.parametrize("order", ["C", "F"])
def test_both_cell_orders(tmp_path, order):
    voxels = np.arange(9 * 7 * 5, dtype=np.int16).reshape(9, 7, 5)
    uri = write(str(tmp_path / "v"), voxels, (4, 3, 5), FILTERS["shuffle-zstd"], cell_order=order)
    check(uri, voxels)


@pytest.mark.parametrize("compression", ["zstd", "lz4", "gzip"])
def test_a_block_that_compression_left_as_long_as_it_was(compression):
    """It is the one that could be taken for a block that was not compressed."""
    compress = {
        "zstd": zstandard.ZstdCompressor().compress,
        "lz4": lambda raw: lz4.block.compress(raw, store_size=False),
        "gzip": zlib.compress,
    }[compression]
    size = 256
    noise = np.random.default_rng(0).bytes(size)
    same = [
        (raw, data)
        for zeros in range(size)
        if len(data := compress(raw := bytes(zeros) + noise[zeros:])) == size
    ]
    assert same
    decoder = TileDecoder((compression,), np.dtype("uint8"), (4, 8, 8))
    for raw, data in same:
        head = struct.pack("<QIII II II", 1, size, size, 16, 0, 1, size, size)
        assert decode(decoder, [head + data]).tobytes() == raw


def test_an_empty_block_is_not_zeros():
    decoder = TileDecoder(("zstd",), np.dtype("uint8"), (4, 8, 8))
    with pytest.raises(IntegrityError, match="0 bytes, expected 256"):
        decode(decoder, [struct.pack("<QIII II II", 1, 256, 0, 16, 0, 1, 256, 0)])


def test_any_bytes_end_in_an_error_or_a_tile(tmp_path):
    """Cut anywhere, or with any byte changed, a tile is refused or keeps its size."""
    voxels = np.arange(8 * 8 * 8, dtype=np.int16).reshape(8, 8, 8)
    rng = np.random.default_rng(0)
    for name, filters in FILTERS.items():
        uri = write(str(tmp_path / name), voxels, (8, 8, 8), filters)
        index = build_tile_index(uri)
        decoder = decoder_of(index)
        (tile,) = (bytes(piece) for piece in tile_bytes(uri, index))
        for length in range(0, len(tile), 1 + len(tile) // 50):
            with pytest.raises(IntegrityError):
                decode(decoder, [tile[:length]])
        for _ in range(100):
            damaged = bytearray(tile)
            damaged[rng.integers(len(tile))] ^= 1 << int(rng.integers(8))
            try:
                assert decode(decoder, [bytes(damaged)])[0].shape == voxels.shape
            except IntegrityError:
                continue
        assert decode(decoder, [tile])[0].tobytes() == voxels.tobytes()


def test_threads_do_not_share_scratch(tmp_path):
    decoded = {}
    voxels = [np.full((8, 8, 8), n, np.int16) + np.arange(8, dtype=np.int16) for n in range(6)]
    stored = []
    for number, data in enumerate(voxels):
        uri = write(str(tmp_path / str(number)), data, (8, 8, 8), FILTERS["shuffle-zstd"])
        index = build_tile_index(uri)
        stored.append((decoder_of(index), tile_bytes(uri, index)))
    start = threading.Barrier(len(voxels))

    def work(number):
        decoder, (tile,) = stored[number]
        start.wait()
        equal = []
        for _ in range(300):
            with scratch(decoder.tile_bytes) as out:
                equal.append(decoder.decode([tile], out).tobytes() == voxels[number].tobytes())
        decoded[number] = all(equal)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(voxels))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(decoded[n] for n in range(len(voxels)))
