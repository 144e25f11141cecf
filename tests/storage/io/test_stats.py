"""The counters tell the truth: exact, of this process alone, and what the reports are made of."""

import dataclasses
import json
import multiprocessing
import threading

import numpy as np
import pytest
import tiledb

from radiobject.ctx import TileConfig, WriteConfig
from radiobject.geometry.box import Box
from radiobject.stats import CacheStats, S3Stats, TileDBStats
from radiobject.storage.cache import tile_cache
from radiobject.storage.io import stats
from radiobject.storage.read import reader
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.tables import writer
from radiobject.storage.tiles.tile_index import TileIndex

SHAPE = (40, 40, 40)
TILES = WriteConfig(tile=TileConfig(x=16, y=16, z=16))
CODED = np.arange(64_000, dtype=np.int32).reshape(SHAPE)


def read(locator, box):
    out = np.empty(box.shape, locator.dtype)
    reader.read_into(locator, box, out)
    return out


@pytest.fixture
def no_cache(monkeypatch):
    monkeypatch.setenv("RADIOBJECT_CACHE", "off")
    tile_cache.detach()
    yield
    reader.close_all()
    tile_cache.detach()


def test_every_amount_is_added_and_only_what_moved_is_shown():
    with TileDBStats() as seen:
        stats.count(patches=2, bytes_read=7)
        stats.count(patches=1)
        assert seen.counters() == {"patches": 3, "bytes_read": 7}
    stats.count(patches=5)
    assert seen.counters() == {"patches": 3, "bytes_read": 7}
    assert json.loads(seen.raw_json()) == seen.all_counters()
    assert set(seen.all_counters()) == {f.name for f in dataclasses.fields(stats.Counters)}
    with pytest.raises(AttributeError):
        stats.count(no_such_counter=1)
    with seen:
        stats.count(requests=1)
    assert seen.counters() == {"requests": 1}


def test_threads_lose_nothing():
    def add():
        for _ in range(2000):
            stats.count(tiles_decoded=1, bytes_decoded=3)

    with TileDBStats() as seen:
        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen.counters() == {"tiles_decoded": 8000, "bytes_decoded": 24_000}


def _child_counters():
    return dataclasses.asdict(stats.totals())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_starts_from_zero(method):
    stats.count(patches=1)
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert not any(pool.apply(_child_counters).values())


def test_totals_are_a_copy():
    before = stats.totals()
    stats.count(patches=1)
    assert stats.totals().patches == before.patches + 1


def test_rates():
    assert CacheStats(3, 1, 0, 0).hit_rate == 0.75
    assert CacheStats(3, 1, 0, 0).miss_rate == 0.25
    assert CacheStats(0, 0, 0, 0).hit_rate == CacheStats(0, 0, 0, 0).miss_rate == 0.0
    assert S3Stats(4, 1, 0, 0, 0).parallelization_rate == 0.25
    assert S3Stats(0, 0, 0, 0, 0).parallelization_rate == 0.0


def test_what_a_read_costs_is_what_the_tile_index_says(tmp_path, no_cache):
    data = CODED.copy()
    data[:16, :16, :16] = 5
    locator = writer.write_volume(str(tmp_path / "v"), data, config=TILES)
    index = TileIndex.unpack(locator.index)
    box = Box((3, 5, 7), (20, 31, 32))
    numbers = index.tiling.numbers()[0:2, 0:2, 0:2].ravel()
    constant = int(index.constant[numbers].sum())
    stored = np.diff(index.offsets)[numbers][~index.constant[numbers]].sum()
    with TileDBStats() as seen:
        np.testing.assert_array_equal(read(locator, box), data[box.slices])
    counted = seen.counters()
    assert constant == counted["tiles_constant"] == 1
    assert counted["tiles_decoded"] == 7
    assert counted["patches"] == 1
    assert counted["bytes_delivered"] == box.size * 4
    assert counted["bytes_read"] == stored
    assert counted["bytes_decoded"] == 7 * 16**3 * 4
    cache = seen.cache_stats()
    assert (cache.cache_hits, cache.cache_misses) == (1, 7)
    assert (cache.tile_bytes_read, cache.vfs_read_bytes) == (7 * 16**3 * 4, stored)


def test_a_warm_read_is_all_hits(tmp_path):
    locator = writer.write_volume(str(tmp_path / "v"), CODED + 1, config=TILES)
    whole = Box.whole(SHAPE)
    read(locator, whole)
    with TileDBStats() as seen:
        read(locator, whole)
    assert seen.counters() == {
        "patches": 1, "bytes_delivered": CODED.nbytes, "tiles_cached": 27
    }  # fmt: skip
    assert seen.cache_stats().hit_rate == 1.0


def test_a_fallback_is_counted(tmp_path, no_cache):
    from stored import write

    uri = write(str(tmp_path / "v"), CODED, (16, 16, 16), [tiledb.BitShuffleFilter()])
    with TileDBStats() as seen:
        read(VolumeLocator(uri, SHAPE, "int32"), Box.whole(SHAPE))
    counted = seen.counters()
    assert counted["fallback_volumes"] == counted["fallback_reads"] == counted["array_opens"] == 1
    assert seen.cache_stats().cache_misses == 1


@pytest.mark.s3
def test_what_went_over_the_network_and_what_did_not(s3_bucket, tmp_path, no_cache):
    with TileDBStats() as seen:
        writer.write_volume(str(tmp_path / "v"), CODED)
        locator = writer.write_volume(f"s3://{s3_bucket}/v", CODED)
    index = TileIndex.unpack(locator.index)
    assert seen.s3_stats().write_ops == 1
    assert seen.s3_stats().total_bytes_written == index.file_size
    assert seen.counters()["bytes_written"] == 2 * index.file_size
    with TileDBStats() as seen:
        read(locator, Box.whole(SHAPE))
    over = seen.s3_stats()
    assert (over.read_ops, over.parallelized_reads, over.write_ops) == (1, 0, 0)
    assert over.total_bytes_read == seen.counters()["bytes_read"] == index.offsets[-1]
