"""Any box of any stored array equals NumPy's, bit for bit, and libtiledb's own answer."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tiledb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored import DTYPES, FILTERS, coded, write

from radiobject.ctx import (
    ReadConfig,
    TileConfig,
    WriteConfig,
    configure,
    reset_radiobject_config,
)
from radiobject.exceptions import IntegrityError, StorageError, StoreNotFoundError
from radiobject.geometry.box import Box
from radiobject.geometry.tiling import tiles_covering
from radiobject.stats import TileDBStats
from radiobject.storage.cache import tile_cache
from radiobject.storage.io import libtiledb
from radiobject.storage.read import reader
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.reader import ReadRequest, Rescale
from radiobject.storage.tables import writer
from radiobject.storage.tiles.index_build import build_tile_index


@pytest.fixture(autouse=True)
def fresh():
    yield
    reader.close_all()
    reset_radiobject_config()


def locate(uri, data, index=True):
    packed = build_tile_index(uri).pack() if index else None
    return VolumeLocator(uri, data.shape, data.dtype.name, packed)


def read(locator, box, dtype=None):
    out = np.full(box.shape, 101, dtype or locator.numpy_dtype)
    reader.read_into(locator, box, out)
    return out


@st.composite
def arrays(draw):
    ndim = draw(st.sampled_from([3, 3, 4]))
    shape = tuple(draw(st.integers(1, 24)) for _ in range(ndim))
    extents = tuple(draw(st.integers(1, n)) for n in shape)
    return (
        shape,
        extents,
        draw(st.sampled_from(DTYPES)),
        draw(st.sampled_from(sorted(FILTERS))),
        draw(st.sampled_from("CF")),
        draw(st.sampled_from("CF")),
    )


def boxes(shape):
    def one(n):
        return st.integers(0, n - 1).flatmap(lambda a: st.integers(a + 1, n).map(lambda b: (a, b)))

    return st.tuples(*map(one, shape)).map(
        lambda sides: Box(tuple(a for a, _ in sides), tuple(b for _, b in sides))
    )


@given(data=st.data())
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_box_of_any_array(tmp_path_factory, data):
    shape, extents, dtype, filters, cell_order, tile_order = data.draw(arrays())
    voxels = coded(shape, dtype)
    uri = str(tmp_path_factory.mktemp("any") / "v")
    write(uri, voxels, extents, FILTERS[filters], cell_order=cell_order, tile_order=tile_order)
    locator = locate(uri, voxels)
    with TileDBStats() as stats:
        for box in data.draw(st.lists(boxes(shape), min_size=1, max_size=6)):
            got = read(locator, box)
            assert got.tobytes() == voxels[box.slices].tobytes()
            native = np.empty(box.shape, voxels.dtype)
            libtiledb.query_into(uri, box, native)
            assert got.tobytes() == native.tobytes()
            other = np.dtype(data.draw(st.sampled_from(["f4", "f8", "i8"])))
            np.testing.assert_array_equal(
                read(locator, box, other), voxels[box.slices].astype(other)
            )
    counted = stats.counters()
    assert "fallback_volumes" not in counted


SHAPE, EXTENTS = (40, 33, 26), (4, 4, 4)


@pytest.fixture(scope="module", params=["int16", "float32"])
def framed(tmp_path_factory, request):
    """Content amid background, and a few tiles of background amid content."""
    voxels = np.full(SHAPE, -7, request.param)
    voxels[9:30, 5:20, 3:21] = np.arange(21 * 15 * 18).reshape(21, 15, 18)
    voxels[16:20, 8:12, 8:16] = -7
    config = WriteConfig(tile=TileConfig(x=4, y=4, z=4))
    uri = str(tmp_path_factory.mktemp("framed") / "v")
    return voxels, writer.write_volume(uri, voxels, config=config)


@pytest.fixture(params=["off", "amid-background"])
def cache(request, monkeypatch):
    monkeypatch.setenv("RADIOBJECT_CACHE", request.param)
    tile_cache.detach()
    reader.close_all()
    yield
    tile_cache.detach()


@pytest.mark.usefixtures("cache")
@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_box_amid_background(framed, data):
    voxels, locator = framed
    for box in data.draw(st.lists(boxes(SHAPE), min_size=1, max_size=4)):
        cover = tiles_covering(box, EXTENTS)
        with TileDBStats() as stats:
            assert read(locator, box).tobytes() == voxels[box.slices].tobytes()
        counted = stats.counters()
        kinds = ("tiles_decoded", "tiles_constant", "tiles_cached")
        tiles = np.prod([part.stop - part.start for part in cover])
        assert sum(counted.get(kind, 0) for kind in kinds) == tiles
        scaled = np.full(box.shape, 101, np.float32)
        reader.read_into(locator, box, scaled, rescale=Rescale(2.0, 3.0))
        expected = voxels[box.slices].astype(np.float32) * 2 + 3
        np.testing.assert_array_equal(scaled, expected)


@pytest.fixture
def volume(tmp_path):
    data = coded((70, 50, 40), "int16")
    return data, writer.write_volume(str(tmp_path / "v"), data)


def test_cache_serves_the_second_read(volume):
    data, locator = volume
    box = Box((3, 5, 1), (67, 45, 39))
    with TileDBStats() as first:
        read(locator, box)
    with TileDBStats() as second:
        np.testing.assert_array_equal(read(locator, box), data[box.slices])
    assert first.counters()["tiles_decoded"] > 0
    assert second.counters() == {
        "patches": 1,
        "bytes_delivered": box.size * 2,
        "tiles_cached": 3 * 2 * 2,
    }
    assert second.cache_stats().hit_rate == 1.0


def test_without_shared_memory(volume, monkeypatch):
    data, locator = volume
    monkeypatch.setenv("RADIOBJECT_CACHE", "off")
    tile_cache.detach()
    reader.close_all()
    try:
        for _ in range(2):
            with TileDBStats() as stats:
                box = Box((3, 5, 1), (67, 45, 39))
                np.testing.assert_array_equal(read(locator, box), data[box.slices])
            assert stats.counters()["tiles_decoded"] > 0
    finally:
        tile_cache.detach()


def test_constant_tiles_are_never_read(tmp_path):
    data = np.full((64, 64, 64), -1024, np.int16)
    data[40, 40, 40] = 7
    locator = writer.write_volume(str(tmp_path / "v"), data)
    with TileDBStats() as stats:
        got = read(locator, Box((0, 0, 0), (32, 64, 32)))
    assert (got == -1024).all()
    assert stats.counters()["tiles_constant"] == 2
    assert "bytes_read" not in stats.counters()
    np.testing.assert_array_equal(read(locator, Box.whole(data.shape)), data)


def test_rescaled_the_same_cold_and_warm(volume):
    data, locator = volume
    box = Box((3, 5, 1), (67, 45, 39))
    results = []
    for _ in range(3):
        out = np.empty(box.shape, np.float32)
        reader.read_into(locator, box, out, rescale=Rescale(0.1, -3))
        results.append(out)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_allclose(results[0], data[box.slices] * 0.1 - 3, rtol=1e-5, atol=1e-4)


def test_fallback_is_right_and_counted(tmp_path):
    data = coded((40, 40, 40), "int16")
    uri = write(str(tmp_path / "v"), data, (16, 16, 16), [tiledb.BitShuffleFilter()])
    locator = locate(uri, data, index=False)
    with TileDBStats() as stats:
        for _ in range(3):
            box = Box((3, 5, 1), (37, 25, 39))
            np.testing.assert_array_equal(read(locator, box), data[box.slices])
    assert stats.counters()["fallback_reads"] == 3
    assert stats.counters()["fallback_volumes"] == 1


def test_a_volume_written_anew_is_read_anew(tmp_path):
    uri = str(tmp_path / "v")
    data = coded((40, 40, 40), "int16")
    old = writer.write_volume(uri, data)
    box = Box.whole(data.shape)
    np.testing.assert_array_equal(read(old, box), data)
    tiledb.remove(uri)
    reader.forget(uri)
    new = writer.write_volume(uri, data + 1)
    np.testing.assert_array_equal(read(new, box), data + 1)
    with pytest.raises(StoreNotFoundError, match="does not fit its stored tile index"):
        read(old, box)


def test_index_of_another_volume_is_not_believed(tmp_path):
    a = writer.write_volume(str(tmp_path / "a"), coded((40, 40, 40), "int16"))
    b = writer.write_volume(str(tmp_path / "b"), coded((40, 40, 40), "int16") + 5)
    mixed = VolumeLocator(a.uri, a.shape, a.dtype, b.index)
    with TileDBStats() as stats, pytest.raises(StorageError, match="exchanged for another"):
        read(mixed, Box.whole(a.shape))
    assert stats.counters()["index_misfits"] == 1
    garbage = VolumeLocator(a.uri, a.shape, a.dtype, b"garbage")
    with pytest.raises(IntegrityError, match="does not fit its stored tile index"):
        read(garbage, Box.whole(a.shape))


def test_locator_of_another_shape_is_refused(volume):
    _, locator = volume
    wrong = VolumeLocator(locator.uri, (10, 10, 10), locator.dtype, locator.index)
    with pytest.raises(IntegrityError, match=r"\(70, 50, 40\), expected int16 of shape \(10"):
        read(wrong, Box.whole((10, 10, 10)))


def test_small_budget_still_reads_right(volume):
    configure(read=ReadConfig(tile_cache_size_mb=10))
    data, locator = volume
    rng = np.random.default_rng(0)
    for _ in range(50):
        start = [int(rng.integers(0, n - 10)) for n in data.shape]
        box = Box.at(start, (10, 10, 10))
        np.testing.assert_array_equal(read(locator, box), data[box.slices])


def test_batch_of_many_volumes(tmp_path):
    volumes = []
    for i in range(4):
        data = coded((40 + i, 33, 35), "int16") + i
        volumes.append((data, writer.write_volume(str(tmp_path / str(i)), data)))
    batch = np.zeros((8, 1, 20, 20, 20), np.float32)
    requests, wanted = [], []
    for n in range(8):
        data, locator = volumes[n % 4]
        box = Box.at((n, 2 * n % 13, n), (20, 20, 20))
        requests.append(ReadRequest(locator, box, batch[n, 0]))
        wanted.append(data[box.slices])
    reader.read_batch(requests)
    np.testing.assert_array_equal(batch[:, 0], np.stack(wanted))


def test_a_volume_that_vanished(volume):
    import shutil

    _, locator = volume
    shutil.rmtree(locator.uri)
    reader.close_all()
    with pytest.raises(StorageError):
        read(locator, Box.at((0, 0, 0), (5, 5, 5)))


@pytest.mark.parametrize("budget_mb", [10, 500])
def test_threads_share_volumes_and_cache(tmp_path, budget_mb):
    configure(read=ReadConfig(tile_cache_size_mb=budget_mb))
    volumes = []
    for i in range(3):
        data = coded((70, 60, 50), "int16") + i
        volumes.append((data, writer.write_volume(str(tmp_path / str(i)), data)))

    def wrong(seed):
        rng = np.random.default_rng(seed)
        count = 0
        for _ in range(150):
            data, locator = volumes[rng.integers(3)]
            start = [int(rng.integers(0, n - 20)) for n in data.shape]
            box = Box.at(start, (20, 20, 20))
            count += not np.array_equal(read(locator, box), data[box.slices])
        return count

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(wrong, range(6))) == 0
