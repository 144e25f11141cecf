"""Which tiles a cache that is too small for the data holds."""

import gc
import os

import numpy as np
import pytest

from radiobject.geometry.box import Box
from radiobject.stats import TileDBStats
from radiobject.storage.cache import tile_cache
from radiobject.storage.read import reader
from radiobject.storage.read.reader import ReadRequest, read_batch
from radiobject.storage.tables import writer

SHAPE = (96, 96, 96)
VOLUMES = 8


@pytest.fixture
def volumes(tmp_path, monkeypatch):
    monkeypatch.setenv("RADIOBJECT_CACHE", f"share-{os.getpid()}")
    reader.close_all()
    tile_cache.detach()
    data = [np.random.default_rng(i).integers(0, 3000, SHAPE, np.int16) for i in range(VOLUMES)]
    yield data, [writer.write_volume(str(tmp_path / f"{i}"), v) for i, v in enumerate(data)]
    reader.close_all()
    tile_cache.detach()
    gc.collect()


def give_room_for(monkeypatch, nbytes):
    monkeypatch.setattr(tile_cache, "budget_bytes", lambda arena: int(nbytes))


def read_randomly(volumes, rng, count, sides=(64, 64, 64), limit=SHAPE):
    data, locators = volumes
    out = np.empty(sides, np.int16)
    for _ in range(count):
        i = int(rng.integers(VOLUMES))
        start = [int(rng.integers(0, n - s + 1)) for n, s in zip(limit, sides, strict=True)]
        box = Box.at(start, sides)
        read_batch([ReadRequest(locators[i], box, out)])
        assert np.array_equal(out, data[i][box.slices])


def decoded_again(locator, sides=SHAPE):
    with TileDBStats() as stats:
        reader.read_into(locator, Box.at((0, 0, 0), sides), np.empty(sides, np.int16))
    return stats.counters().get("tiles_decoded", 0)


@pytest.mark.parametrize("held", [2, 4])
def test_a_share_of_the_volumes_is_held_whole(volumes, monkeypatch, held):
    give_room_for(monkeypatch, held * volumes[0][0].nbytes)
    read_randomly(volumes, np.random.default_rng(7), 300)
    again = [decoded_again(locator) for locator in volumes[1]]
    assert again.count(0) == held
    assert tile_cache.cache_use().tile_bytes <= held * volumes[0][0].nbytes


def test_room_that_a_volume_leaves_is_given_to_others(volumes, monkeypatch):
    # A corner of each volume is all that is ever read: three of eight are admitted at first.
    corner = (32, 32, 64)
    give_room_for(monkeypatch, 3 * volumes[0][0].nbytes)
    monkeypatch.setattr(tile_cache, "_TURN_S", 0.0)
    read_randomly(volumes, np.random.default_rng(3), 1000, sides=(20, 20, 30), limit=corner)
    assert [decoded_again(locator, corner) for locator in volumes[1]] == [0] * VOLUMES


def test_volumes_larger_than_the_room_use_it(volumes, monkeypatch):
    tile = 32**3 * 2
    give_room_for(monkeypatch, 20 * tile)  # a volume has 27
    monkeypatch.setattr(tile_cache, "_TURN_S", 0.0)
    read_randomly(volumes, np.random.default_rng(5), 600, sides=(24, 24, 24))
    assert 4 * tile <= tile_cache.cache_use().tile_bytes <= 20 * tile
