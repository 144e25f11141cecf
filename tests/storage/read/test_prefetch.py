"""Look-ahead keeps the order, its bound and its promises about errors and cancelling."""

import threading

import numpy as np
import pytest
from stored import coded

from radiobject.exceptions import StorageError, StoreNotFoundError
from radiobject.geometry.box import Box
from radiobject.stats import TileDBStats
from radiobject.storage.read import reader
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.prefetch import Prefetch
from radiobject.storage.read.reader import ReadRequest
from radiobject.storage.tables import writer


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    data = coded((60, 50, 40), "int16")
    yield data, writer.write_volume(str(tmp_path_factory.mktemp("ahead") / "v"), data)
    reader.close_all()


def request_at(locator, i):
    box = Box.at((i % 30, i % 20, i % 10), (16, 16, 16))
    return ReadRequest(locator, box, np.empty(box.shape, np.int16))


@pytest.mark.parametrize("threads", [1, 4])
def test_order_and_content(volume, threads):
    data, locator = volume
    plan = [[request_at(locator, 2 * i), request_at(locator, 2 * i + 1)] for i in range(25)]
    with TileDBStats() as stats, Prefetch(iter(plan), depth=3, threads=threads) as ahead:
        seen = list(ahead)
    assert [id(batch) for batch in seen] == [id(batch) for batch in plan]
    for batch in plan:
        for request in batch:
            np.testing.assert_array_equal(request.out, data[request.box.slices])
    assert stats.counters()["lookahead_boxes"] == 50


def counted_plan(locator, taken):
    """Twenty batches, each noted in `taken` when it is asked for."""
    for i in range(20):
        taken.append(i)
        yield [request_at(locator, i)]


def test_never_further_ahead_than_asked(volume):
    _, locator = volume
    taken = []
    with Prefetch(counted_plan(locator, taken), depth=3) as ahead:
        for handed, _ in enumerate(ahead, start=1):
            assert len(taken) <= handed + 2


def test_the_first_batch_is_read_alone(volume):
    _, locator = volume
    taken = []
    with Prefetch(counted_plan(locator, taken), depth=8) as ahead:
        next(ahead)
        assert len(taken) == 1
        next(ahead)
        assert len(taken) == 9


def test_first_error_names_the_volume_and_ends_it(volume, tmp_path):
    _, locator = volume
    ghost = VolumeLocator(str(tmp_path / "none"), (60, 50, 40), "int16", obs_id="ghost")
    plan = [[request_at(locator, 0)], [request_at(ghost, 1)], [request_at(locator, 2)]]
    ahead = Prefetch(plan, depth=3)
    next(ahead)
    with pytest.raises(StoreNotFoundError, match=r"volume 'ghost'"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)
    assert issubclass(StoreNotFoundError, StorageError)


def test_leaving_early_ends_the_threads(volume):
    _, locator = volume
    before = set(threading.enumerate())
    with Prefetch(([request_at(locator, i)] for i in range(1000)), depth=8, threads=4) as ahead:
        next(ahead)
    assert set(threading.enumerate()) <= before
