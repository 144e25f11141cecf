"""What comes along in a range is kept, waited for, and never fetched twice on a first pass."""

import multiprocessing
import random
import threading
import time
import uuid

import numpy as np
import pytest
from forking import needs
from s3_server import Proxy

from radiobject.ctx import S3Config, configure
from radiobject.exceptions import StorageError
from radiobject.geometry.box import Box
from radiobject.storage.cache import tile_cache
from radiobject.storage.io import stats
from radiobject.storage.read import reader
from radiobject.storage.tables import writer
from radiobject.storage.tiles.remote_tiles import (
    RemoteTiles,
    SpareBytes,
    UnreadTiles,
    _Request,
    spare,
    unread,
)
from radiobject.storage.tiles.tile_index import TileIndex
from radiobject.storage.tiles.tile_source import pool

pytestmark = pytest.mark.s3
SHAPE = (200, 160, 150)


@pytest.fixture(scope="module")
def voxels():
    """Noise, so that stored tiles are large, and a corner of background."""
    data = np.random.default_rng(3).integers(0, 3000, SHAPE, dtype=np.int16)
    data[:40] = 0
    return data


@pytest.fixture
def volume(voxels, s3_bucket, monkeypatch):
    monkeypatch.setenv("RADIOBJECT_CACHE", f"remote-tiles-{uuid.uuid4()}")
    tile_cache.detach()
    monkeypatch.setattr(spare, "nbytes", 0)  # what other tests' volumes did not use
    locator = writer.write_volume(f"s3://{s3_bucket}/v", voxels)
    yield locator
    reader.close_all()
    tile_cache.detach()


@pytest.fixture
def proxy(s3_endpoint, volume):
    proxy = Proxy(s3_endpoint)
    configure(s3=S3Config(endpoint=proxy.endpoint))
    yield proxy
    proxy.close()


def _boxes(count, side=40, seed=5):
    draw = random.Random(seed)
    for _ in range(count):
        start = tuple(draw.randrange(n - side + 1) for n in SHAPE)
        yield Box(start, tuple(s + side for s in start))


def _check(locator, voxels, box):
    out = np.empty(box.shape, locator.dtype)
    reader.read_into(locator, box, out)
    np.testing.assert_array_equal(out, voxels[box.slices])


def _stored(locator):
    index = TileIndex.unpack(locator.index)
    return int(index.offsets[-1] - index.offsets[0])


def test_an_epoch_fetches_what_is_stored_and_little_more(volume, voxels):
    before = stats.totals()
    for box in _boxes(60):
        _check(volume, voxels, box)
    fetched = stats.totals().bytes_fetched - before.bytes_fetched
    assert fetched <= 1.15 * _stored(volume)
    assert stats.totals().requests - before.requests < 60


def _asked(tiles, numbers):
    before = stats.totals().requests
    tiles.fetch(numbers)
    return stats.totals().requests - before


def test_a_gap_of_known_bytes_is_bridged_as_long_as_there_are_bytes_to_spare(volume):
    tiles = RemoteTiles(volume.uri, TileIndex.unpack(volume.index))
    assert spare.nbytes == int(0.09 * _stored(volume))
    assert _asked(tiles, range(100, 104)) == 1
    assert _asked(tiles, [98, 105]) == 1
    assert spare.nbytes == int(0.09 * _stored(volume)) - tiles._known_bytes(range(100, 104))
    spare.nbytes = 0
    assert _asked(tiles, range(120, 124)) == 1
    assert _asked(tiles, [118, 125]) == 2


def test_a_later_pass_saves_requests_as_nothing_keeps_what_it_wants(volume):
    tiles = RemoteTiles(volume.uri, TileIndex.unpack(volume.index))
    wanted = [100, 101, 103, 104, 106, 107]
    assert _asked(tiles, range(100, 110)) == 1
    spare.nbytes = 0
    assert _asked(tiles, wanted) == 3
    tiles.fetch(range(len(tiles._fetched)))
    spare.nbytes = 0
    assert _asked(tiles, wanted) == 1


def test_spare_bytes_are_spent_once():
    bytes_left = SpareBytes()
    bytes_left.add(100_000)
    assert bytes_left.spend(60_000)
    assert not bytes_left.spend(60_000)
    assert bytes_left.spend(16 << 10)
    assert bytes_left.nbytes == 40_000 - (16 << 10)
    assert all(bytes_left.spend(16 << 10) for _ in range(3))
    assert bytes_left.nbytes == 0


def test_what_threads_want_at_once_is_asked_for_once(volume, voxels, proxy):
    proxy.delay_s = 0.1
    before = stats.totals()
    wrong = []

    def work(seed):
        try:
            for box in _boxes(8, seed=seed):
                _check(volume, voxels, box)
        except (AssertionError, StorageError) as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert stats.totals().bytes_fetched - before.bytes_fetched <= 1.15 * _stored(volume)


def test_whoever_waits_for_a_request_that_fails_asks_again(volume, voxels, proxy):
    configure(s3=S3Config(endpoint=proxy.endpoint, patience_s=0))
    index = TileIndex.unpack(volume.index)
    tiles = RemoteTiles(volume.uri, index)
    numbers = np.flatnonzero(~index.constant).tolist()[:4]
    proxy.delay_s = 0.5
    proxy.failures += ["503"]
    outcomes = {}

    def work(name):
        try:
            outcomes[name] = [bytes(tile) for tile in tiles.fetch(numbers)]
        except StorageError as error:
            outcomes[name] = error

    first = threading.Thread(target=work, args=("first",))
    first.start()
    time.sleep(0.2)
    work("second")
    first.join()
    assert isinstance(outcomes["first"], StorageError)
    assert outcomes["second"] == [bytes(tile) for tile in tiles.fetch(numbers)]


@needs("fork")
def test_a_child_does_not_wait_for_its_parents_requests(volume, voxels, proxy):
    box = next(_boxes(1))
    proxy.delay_s = 1.0
    parent = threading.Thread(target=_check, args=(volume, voxels, box))
    parent.start()
    time.sleep(0.3)
    proxy.delay_s = 0.0
    with multiprocessing.get_context("fork").Pool(1) as workers:
        workers.apply_async(_check, (volume, voxels, box)).get(30)
    parent.join()


def test_what_a_child_inherits_waits_for_nobody(volume):
    """A forked child has the open sources, and none of the threads that had asked for tiles."""
    index = TileIndex.unpack(volume.index)
    tiles = pool.source(volume.uri, index)
    number = int(np.flatnonzero(~index.constant)[0])
    tiles._coming[number] = _Request()
    pool.renew_in_child()
    asked = threading.Thread(target=tiles.fetch, args=([number],), daemon=True)
    asked.start()
    asked.join(20)
    assert not asked.is_alive()


def test_what_another_thread_still_decodes_is_not_fetched_again(volume):
    tiles = RemoteTiles(volume.uri, TileIndex.unpack(volume.index))
    first = tiles.fetch([100, 102])
    between = tiles.fetch([101])
    before = stats.totals().requests
    assert [tiles.fetch([n])[0] == tile for n, tile in ((100, first[0]), (101, between[0]))]
    assert stats.totals().requests == before
    del first, between
    assert _asked(tiles, [100]) == 1


def test_unread_tiles_stay_within_their_bytes_and_are_given_once():
    kept = UnreadTiles()
    for volume in "abcd":
        kept.keep(volume, {n: bytes(10) for n in range(5)}, 120)
    assert kept.nbytes == 100
    assert kept.take("b", range(5)) == {}
    assert kept.take("d", [1, 7]) == {1: bytes(10)}
    assert kept.take("d", [1]) == {}
    assert kept.nbytes == 90
    kept.forget("c")
    assert kept.nbytes == 40
    kept.keep("e", {0: bytes(500)}, 120)
    assert kept.nbytes == 0


def test_nothing_is_kept_where_that_is_asked(volume, voxels):
    configure(s3=S3Config(unread_tiles_mb=0))
    for box in _boxes(5):
        _check(volume, voxels, box)
    assert unread.nbytes == 0


def test_a_tile_that_was_altered_on_its_way_is_not_given_out_again(volume, voxels, proxy):
    proxy.failures += ["flip", "flip"]
    _check(volume, voxels, Box.at((100, 100, 100), (4, 4, 4)))
    assert not proxy.failures
