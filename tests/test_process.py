"""What happens at a fork has one owner and one order, and a child works with every component."""

import ast
import os
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest
from imports import modules

from radiobject import process
from radiobject.process import ORDER, ForkHooks

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
]


def test_hooks_run_in_the_order_that_is_written_down():
    ran = []
    hooks = ForkHooks(("a", "b", "c"))
    for name in ("c", "a", "b"):  # as modules may be imported
        hooks.add(
            name,
            before=lambda name=name: ran.append(f"before {name}"),
            in_parent=lambda name=name: ran.append(f"parent {name}"),
            in_child=lambda name=name: ran.append(f"child {name}"),
        )
    hooks.before()
    hooks.in_parent()
    hooks.in_child()
    assert ran == [f"{when} {name}" for when, names in (
        ("before", "cba"), ("parent", "abc"), ("child", "abc")) for name in names]  # fmt: skip


def test_one_that_fails_keeps_no_other_from_being_renewed():
    ran = []

    def fail():
        raise ValueError("of the first")

    hooks = ForkHooks(("a", "b"))
    hooks.add("a", in_child=fail)
    hooks.add("b", in_child=lambda: ran.append("b"))
    with pytest.raises(ValueError, match="of the first"):
        hooks.in_child()
    assert ran == ["b"]


def test_a_component_without_a_place_is_refused():
    with pytest.raises(ValueError, match=r"'x' has no place in the order \('a',\)"):
        ForkHooks(("a",)).add("x", in_child=list)


def test_libtiledb_is_first_and_every_component_registered():
    import radiobject.ml.datasets.transforms
    import radiobject.storage.cache.registration
    import radiobject.storage.io.lock
    import radiobject.storage.read.reader  # noqa: F401

    assert ORDER[0] == "libtiledb"
    assert set(process._hooks._hooks) == set(ORDER)


def test_forks_threads_and_pools_have_one_owner():
    strays = []
    for module, path in modules("radiobject").items():
        if module == "radiobject.process" or module.startswith("radiobject.system"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "attr", getattr(node, "id", None))
            if name in ("register_at_fork", "ThreadPoolExecutor", "ProcessPoolExecutor"):
                strays.append(f"{module}:{node.lineno} {name}")
    assert strays == []


def test_threads_last_and_a_child_has_its_own():
    pool = process.lasting_threads("test", 2)
    assert process.lasting_threads("test", 2) is pool
    assert pool.submit(threading.get_ident).result() != threading.get_ident()
    code = "import test_process; test_process.threads_in_a_child()"
    _run(code)


def threads_in_a_child():
    pool = process.lasting_threads("test", 2)
    parent = pool.submit(os.getpid).result()
    child = os.fork()
    if not child:
        renewed = process.lasting_threads("test", 2)
        good = renewed is not pool and renewed.submit(os.getpid).result(20) != parent
        os._exit(0 if good else 7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_works_with_all_that_its_parent_touched(tmp_path):
    _run("import test_process; test_process.touch_fork_touch()", tmp_path)


def test_a_child_works_whatever_lock_a_thread_held_at_the_fork(tmp_path):
    _run("import test_process; test_process.fork_under_every_lock()", tmp_path)


def _run(code, folder="."):
    here = Path(__file__).parent
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        cwd=folder,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(map(str, (here.parent, here, here / "storage"))),
            "RADIOBJECT_CACHE": f"fork-{os.getpid()}",
        },
        timeout=100,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]


def _touch(name):
    """Write, commit, read by every way, on threads too, and compare all of it."""
    import numpy as np

    from radiobject import VolumeCollection, parallel
    from radiobject.geometry.box import Box
    from radiobject.storage.io import libtiledb, stats
    from radiobject.storage.read import reader
    from radiobject.storage.read.prefetch import Prefetch
    from radiobject.storage.read.reader import ReadRequest
    from radiobject.writers import VolumeCollectionWriter

    data = (np.arange(70 * 60 * 50) % 30011).reshape(70, 60, 50).astype(np.int16)
    with VolumeCollectionWriter(name, name="CT") as writer:
        for n in range(2):
            writer.write_volume(data + n, f"v{n}", f"s{n}")
    collection = VolumeCollection(name)
    assert parallel.map_on_threads(lambda v: int(v[5, 5, 5]), [*collection]) == [
        int(data[5, 5, 5]) + n for n in range(2)
    ]
    locators = [volume.locator for volume in collection]
    outs = [np.empty((32, 32, 32), np.int16) for _ in locators]
    box = Box.at((7, 8, 9), (32, 32, 32))
    plan = [[ReadRequest(at, box, out)] for at, out in zip(locators, outs, strict=True)]
    with Prefetch(plan) as ahead:
        assert len([*ahead]) == 2
    for n, out in enumerate(outs):
        np.testing.assert_array_equal(out, data[box.slices] + n)
    whole = np.empty(data.shape, np.int16)
    reader.read_into(locators[1], Box.whole(data.shape), whole)
    np.testing.assert_array_equal(whole, data + 1)
    libtiledb.query_into(locators[1].uri, Box.whole(data.shape), whole)
    np.testing.assert_array_equal(whole, data + 1)
    assert stats.totals().patches > 0


def _forked(run, seconds=60):
    child = os.fork()
    if not child:
        signal.alarm(seconds)
        status = 7
        try:
            run()
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def touch_fork_touch():
    _touch("parent")
    _forked(lambda: _touch("child"))
    _touch("after")
    _forked(lambda: _forked(lambda: _touch("grandchild")))


def fork_under_every_lock():
    from radiobject.storage.cache import tile_cache
    from radiobject.storage.io import libtiledb, lock, remote, stats
    from radiobject.storage.read import open_volumes
    from radiobject.storage.tiles import blosc_chunk, tile_source

    _touch("parent")
    held = [
        process._pools_lock,
        stats._lock,
        libtiledb._lock,
        remote._lock,
        tile_cache._lock,
        tile_cache.shared_arena()._thread_lock,
        open_volumes._lock,
        tile_source.pool._lock,
        lock._held_guard,
    ]
    taken, done = threading.Event(), threading.Event()

    def hold():
        for each in held:
            each.acquire()
        taken.set()
        done.wait()
        for each in held:
            each.release()

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    try:
        _forked(lambda: _touch("child"))
    finally:
        done.set()
        holder.join()
    assert blosc_chunk._loading.acquire(timeout=1)
    _touch("after")
