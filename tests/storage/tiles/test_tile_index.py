"""The tile index: built from fragments, packed, unpacked, refused."""

import dataclasses
import math
import os
import shutil
import struct
import time
import zlib

import numpy as np
import pytest
import tiledb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored import DTYPES, FILTERS, coded, create, write

from radiobject.exceptions import IntegrityError, StorageError, StoreNotFoundError
from radiobject.geometry.box import Box
from radiobject.storage.io.array_files import LocalFiles
from radiobject.storage.tiles import tile_index as module
from radiobject.storage.tiles.fragment import UnsupportedArrayError, parse
from radiobject.storage.tiles.index_build import build_tile_index
from radiobject.storage.tiles.tile_index import TileIndex
from radiobject.storage.tiles.voxel_check import inside_tile, matches_statistics

SHAPE, EXTENTS = (37, 41, 33), (16, 16, 16)


def tiles_equal(uri, data, index):
    content = LocalFiles(uri).map(index.path)
    for number in range(index.tiling.count):
        voxels = data[index.tiling.box(index.tiling.position(number)).slices]
        if index.constant[number]:
            assert voxels.tobytes() == np.full(voxels.shape, index.minimum[number]).tobytes()
            continue
        stored = content[index.offsets[number] : index.offsets[number + 1]]
        decoded = inside_tile(index, number, stored, uri)
        assert decoded.tobytes() == voxels.tobytes()
        assert matches_statistics(index, number, decoded)


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_and_filter(tmp_path, dtype, filters):
    data = coded(SHAPE, dtype)
    uri = write(str(tmp_path / "v"), data, EXTENTS, FILTERS[filters])
    index = build_tile_index(uri)
    assert index.dtype == dtype
    assert 0 < index.constant.sum() < index.tiling.count
    tiles_equal(uri, data, index)


@pytest.mark.parametrize("cell_order", "CF")
@pytest.mark.parametrize("tile_order", "CF")
@pytest.mark.parametrize(
    ("shape", "extents"),
    [
        (SHAPE, (37, 41, 1)),
        (SHAPE, (1, 41, 33)),
        (SHAPE, (37, 1, 33)),
        (SHAPE, SHAPE),
        ((13, 11, 7, 5), (8, 8, 7, 1)),
        ((13, 11, 7, 5), (4, 5, 3, 2)),
        ((1, 300, 1), (1, 64, 1)),
        ((70, 70, 70), (64, 64, 64)),
    ],
)
def test_every_tiling_and_order(tmp_path, shape, extents, cell_order, tile_order):
    data = coded(shape, "int16")
    uri = write(
        str(tmp_path / "v"),
        data,
        extents,
        FILTERS["shuffle-zstd"],
        cell_order=cell_order,
        tile_order=tile_order,
    )
    index = build_tile_index(uri)
    assert (index.cell_order, index.tiling.order) == (cell_order, tile_order)
    tiles_equal(uri, data, index)


def same(a, b):
    for f in (f for f in dataclasses.fields(TileIndex) if f.init):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if isinstance(x, np.ndarray):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype
        else:
            assert x == y


@pytest.mark.parametrize("dtype", DTYPES)
def test_pack_round_trips(tmp_path, dtype):
    uri = write(str(tmp_path / "v"), coded(SHAPE, dtype), EXTENTS, FILTERS["zstd"])
    index = build_tile_index(uri)
    same(TileIndex.unpack(index.pack()), index)
    unseen = dataclasses.replace(index, checksums=None)
    same(TileIndex.unpack(unseen.pack()), unseen)


def test_pack_is_small(tmp_path):
    rng = np.random.default_rng(0)
    data = np.zeros((240, 240, 155), np.int16)
    data[48:180, 32:200, 10:140] = rng.normal(400, 90, (132, 168, 130)).astype(np.int16)
    uri = write(str(tmp_path / "v"), data, (32, 32, 32), FILTERS["shuffle-zstd"])
    assert len(build_tile_index(uri).pack()) < 4000


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("index") / "v")
    return build_tile_index(write(uri, coded(SHAPE, "int16"), EXTENTS, FILTERS["zstd"])).pack()


@given(data=st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_altered_pack_is_refused(packed, data):
    position = data.draw(st.integers(0, len(packed) - 1))
    broken = bytearray(packed)
    broken[position] ^= 1 << data.draw(st.integers(0, 7))
    reserved = position in (6, 7)
    if not reserved:
        with pytest.raises(IntegrityError):
            TileIndex.unpack(bytes(broken))
    with pytest.raises(IntegrityError):
        TileIndex.unpack(packed[:position])


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(noise):
    with pytest.raises(IntegrityError):
        TileIndex.unpack(noise)


def repacked(packed, change):
    """The same index with a changed body, and checksums that hold."""
    import zstandard

    head = module._HEAD
    body = zstandard.decompress(packed[head.size :])
    length = struct.unpack_from("<I", body)[0]
    text, rest = change(body[4 : 4 + length], body[4 + length :])
    body = struct.pack("<I", len(text)) + text + rest
    new = zstandard.compress(body)
    return head.pack(b"ROTI", 1, len(body), zlib.crc32(new)) + new


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"shape":[37,41,33]', b'"shape":[370000,410000,330000]'),
        (b'"shape":[37,41,33]', b'"shape":[-37,41,33]'),
        (b'"shape":[37,41,33]', b'"shape":[37,41]'),
        (b'"extents":[16,16,16]', b'"extents":[0,16,16]'),
        (b'"extents":[16,16,16]', b'"extents":[1,1,1]'),
        (b'"dtype":"int16"', b'"dtype":"O"'),
        (b'"dtype":"int16"', b'"dtype":"int64"'),
        (b'"filters":["zstd"]', b'"filters":["exec"]'),
        (b'"path":"__fragments/', b'"path":"../../../etc/'),
        (b'"path":"__fragments/', b'"path":"/__fragments/'),
        (b'"varied":', b'"varied":1'),
    ],
)
def test_lying_pack_is_refused(packed, old, new):
    def change(text, rest):
        assert old in text
        return text.replace(old, new), rest

    with pytest.raises(IntegrityError):
        TileIndex.unpack(repacked(packed, change))


def test_pack_of_a_varied_tile_without_bytes_is_refused(packed):
    index = TileIndex.unpack(packed)
    varied = int(np.flatnonzero(~index.constant)[0])
    lengths_at = -(-index.tiling.count // 8)

    def change(text, rest):
        at = lengths_at + 4 * varied
        return text, rest[:at] + bytes(4) + rest[at + 4 :]

    with pytest.raises(IntegrityError, match="has no bytes"):
        TileIndex.unpack(repacked(packed, change))


def test_missing_and_foreign(tmp_path):
    with pytest.raises(StoreNotFoundError):
        build_tile_index(str(tmp_path / "none"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("x")
    with pytest.raises(StoreNotFoundError):
        build_tile_index(str(tmp_path / "folder"))


def refused(uri):
    with pytest.raises(UnsupportedArrayError):
        build_tile_index(uri)


@pytest.mark.parametrize(
    "filters",
    [
        [tiledb.BitShuffleFilter(), tiledb.ZstdFilter()],
        [tiledb.ZstdFilter(), tiledb.ChecksumMD5Filter()],
        [tiledb.Bzip2Filter()],
        [tiledb.ZstdFilter(), tiledb.ByteShuffleFilter()],
        [tiledb.ZstdFilter(), tiledb.LZ4Filter()],
        [tiledb.DeltaFilter()],
    ],
)
def test_other_filters_are_refused(tmp_path, filters):
    refused(write(str(tmp_path / "v"), coded(SHAPE), EXTENTS, filters))


def test_fragments_beside_the_one_are_refused(tmp_path):
    data = coded(SHAPE)
    uri = write(str(tmp_path / "twice"), data, EXTENTS)
    with tiledb.open(uri, "w", timestamp=int(time.time() * 1000) + 1000) as array:
        array[0:16, 0:16, 0:16] = data[:16, :16, :16]
    refused(uri)
    tiledb.consolidate(uri)
    refused(uri)
    tiledb.vacuum(uri)
    refused(uri)

    empty = str(tmp_path / "empty")
    create(empty, SHAPE, "int32", EXTENTS)
    refused(empty)

    uncommitted = write(str(tmp_path / "uncommitted"), data, EXTENTS)
    for name in os.listdir(f"{uncommitted}/__commits"):
        os.unlink(f"{uncommitted}/__commits/{name}")
    refused(uncommitted)


def written_in_part(uri, data, box, **orders):
    create(uri, SHAPE, data.dtype, EXTENTS, FILTERS["zstd"], **orders)
    with tiledb.open(uri, "w") as array:
        array[box.slices] = data[box.slices]
    return uri


@pytest.mark.parametrize(
    "box",
    [
        Box((1, 0, 0), (16, 16, 16)),
        Box((0, 0, 0), (16, 15, 16)),
        Box((16, 16, 16), (37, 40, 33)),
        Box((16, 16, 31), (37, 41, 33)),
    ],
)
def test_parts_of_tiles_are_refused(tmp_path, box):
    refused(written_in_part(str(tmp_path / "v"), coded(SHAPE), box))


@pytest.mark.parametrize(
    "box", [Box((0, 0, 0), (16, 16, 16)), Box((16, 0, 32), (37, 32, 33)), Box((32,) * 3, SHAPE)]
)
@pytest.mark.parametrize("tile_order", "CF")
@pytest.mark.parametrize("cell_order", "CF")
def test_tiles_that_were_not_written_hold_the_fill_value(tmp_path, box, cell_order, tile_order):
    data = coded(SHAPE)
    orders = {"cell_order": cell_order, "tile_order": tile_order}
    uri = written_in_part(str(tmp_path / "v"), data, box, **orders)
    expected = np.full(SHAPE, np.iinfo(np.int32).min, np.int32)
    expected[box.slices] = data[box.slices]
    index = build_tile_index(uri)
    tiles_equal(uri, expected, index)
    same(TileIndex.unpack(index.pack()), index)


def test_a_fill_value_that_is_no_number_is_refused(tmp_path):
    box = Box((0, 0, 0), (16, 16, 16))
    refused(written_in_part(str(tmp_path / "v"), coded(SHAPE, "float32"), box))


def test_evolved_schema_is_refused(tmp_path):
    uri = write(str(tmp_path / "v"), coded(SHAPE), EXTENTS)
    evolution = tiledb.ArraySchemaEvolution()
    evolution.add_attribute(tiledb.Attr("more", dtype=np.int8))
    evolution.array_evolve(uri)
    refused(uri)


@pytest.mark.parametrize("value", [0.0, -0.0, 2.5, np.nan, np.inf])
def test_float_tiles_are_constant_only_to_the_bit(tmp_path, value):
    data = np.full((32, 16, 16), value, np.float32)
    data[20, 3, 3] = -0.0 if value == 0 else np.nan
    uri = write(str(tmp_path / "v"), data, EXTENTS, FILTERS["zstd"])
    index = build_tile_index(uri)
    assert bool(index.constant[0]) == bool(np.isfinite(value))
    assert bool(index.constant[1]) == (math.copysign(1, value) < 0 and value == 0)
    tiles_equal(uri, data, index)


def test_large_sums_do_not_overflow(tmp_path):
    data = coded(SHAPE, "uint64") + np.uint64(2**63)
    uri = write(str(tmp_path / "v"), data, EXTENTS)
    tiles_equal(uri, data, build_tile_index(uri))


def test_damaged_metadata_is_refused(tmp_path):
    uri = write(str(tmp_path / "v"), coded(SHAPE), EXTENTS)
    folder = os.path.join(uri, "__fragments", os.listdir(f"{uri}/__fragments")[0])
    path = os.path.join(folder, "__fragment_metadata.tdb")
    with open(path, "rb") as file:
        good = file.read()
    rng = np.random.default_rng(1)
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(3):
            bad[rng.integers(len(bad))] = rng.integers(256)
        try:
            parse(bytes(bad), ndim=3, dtype=np.dtype("int32"))
        except UnsupportedArrayError:
            continue
    for cut in range(0, len(good), 97):
        with pytest.raises(UnsupportedArrayError):
            parse(good[:cut], ndim=3, dtype=np.dtype("int32"))


def test_truncated_or_swapped_tile_file_is_noticed(tmp_path):
    uri = write(str(tmp_path / "v"), coded(SHAPE), EXTENTS, FILTERS["zstd"])
    path = os.path.join(uri, build_tile_index(uri).path)
    shutil.copy(path, tmp_path / "saved")
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 1)
    with pytest.raises(IntegrityError):
        build_tile_index(uri)
    other = write(str(tmp_path / "w"), coded(SHAPE) + 1, EXTENTS, FILTERS["zstd"])
    shutil.copy(os.path.join(other, build_tile_index(other).path), path)
    with pytest.raises(StorageError):
        build_tile_index(uri)
