"""What the worker processes of the tests of process safety do."""

import sys
import time

import numpy as np

from radiobject.geometry.box import Box
from radiobject.stats import TileDBStats
from radiobject.storage.cache import tile_cache
from radiobject.storage.read import reader


def read_boxes(locator, seed, count, through):
    """Read random boxes and put the number of wrong ones, and the counters, into a queue."""
    through.put(wrong_and_counted(locator, seed, count))


def read_boxes_with(memory, locator, seed, count, through):
    """Do so with the cache that the process which started this one gave it."""
    tile_cache.inherit(memory)
    read_boxes(locator, seed, count, through)


def wrong_and_counted(locator, seed, count):
    rng = np.random.default_rng(seed)
    wrong = 0
    size = np.prod(locator.shape)
    coded = (np.arange(size) % 30011).reshape(locator.shape).astype(locator.dtype)
    with TileDBStats() as stats:
        for _ in range(count):
            box = Box.at([int(rng.integers(0, n - 20)) for n in locator.shape], (20, 20, 20))
            out = np.empty(box.shape, locator.dtype)
            reader.read_into(locator, box, out)
            wrong += not np.array_equal(out, coded[box.slices])
    return wrong, stats.counters()


def fill_and_wait(uri):
    """Fill the cache with one volume, say how much it takes, and wait to be killed."""
    from radiobject.storage.read.locator import VolumeLocator

    locator = VolumeLocator(uri, (64, 64, 64), "int16")
    reader.read_into(locator, Box.whole(locator.shape), np.empty(locator.shape, np.int16))
    print(tile_cache.cache_use().tile_bytes, flush=True)
    time.sleep(60)


def fill_without_end(locators):
    """Bring tiles of many volumes into the cache, again and again, until killed."""
    while True:
        for locator in locators:
            wrong_and_counted(locator, time.monotonic_ns() % 1000, 20)


if __name__ == "__main__":
    fill_and_wait(sys.argv[1])
