"""Budgets of the read path, by count and by memory."""

import os
import re
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import stored_memory
import tiledb
from memory_alone import alone
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
def test_a_warm_patch_takes_at_most_six_calls(locator, dtype):
    batch = np.empty((4, 64, 64, 64), dtype)
    rescale = Rescale(0.5, 1.0) if dtype == "float32" else None
    requests = [
        ReadRequest(locator, Box.at((i, i, i), (64, 64, 64)), batch[i], None, rescale)
        for i in range(4)
    ]
    for count, given in ((1, requests[:1]), (4, requests)):
        seen = calls_inside_the_package(lambda given=given: reader.read_batch(given))
        assert len(seen) <= 6 * count, seen


def test_a_warm_patch_is_one_copy_from_the_cache_into_the_batch(locator):
    """Nothing of the size of a patch is made on the way; NumPy converts in small pieces."""
    for dtype, rescale in (("int16", None), ("float32", None), ("float32", Rescale(0.5, 1.0))):
        batch = np.empty((2, 64, 64, 64), dtype)
        boxes = [Box.at((i, i, i), (64, 64, 64)) for i in range(2)]
        requests = [ReadRequest(locator, b, batch[i], None, rescale) for i, b in enumerate(boxes)]
        reader.read_batch(requests)
        tracemalloc.start()
        reader.read_batch(requests)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < batch[0].nbytes / 4, (dtype, rescale, most)
        want = coded(SHAPE, "int16")[boxes[1].slices].astype(dtype)
        np.testing.assert_array_equal(batch[1], want if rescale is None else want * 0.5 + 1.0)


def test_a_warm_patch_opens_and_asks_nothing(locator):
    out = np.empty((64, 64, 64), np.int16)
    with TileDBStats() as stats:
        reader.read_into(locator, Box.at((5, 6, 7), out.shape), out)
    assert set(stats.counters()) == {"patches", "bytes_delivered", "tiles_cached"}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_is_flat_over_100_000_patches(tmp_path, workers):
    if not workers:
        assert alone(stored_memory.patches, tmp_path, 100_000) < 20
        return
    with ThreadPoolExecutor(workers) as pool:
        folders = [tmp_path / str(n) for n in range(workers)]
        for folder in folders:
            folder.mkdir()
        jobs = [stored_memory.patches] * workers
        assert sum(pool.map(alone, jobs, folders, [50_000] * workers)) < 20


def test_memory_is_flat_on_both_slow_ways(tmp_path):
    for count, limit_mib, job in (
        (600, 4, stored_memory.patches_through_libtiledb),
        (1500, 2, stored_memory.patches_without_a_cache),
    ):
        folder = tmp_path / job.__name__
        folder.mkdir()
        assert alone(job, folder, count) < limit_mib


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
