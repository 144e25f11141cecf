"""Budgets of the read path, by count and by memory."""

import gc
import multiprocessing
import os
import re
import sys

import numpy as np
import psutil
import pytest
import tiledb
from stored import coded, write

import radiobject
from radiobject.geometry.box import Box
from radiobject.stats import TileDBStats
from radiobject.storage.read import reader
from radiobject.storage.read.reader import ReadRequest, Rescale
from radiobject.storage.tables import writer

PACKAGE = os.path.dirname(radiobject.__file__)
SHAPE = (128, 100, 90)


@pytest.fixture(scope="module")
def locator(tmp_path_factory):
    data = coded(SHAPE, "int16")
    locator = writer.write_volume(str(tmp_path_factory.mktemp("budget") / "v"), data)
    reader.read_into(locator, Box.whole(SHAPE), np.empty(SHAPE, np.int16))
    yield locator
    reader.close_all()


def calls_inside_the_package(run):
    seen = []

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            seen.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return seen


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_a_warm_patch_takes_at_most_eight_calls(locator, dtype):
    batch = np.empty((4, 64, 64, 64), dtype)
    rescale = Rescale(0.5, 1.0) if dtype == "float32" else None
    requests = [
        ReadRequest(locator, Box.at((i, i, i), (64, 64, 64)), batch[i], None, rescale)
        for i in range(4)
    ]
    for count, given in ((1, requests[:1]), (4, requests)):
        seen = calls_inside_the_package(lambda given=given: reader.read_batch(given))
        assert len(seen) <= 8 * count, seen


def test_a_warm_patch_opens_and_asks_nothing(locator):
    out = np.empty((64, 64, 64), np.int16)
    with TileDBStats() as stats:
        reader.read_into(locator, Box.at((5, 6, 7), out.shape), out)
    assert set(stats.counters()) == {"patches", "bytes_delivered", "tiles_cached"}


def random_patches(locator, count, seed=0):
    rng = np.random.default_rng(seed)
    out = np.empty((32, 32, 32), np.int16)
    for _ in range(count):
        start = [int(rng.integers(0, n - 32)) for n in SHAPE]
        reader.read_into(locator, Box.at(start, out.shape), out)


def private_bytes():
    gc.collect()
    return psutil.Process().memory_full_info().uss


def growth(locator, count):
    random_patches(locator, 500)
    before = private_bytes()
    random_patches(locator, count)
    return private_bytes() - before


def _report_growth(locator, count, through):
    through.put(growth(locator, count))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_is_flat_over_100_000_patches(locator, workers):
    if not workers:
        assert growth(locator, 100_000) < 20 << 20
        return
    context = multiprocessing.get_context("fork")
    through = context.Queue()
    started = [
        context.Process(target=_report_growth, args=(locator, 50_000, through))
        for _ in range(workers)
    ]
    for process in started:
        process.start()
    assert sum(through.get(timeout=280) for _ in started) < 20 << 20
    for process in started:
        process.join()


def test_memory_is_flat_on_both_slow_ways(tmp_path, locator, monkeypatch):
    from radiobject.storage.cache import tile_cache
    from radiobject.storage.read.locator import VolumeLocator

    filters = [tiledb.BitShuffleFilter()]
    uri = write(str(tmp_path / "v"), coded(SHAPE, "int16"), (32, 32, 32), filters)
    assert growth(VolumeLocator(uri, SHAPE, "int16"), 1500) < 10 << 20
    monkeypatch.setenv("RADIOBJECT_CACHE", "off")
    reader.close_all()
    tile_cache.detach()
    try:
        assert growth(locator, 3000) < 5 << 20
    finally:
        reader.close_all()
        tile_cache.detach()


def test_libtiledb_still_has_no_decoded_tile_cache(tmp_path):
    """`sm.tile_cache_size` does nothing: the reason for a cache of our own."""
    ctx = tiledb.Ctx({"sm.tile_cache_size": str(1 << 30)})
    uri = write(str(tmp_path / "v"), coded(SHAPE, "int16"), (32, 32, 32), [tiledb.ZstdFilter()])
    decoded = []
    with tiledb.open(uri, ctx=ctx) as array:
        for _ in range(2):
            tiledb.stats_reset()
            tiledb.stats_enable()
            array[:]
            report = tiledb.stats_dump(print_out=False, json=True)
            tiledb.stats_disable()
            decoded.append(re.search(r'Reader.tiles_unfiltered": (\d+)', str(report)).group(1))
    assert decoded[0] == decoded[1] != "0"
