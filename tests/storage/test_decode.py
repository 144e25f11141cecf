"""One tile, decoded bit for bit as libtiledb decodes it, whatever its type, filters and place."""

import os
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored import DTYPES, FILTERS, write

from radiobject.exceptions import IntegrityError
from radiobject.storage.decode import TileDecoder, unshuffle
from radiobject.storage.tile_index import build_tile_index

EXTENTS = {3: (4, 3, 5), 4: (4, 3, 2, 2)}
WHOLE = (slice(0, 8),) * 3
SHAPES = {3: (9, 7, 5), 4: (5, 7, 3, 3)}
"""No side is a multiple of its extent: every tiling has tiles that jut out of the volume."""


def tile_bytes(uri, index):
    with open(os.path.join(uri, index.path), "rb") as file:
        content = memoryview(file.read())
    return [content[a:b] for a, b in zip(index.offset_list, index.offset_list[1:], strict=False)]


def decoder_of(index):
    return TileDecoder(index.filters, index.numpy_dtype, index.tiling.extents, index.cell_order)


def check(uri, data, part=0.4):
    """Compare the part of each tile that lies in the volume with what was written, and a box."""
    index = build_tile_index(uri)
    decoder, pieces = decoder_of(index), tile_bytes(uri, index)
    for number in np.flatnonzero(~index.constant).tolist():
        box = index.tiling.box(index.tiling.position(number))
        inside = tuple(slice(0, n) for n in box.shape)
        assert decoder.decode(pieces[number], inside).tobytes() == data[box.slices].tobytes()
        some = tuple(slice(int(n * part), max(int(n * part) + 1, n - 1)) for n in box.shape)
        assert decoder.decode(pieces[number], some).tobytes() == data[box.slices][some].tobytes()


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
    check(uri, voxels, data.draw(st.floats(0, 0.9)))


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


@given(raw=st.binary(max_size=300), itemsize=st.sampled_from([1, 2, 4, 8]))
def test_unshuffle_undoes_the_shuffle(raw, itemsize):
    count = len(raw) // itemsize
    planes = np.frombuffer(raw[: count * itemsize], np.uint8).reshape(count, itemsize).T
    out = np.empty(len(raw), np.uint8)
    unshuffle(planes.tobytes() + raw[count * itemsize :], itemsize, out)
    assert out.tobytes() == raw


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
                decoder.decode(tile[:length], WHOLE)
        for _ in range(100):
            damaged = bytearray(tile)
            damaged[rng.integers(len(tile))] ^= 1 << int(rng.integers(8))
            try:
                assert decoder.decode(bytes(damaged), WHOLE).shape == voxels.shape
            except IntegrityError:
                continue
        assert decoder.decode(tile, WHOLE).tobytes() == voxels.tobytes()


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
        decoded[number] = all(
            decoder.decode(tile, (slice(0, 8),) * 3).tobytes() == voxels[number].tobytes()
            for _ in range(300)
        )

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(voxels))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(decoded[n] for n in range(len(voxels)))
