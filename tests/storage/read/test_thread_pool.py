"""Threads that share a read: each item once, the first error, no more threads than are free."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from forking import needs

from radiobject import configure, get_radiobject_config
from radiobject import threads as sharing
from radiobject.ctx import CompressionConfig, ReadConfig, WriteConfig
from radiobject.exceptions import IntegrityError
from radiobject.geometry.box import Box
from radiobject.storage.cache import tile_cache
from radiobject.storage.read import reader
from radiobject.storage.read.reader import ReadRequest, read_batch, read_into
from radiobject.storage.read.thread_pool import (
    one_thread,
    run_on_threads,
    run_tasks,
    usable_threads,
)
from radiobject.storage.tables import writer


@pytest.fixture
def four_processors(monkeypatch):
    monkeypatch.setattr(sharing, "processors", lambda: 4)


@pytest.fixture
def nothing_cached(monkeypatch):
    monkeypatch.setenv("RADIOBJECT_CACHE", "off")
    tile_cache.detach()
    reader.close_all()
    yield
    reader.close_all()
    tile_cache.detach()


@pytest.mark.parametrize("threads", [1, 2, 5, 50])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_every_item_is_done_once(threads, count):
    done = []
    run_on_threads(done.append, range(count), threads)
    assert sorted(done) == list(range(count))


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_the_first_error_is_raised_when_all_threads_are_done(threads):
    running = []

    def work(item):
        running.append(item)
        try:
            if item in (3, 4, 40):
                raise ValueError(f"item {item}")
        finally:
            running.remove(item)

    with pytest.raises(ValueError, match=r"item [34]$"):
        run_on_threads(work, range(50), threads)
    assert not running


def test_an_interrupt_of_the_caller_waits_for_the_others():
    caller, both, ended = threading.current_thread(), threading.Barrier(2), []

    def work(item):
        both.wait(timeout=30)
        if threading.current_thread() is caller:
            raise KeyboardInterrupt
        time.sleep(0.1)
        ended.append(item)

    with pytest.raises(KeyboardInterrupt):
        run_on_threads(work, range(2), 2)
    assert len(ended) == 1


def test_one_of_several_has_one_thread(four_processors):
    assert usable_threads() == min(4, get_radiobject_config().read.concurrency)
    inside = []
    run_on_threads(lambda item: inside.append(usable_threads()), range(8), 3)
    assert inside == [1] * 8
    with one_thread():
        assert usable_threads() == 1
    before = get_radiobject_config().read
    configure(read=ReadConfig(concurrency=2))
    assert usable_threads() == 2
    configure(read=before)


@pytest.mark.parametrize(("count", "shared"), [(0, False), (1, False), (2, False), (3, True)])
def test_few_tasks_stay_with_the_caller(four_processors, count, shared):
    began, second = [], threading.Event()

    def task():
        began.append(threading.get_ident())
        if len(began) > 1:
            second.set()
        elif shared:
            second.wait(30)  # until another thread has begun

    run_tasks(task for _ in range(count))
    assert len(began) == count
    assert bool(set(began) - {threading.get_ident()}) == shared


@needs("fork")
def test_a_worker_process_has_one_thread():
    code = (
        "import multiprocessing\n"
        "from radiobject import threads\n"
        "threads.processors = lambda: 4\n"
        "if __name__ == '__main__':\n"
        "    print(threads.usable_threads(), flush=True)\n"
        "    context = multiprocessing.get_context('fork')\n"
        "    child = context.Process(target=lambda: print(threads.usable_threads()))\n"
        "    child.start(); child.join()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4", "1"]


def test_a_forked_child_has_threads_of_its_own():
    run_on_threads(lambda item: None, range(9), 3)
    pid = os.fork()
    if pid == 0:
        done = []
        run_on_threads(done.append, range(9), 3)
        os._exit(0 if sorted(done) == list(range(9)) else 1)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("profile", ["balanced", "fast"])
def test_large_reads_and_batches_by_several_threads_are_right(
    tmp_path, four_processors, nothing_cached, profile
):
    data = np.random.default_rng(0).integers(0, 900, (230, 170, 140)).astype(np.int16)
    config = WriteConfig(compression=CompressionConfig(profile=profile))
    locator = writer.write_volume(str(tmp_path / "v"), data, config=config)
    whole = np.empty(data.shape, np.float32)
    read_into(locator, Box.whole(data.shape), whole)
    np.testing.assert_array_equal(whole, data)
    rng = np.random.default_rng(1)
    starts = [rng.integers(0, np.array(data.shape) - 63).tolist() for _ in range(9)]
    outs = np.empty((9, 64, 64, 64), np.int16)
    read_batch(
        [
            ReadRequest(locator, Box.at(start, (64, 64, 64)), out)
            for start, out in zip(starts, outs, strict=True)
        ]
    )
    for (x, y, z), out in zip(starts, outs, strict=True):
        np.testing.assert_array_equal(out, data[x : x + 64, y : y + 64, z : z + 64])


def test_damage_found_by_another_thread_reaches_the_caller(
    tmp_path, four_processors, nothing_cached
):
    data = np.random.default_rng(0).integers(0, 900, (200, 200, 100)).astype(np.int16)
    locator = writer.write_volume(str(tmp_path / "v"), data)
    (path,) = (tmp_path / "v" / "__fragments").glob("*/a0.tdb")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    reader.close_all()
    with pytest.raises(IntegrityError, match=r"tile \d+ .*checksum"):
        read_into(locator, Box.whole(data.shape), np.empty(data.shape, np.int16))


@needs("fork")
def test_a_fork_while_the_decoder_is_imported_waits_for_it():
    """A module that another thread imports would never be there in the child."""
    code = (
        "import os, sys, threading\n"
        "from radiobject.storage.tiles import blosc_chunk\n"
        "begun = threading.Event()\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'blosc2': begun.set()\n"
        "sys.meta_path.insert(0, Watch())\n"
        "thread = threading.Thread(target=blosc_chunk._load)\n"
        "thread.start()\n"
        "begun.wait()\n"
        "pid = os.fork()\n"
        "blosc_chunk._load()\n"
        "if pid == 0: os._exit(7)\n"
        "thread.join()\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.strip() == "7"
