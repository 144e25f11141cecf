"""The decoded cache where the system refuses shared memory: it says so, and reading goes on."""

import errno
import multiprocessing
import os

import numpy as np
import pytest

from radiobject.ctx import ReadConfig, configure
from radiobject.geometry.box import Box
from radiobject.stats import TileDBStats
from radiobject.storage.cache import tile_cache
from radiobject.storage.read import reader
from radiobject.storage.tables import writer

SHAPE = (40, 40, 40)
VOXELS = (np.arange(np.prod(SHAPE)) % 30011).reshape(SHAPE).astype(np.int16)
TOO_MUCH_MB = 1 << 36


@pytest.fixture
def refused(monkeypatch, new_cache):
    """No memory file can be made, as under a filter of system calls."""

    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refuse)
    monkeypatch.setattr("radiobject.storage.cache.arena_discovery.find_shared", lambda: None)


def decoded(locator):
    out = np.empty(SHAPE, np.int16)
    with TileDBStats() as stats:
        reader.read_into(locator, Box.whole(SHAPE), out)
    np.testing.assert_array_equal(out, VOXELS)
    return stats.counters().get("tiles_decoded", 0)


def report(locator, through):
    through.put((decoded(locator), tile_cache.cache_use().shared_by))


@pytest.mark.usefixtures("refused")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_each_process_keeps_its_own_and_a_forked_one_begins_with_it(tmp_path, caplog):
    configure(read=ReadConfig(tile_cache_size_mb=10))
    locator = writer.write_volume(str(tmp_path / "v"), VOXELS)
    assert [decoded(locator), decoded(locator)] == [8, 0]
    assert tile_cache.cache_use().shared_by == "process"
    assert tile_cache.cache_use().tile_bytes == VOXELS.nbytes
    assert [r.message for r in caplog.records] == [
        "no shared memory for decoded tiles ([Errno 38] Function not implemented): each process "
        "keeps its own"
    ]
    context = multiprocessing.get_context("fork")
    through = context.Queue()
    child = context.Process(target=report, args=(locator, through))
    child.start()
    assert through.get(timeout=60) == (0, "process")
    child.join()
    assert child.exitcode == 0


@pytest.mark.usefixtures("refused")
def test_without_any_memory_every_read_decodes(tmp_path, caplog):
    configure(read=ReadConfig(tile_cache_size_mb=TOO_MUCH_MB))
    locator = writer.write_volume(str(tmp_path / "v"), VOXELS)
    assert [decoded(locator), decoded(locator)] == [8, 8]
    assert tile_cache.cache_use().shared_by == "nobody"
    said = [record.message for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith("no memory for decoded tiles (")
