"""Workers of every start method read right, share one cache, and leave nothing behind."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import leftovers
import numpy as np
import pytest
import tiledb
import worker_reads

from radiobject.geometry.box import Box
from radiobject.storage.cache import arena_discovery, tile_cache
from radiobject.storage.io import libtiledb
from radiobject.storage.read import reader
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.tables import writer
from radiobject.system import common_memory

# Forking beside running threads is what these tests are about.
pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
TIMEOUT_S = 120


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, request):
    """An empty cache: what other tests left in theirs may leave no room."""
    if "forkserver" in request.node.name:  # its environment is that of its start
        yield
        return
    monkeypatch.setenv("RADIOBJECT_CACHE", f"safety-{os.getpid()}-{abs(hash(request.node.name))}")
    reader.close_all()
    tile_cache.detach()
    yield
    reader.close_all()
    tile_cache.detach()


@pytest.fixture(scope="module")
def locator(tmp_path_factory):
    shape = (70, 60, 50)
    data = (np.arange(np.prod(shape)) % 30011).reshape(shape).astype(np.int16)
    yield writer.write_volume(str(tmp_path_factory.mktemp("shared") / "v"), data)
    reader.close_all()


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """A volume that only libtiledb reads."""
    shape = (70, 60, 50)
    data = (np.arange(np.prod(shape)) % 30011).reshape(shape).astype(np.int16)
    uri = str(tmp_path_factory.mktemp("refused") / "v")
    dims = [
        tiledb.Dim(a, domain=(0, n - 1), tile=32, dtype=np.int32)
        for a, n in zip("xyz", shape, strict=True)
    ]
    filters = tiledb.FilterList([tiledb.BitShuffleFilter(), tiledb.ZstdFilter()])
    attr = tiledb.Attr("voxels", dtype=np.int16, filters=filters)
    tiledb.Array.create(uri, tiledb.ArraySchema(domain=tiledb.Domain(*dims), attrs=[attr]))
    with tiledb.open(uri, "w") as array:
        array[...] = data
    return VolumeLocator(uri, shape, "int16")


def run(method, workers, locator, count=30):
    context = multiprocessing.get_context(method)
    through = context.Queue()
    started = [
        context.Process(target=worker_reads.read_boxes, args=(locator, seed, count, through))
        for seed in range(workers)
    ]
    for process in started:
        process.start()
    answers = [through.get(timeout=TIMEOUT_S) for _ in started]
    for process in started:
        process.join(TIMEOUT_S)
        assert process.exitcode == 0
    assert [wrong for wrong, _ in answers] == [0] * workers
    return [counted for _, counted in answers]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_fork_eleven_times(locator, refused, workers):
    for _ in range(11):
        # The parent has open arrays, contexts and mappings when it forks.
        worker_reads.wrong_and_counted(locator, 1, 2)
        worker_reads.wrong_and_counted(refused, 1, 2)
        run("fork", workers, locator, 10)
        run("fork", workers, refused, 3)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_forkserver(locator, workers):
    run("forkserver", workers, locator)


@pytest.mark.parametrize("workers", [1, 2])
def test_spawn(locator, refused, workers):
    run("spawn", workers, locator)
    run("spawn", workers, refused, 3)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_share_what_was_decoded(locator, method):
    whole = np.empty(locator.shape, np.int16)
    reader.read_into(locator, Box.whole(locator.shape), whole)
    counted = run(method, 1, locator)[0]
    assert "tiles_decoded" not in counted
    assert counted["tiles_cached"] > 0


def test_what_a_worker_decoded_serves_its_parent(tmp_path):
    shape = (64, 64, 64)
    data = (np.arange(np.prod(shape)) % 30011).reshape(shape).astype(np.int16)
    locator = writer.write_volume(str(tmp_path / "v"), data)
    # The parent holds the arena and its own place in it; the worker fills it and ends.
    worker_reads.wrong_and_counted(writer.write_volume(str(tmp_path / "w"), data), 0, 1)
    run("spawn", 1, locator, 200)
    wrong, counted = worker_reads.wrong_and_counted(locator, 0, 200)
    assert wrong == 0
    assert "tiles_decoded" not in counted


def test_fork_while_threads_read(locator, refused):
    stop = threading.Event()
    failures = []

    def keep_reading(where, seed):
        while not stop.is_set():
            wrong, _ = worker_reads.wrong_and_counted(where, seed, 3)
            if wrong:
                failures.append(seed)

    threads = [
        threading.Thread(target=keep_reading, args=(where, seed))
        for seed, where in enumerate((locator, refused))
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            reader.forget(locator.uri)
            run("fork", 2, locator, 5)
            run("fork", 1, refused, 2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def test_nothing_is_left_after_kill(tmp_path, monkeypatch):
    shape = (64, 64, 64)
    data = (np.arange(np.prod(shape)) % 30011).reshape(shape).astype(np.int16)
    uri = writer.write_volume(str(tmp_path / "v"), data).uri
    monkeypatch.setenv("RADIOBJECT_CACHE", f"kill-{os.getpid()}")
    before = leftovers.names("/dev/shm"), os.listdir(tmp_path)
    child = subprocess.Popen(
        [sys.executable, worker_reads.__file__, uri], stdout=subprocess.PIPE, text=True
    )
    assert int(child.stdout.readline()) == data.nbytes
    found = arena_discovery.find_shared()
    assert found is not None
    status = os.fstat(found)
    assert status.st_mode & 0o777 == 0o600
    assert status.st_uid == os.geteuid()
    assert status.st_blocks * 512 > data.nbytes
    os.close(found)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert arena_discovery.find_shared() is None
    # What others of the same machine share is named by themselves, or by their processes.
    left = leftovers.names("/dev/shm") - before[0]
    assert not [n for n in left if n.startswith("radiobject") or str(child.pid) in n]
    assert os.listdir(tmp_path) == before[1]


def test_killed_while_filling(tmp_path):
    """Whatever a killed worker left half-done, the next reader gets the right voxels."""
    shape = (70, 60, 50)
    data = (np.arange(np.prod(shape)) % 30011).reshape(shape).astype(np.int16)
    locators = [writer.write_volume(str(tmp_path / str(i)), data) for i in range(12)]
    context = multiprocessing.get_context("fork")
    for attempt in range(6):
        child = context.Process(target=worker_reads.fill_without_end, args=(locators,))
        child.start()
        time.sleep(0.03 * (attempt + 1))
        child.kill()
        child.join()
    for locator in locators:
        wrong, _ = worker_reads.wrong_and_counted(locator, 0, 30)
        assert wrong == 0


def test_locators_pickle_and_what_is_open_does_not(locator):
    import pickle

    assert pickle.loads(pickle.dumps(locator)) == locator
    with pytest.raises(TypeError):
        pickle.dumps(libtiledb.session(remote=False))


def test_memory_of_a_dead_process_is_reused(tmp_path, monkeypatch):
    """What only a killed worker used makes room when another volume needs it."""
    monkeypatch.setenv("RADIOBJECT_CACHE", f"reuse-{os.getpid()}")
    tile_cache.detach()
    reader.close_all()
    try:
        mine = tile_cache.shared_arena()
        assert mine is not None
        shape = (64, 64, 64)
        data = (np.arange(np.prod(shape)) % 30011).reshape(shape).astype(np.int16)
        uri = writer.write_volume(str(tmp_path / "v"), data).uri
        child = subprocess.Popen(
            [sys.executable, worker_reads.__file__, uri], stdout=subprocess.PIPE, text=True
        )
        child.stdout.readline()
        assert mine.charged == data.nbytes
        child.kill()
        child.wait()
        child.stdout.close()
        assert mine.charged == data.nbytes
        resident = mine.resident
        other = writer.write_volume(str(tmp_path / "w"), data + 1)
        budget = data.nbytes + 1000
        monkeypatch.setattr(tile_cache, "budget_bytes", lambda arena: budget)
        out = np.empty(shape, np.int16)
        reader.read_into(other, Box.whole(shape), out)
        np.testing.assert_array_equal(out, data + 1)
        assert mine.charged == data.nbytes
        assert mine.resident < resident + data.nbytes // 2
    finally:
        reader.close_all()
        tile_cache.detach()
        gc.collect()


def test_versions_with_other_tables_share_no_arena():
    """The gate runs two versions on one machine: neither may read the other's tables."""
    from radiobject.storage.cache import arena

    tables = (arena._HEADER, arena._PROCESS, arena._VOLUME)
    assert arena.magic_of(*tables) == arena.MAGIC
    other = np.dtype([*arena._VOLUME.descr[:-2], arena._VOLUME.descr[-1]])
    fd = common_memory.make_memory_file("radiobject-other-tables", arena.VIRTUAL_BYTES)
    arena.format_arena(common_memory.MemoryFile(fd, arena.VIRTUAL_BYTES), 1 << 20)
    assert arena.is_arena(fd)
    os.pwrite(fd, arena.magic_of(*tables[:2], other).to_bytes(8, "little"), 0)
    assert not arena.is_arena(fd)
    os.close(fd)
