"""The decoded cache without memory files: given to the processes that this one starts."""

import gc
import multiprocessing
import os
import subprocess
import sys

import leftovers
import numpy as np
import pytest
import worker_reads

from radiobject.ctx import ReadConfig, configure
from radiobject.geometry.box import Box
from radiobject.stats import TileDBStats
from radiobject.storage.cache import arena, tile_cache
from radiobject.storage.read import reader
from radiobject.storage.tables import writer
from radiobject.system import common_memory

SHAPE = (64, 64, 64)
NBYTES = 64**3 * 2


@pytest.fixture
def without_memory_files(monkeypatch, new_cache):
    monkeypatch.setattr(common_memory, "finds_memory_files", False)


def volumes(folder, count):
    data = (np.arange(np.prod(SHAPE)) % 30011).reshape(SHAPE).astype(np.int16)
    return [writer.write_volume(str(folder / str(n)), data) for n in range(count)]


def decoded(locator):
    with TileDBStats() as stats:
        reader.read_into(locator, Box.whole(SHAPE), np.empty(SHAPE, np.int16))
    return stats.counters().get("tiles_decoded", 0)


@pytest.mark.usefixtures("without_memory_files")
def test_tiles_are_decoded_once_and_the_budget_holds(tmp_path):
    configure(read=ReadConfig(tile_cache_size_mb=10))
    locators = volumes(tmp_path, 30)
    for locator in locators:
        decoded(locator)
    again = [decoded(locator) for locator in locators]
    assert again.count(0) == (10 << 20) // NBYTES
    use = tile_cache.cache_use()
    assert use.shared_by == "children"
    assert use.tile_bytes <= use.budget_bytes == 10 << 20
    assert use.tile_bytes < use.resident_bytes < arena.bytes_for(10 << 20)


@pytest.mark.usefixtures("without_memory_files")
def test_room_is_used_again_and_nothing_old_is_read(tmp_path):
    configure(read=ReadConfig(tile_cache_size_mb=10))
    for pass_ in range(3):
        for n in range(20):
            values = np.random.default_rng(100 * pass_ + n).integers(0, 9999, SHAPE, np.int16)
            locator = writer.write_volume(str(tmp_path / f"{pass_}-{n}"), values)
            assert decoded(locator) == 8
            out = np.empty(SHAPE, np.int16)
            reader.read_into(locator, Box.whole(SHAPE), out)
            np.testing.assert_array_equal(out, values)
        reader.close_all()
        gc.collect()
    assert 0 < tile_cache.cache_use().tile_bytes <= 10 << 20


@pytest.mark.usefixtures("without_memory_files")
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_processes_that_are_started_have_it(tmp_path, method):
    locator = volumes(tmp_path, 1)[0]
    assert decoded(locator) == 8
    assert decoded(locator) == 0
    context = multiprocessing.get_context(method)
    through = context.Queue()
    given = tile_cache.inheritance()
    child = context.Process(
        target=worker_reads.read_boxes_with, args=(given, locator, 1, 30, through)
    )
    child.start()
    wrong, counted = through.get(timeout=60)
    child.join()
    assert (child.exitcode, wrong) == (0, 0)
    assert "tiles_decoded" not in counted
    assert counted["tiles_cached"] > 0


def test_where_processes_find_the_cache_nothing_is_given():
    assert tile_cache.shared_arena() is None or tile_cache.inheritance() is None


@pytest.mark.parametrize("kind", ["posixshm", "file"])
def test_nothing_is_left_behind_after_kill(tmp_path, kind):
    """Without memory files: by shared-memory objects, as on macOS, and by files without a name."""
    code = (
        "import os, signal\n"
        "from radiobject.system import memory\n"
        "memory.has_memory_files = False\n"
        + ("memory.posixshmem = None\n" if kind == "file" else "")
        + "shared = memory.SharedMemory('test', 1 << 20)\n"
        "shared.mapping[:] = b'x' * (1 << 20)\n"
        "shared.lock()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    before = leftovers.names("/dev/shm", ("radiobject",))
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=False)
    assert ran.returncode == -9
    assert os.listdir(tmp_path) == []
    assert not leftovers.stay("/dev/shm", before, ("radiobject",))
