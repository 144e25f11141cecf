"""The writer: tiles, filters, one fragment, one create, one write open; and what it refuses."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tiledb
import tiledb.libtiledb as lt
from forking import needs
from stored import coded

from radiobject.ctx import CompressionConfig, TileConfig, WriteConfig
from radiobject.exceptions import ShapeError, StoreExistsError
from radiobject.geometry.box import Box
from radiobject.geometry.content import content_box
from radiobject.stats import TileDBStats
from radiobject.storage.read import reader
from radiobject.storage.tables import writer
from radiobject.storage.tiles.c_order import c_ordered
from radiobject.storage.tiles.tile_index import TileIndex


def index_of(locator):
    return TileIndex.unpack(locator.index)


def test_default_tiles_and_metadata(tmp_path):
    data = coded((70, 50, 20), "int16")
    locator = writer.write_volume(
        str(tmp_path / "v"), data, metadata={"obs_id": "a", "n": 3, "x": 0.5}, timestamp=77
    )
    index = index_of(locator)
    assert index.tiling.extents == (32, 32, 20)
    assert index.filters == ("byteshuffle", "zstd")
    with tiledb.open(locator.uri) as array:
        assert dict(array.meta) == {"obs_id": "a", "n": 3, "x": 0.5}
        np.testing.assert_array_equal(array[...]["voxels"], data)
    fragments = os.listdir(tmp_path / "v" / "__fragments")
    assert [name.split("_")[2:4] for name in fragments] == [["77", "77"]]


def test_one_create_and_one_write_open(tmp_path, monkeypatch):
    calls = []
    create, opened = lt.Array._create, tiledb.open

    def counted_create(*args, **kwargs):
        calls.append("create")
        return create(*args, **kwargs)

    def counted_open(uri, mode="r", **kwargs):
        calls.append(f"open {mode}")
        return opened(uri, mode, **kwargs)

    monkeypatch.setattr(lt.Array, "_create", counted_create)
    monkeypatch.setattr(tiledb, "open", counted_open)
    with TileDBStats() as stats:
        locator = writer.write_volume(str(tmp_path / "v"), coded((40, 40, 40), "int16"))
    assert calls == ["create", "open w"]
    assert stats.counters()["bytes_written"] == index_of(locator).file_size


@pytest.mark.parametrize(
    ("tile", "extents"),
    [
        (TileConfig(orientation="axial"), (70, 50, 1)),
        (TileConfig(orientation="sagittal"), (1, 50, 40)),
        (TileConfig(orientation="coronal"), (70, 1, 40)),
        (TileConfig(x=16, y=100), (16, 50, 32)),
    ],
)
def test_explicit_tiles(tmp_path, tile, extents):
    data = coded((70, 50, 40), "int16")
    config = WriteConfig(tile=tile)
    locator = writer.write_volume(str(tmp_path / "v"), data, config=config, patch_size=(8, 8, 8))
    assert index_of(locator).tiling.extents == extents


def test_tiles_follow_the_patch(tmp_path):
    data = np.zeros((128, 128, 64), np.int16)
    locator = writer.write_volume(str(tmp_path / "v"), data, patch_size=(128, 128, 1))
    assert index_of(locator).tiling.extents[2] == 1


@pytest.mark.parametrize(
    ("dtype", "profile", "filters"),
    [
        ("int16", "balanced", ("byteshuffle", "zstd")),
        ("int16", "small", ("byteshuffle", "zstd")),
        ("int16", "fast", ("lz4",)),
        ("uint8", "balanced", ("zstd",)),
        ("bool", "small", ("zstd",)),
        ("uint8", "fast", ("lz4",)),
    ],
)
def test_profiles(tmp_path, dtype, profile, filters):
    config = WriteConfig(compression=CompressionConfig(profile=profile))
    data = coded((40, 40, 40), dtype)
    locator = writer.write_volume(str(tmp_path / "v"), data, config=config)
    assert index_of(locator).filters == filters


def test_floats_are_tried(tmp_path):
    rng = np.random.default_rng(0)
    measured = rng.normal(0, 1, (64, 64, 64)).astype(np.float32)
    rescaled = rng.integers(0, 300, (64, 64, 64)).astype(np.float32) * np.float32(0.37) - 5
    a = writer.write_volume(str(tmp_path / "a"), measured)
    b = writer.write_volume(str(tmp_path / "b"), rescaled)
    assert index_of(a).filters == ("byteshuffle", "zstd")
    assert index_of(b).filters == ("zstd",)


@pytest.mark.parametrize("algorithm", ["zstd", "lz4", "gzip", "none"])
def test_explicit_algorithm_is_used_as_it_is(tmp_path, algorithm):
    config = WriteConfig(compression=CompressionConfig(algorithm=algorithm, level=1))
    locator = writer.write_volume(str(tmp_path / "v"), coded((40, 40, 40)), config=config)
    assert index_of(locator).filters == (() if algorithm == "none" else (algorithm,))


@pytest.mark.parametrize("shape", [(33, 70, 65), (1, 5, 1), (9, 17, 12, 20)])
def test_c_ordered(shape):
    data = coded(shape)
    for given in (data, np.asfortranarray(data), np.asfortranarray(data)[::-1], data[:, ::-1]):
        got = c_ordered(given)
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, given)
    assert c_ordered(data) is data


def framed(shape, dtype, background, content):
    """A volume of background with content in a box that no tile border meets."""
    data = np.full(shape, background, dtype)
    inner = tuple(slice(n // 3 + 1, n - n // 3) for n in shape)
    data[inner] = content
    return data


BACKGROUNDS = [
    ("bool", True, False),
    ("int8", -128, 3),
    ("uint8", 0, 255),
    ("int16", -1024, 40),
    ("uint16", 65535, 9),
    ("int64", -(2**62), 1),
    ("uint64", 2**63 + 5, 2**64 - 1),
    ("float32", 0.0, -0.0),
    ("float32", -0.0, 0.0),
    ("float64", 1 / 3, 1e300),
]


@pytest.mark.parametrize(("dtype", "background", "content"), BACKGROUNDS)
@pytest.mark.parametrize("shape", [(70, 33, 50), (30, 41, 20, 3)])
def test_background_around_the_content_is_not_written(tmp_path, shape, dtype, background, content):
    data = framed(shape, dtype, background, content)
    config = WriteConfig(tile=TileConfig(x=8, y=8, z=8))
    locator = writer.write_volume(str(tmp_path / "v"), np.asfortranarray(data), config=config)
    index = index_of(locator)
    box = content_box(data, index.tiling.extents)
    assert box.size < data.size
    with tiledb.open(locator.uri) as array:
        assert array.nonempty_domain() == tuple(
            (a, b - 1) for a, b in zip(box.start, box.stop, strict=True)
        )
        assert array[...]["voxels"].tobytes() == data.tobytes()
    corner = Box((0,) * len(shape), tuple(n // 2 for n in shape))
    with TileDBStats() as stats:
        for part in (corner, Box.whole(shape)):
            got = np.empty(part.shape, data.dtype)
            reader.read_into(locator, part, got)
            assert got.tobytes() == data[part.slices].tobytes()
    assert "fallback_volumes" not in stats.counters()
    unwritten = np.diff(index.offsets) == 0
    sides = (box.start, box.stop, index.tiling.extents)
    written = [len(range(a, b, e)) for a, b, e in zip(*sides, strict=True)]
    assert np.count_nonzero(~unwritten) == np.prod(written)
    assert index.constant[unwritten].all()
    np.testing.assert_array_equal(index.total, TileIndex.unpack(index.pack()).total)
    reader.verify(locator)


def test_a_volume_of_background_alone_keeps_one_tile(tmp_path):
    data = np.full((70, 40, 33), -3, np.int16)
    locator = writer.write_volume(str(tmp_path / "v"), data)
    assert np.count_nonzero(np.diff(index_of(locator).offsets)) == 1
    with tiledb.open(locator.uri) as array:
        np.testing.assert_array_equal(array[...]["voxels"], data)
    got = np.empty_like(data)
    reader.read_into(locator, Box.whole(data.shape), got)
    np.testing.assert_array_equal(got, data)


@pytest.mark.parametrize("background", [np.nan, np.inf, -np.inf])
def test_background_that_is_no_number_is_written(tmp_path, background):
    data = framed((70, 40, 33), "float32", background, 1)
    locator = writer.write_volume(str(tmp_path / "v"), data)
    assert (np.diff(index_of(locator).offsets) > 0).all()
    got = np.empty_like(data)
    reader.read_into(locator, Box.whole(data.shape), got)
    assert got.tobytes() == data.tobytes()


def test_refusals(tmp_path):
    uri = str(tmp_path / "v")
    for shape in ((4, 4), (4, 4, 4, 4, 4), (0, 4, 4)):
        with pytest.raises(ShapeError):
            writer.write_volume(uri, np.zeros(shape))
    for dtype in ("complex64", "O", "U3", "M8[s]", [("r", "u1"), ("g", "u1"), ("b", "u1")]):
        with pytest.raises(TypeError, match="voxels must be"):
            writer.write_volume(uri, np.zeros((4, 4, 4), dtype))
    assert not os.path.exists(uri)
    writer.write_volume(uri, coded((4, 4, 4)))
    with pytest.raises(StoreExistsError):
        writer.write_volume(uri, coded((5, 5, 5)))
    got = np.empty((4, 4, 4), np.int32)
    locator = writer.write_volume(str(tmp_path / "w"), coded((4, 4, 4)))
    reader.read_into(locator, Box.whole((4, 4, 4)), got)
    np.testing.assert_array_equal(got, coded((4, 4, 4)))


def test_nothing_stays_of_a_failed_write(tmp_path):
    uri = str(tmp_path / "v")
    with pytest.raises(TypeError):
        writer.write_volume(uri, coded((4, 4, 4)), metadata={"bad": object()})
    assert not os.path.exists(uri)


@needs("fork")
def test_forks_stay_silent(tmp_path):
    program = f"""
import numpy as np, os
from radiobject.storage.read import reader; from radiobject.storage.tables import writer
from radiobject.geometry.box import Box
from radiobject.geometry.content import content_box
locator = writer.write_volume({str(tmp_path / "v")!r}, np.zeros((9, 9, 9), np.float32))
reader.read_into(locator, Box.whole((9, 9, 9)), np.empty((9, 9, 9), np.float32))
pid = os.fork()
if pid == 0:
    reader.read_into(locator, Box.whole((9, 9, 9)), np.empty((9, 9, 9), np.float32))
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
