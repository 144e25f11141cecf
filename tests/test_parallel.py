"""Jobs on threads, processes and Dask: ordered, bounded, and nothing lost when a worker dies."""

import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import numpy as np
import pytest
from stores import check_volume, scanned_again, voxels

from radiobject import RadiObject, VolumeCollection
from radiobject.parallel import ctx_for_process, ctx_for_threads, map_on_threads, run

pytestmark = pytest.mark.processes


def add_one(volume, row):
    return volume + 1, {"where": os.getpid()}


def die_on_c(volume, row):
    if row["obs_subject_id"] == "c":
        os.kill(os.getpid(), signal.SIGKILL)
    return volume


def test_results_are_in_order_and_errors_propagate():
    def slow(n):
        time.sleep(0.002 * (5 - n % 5))
        return n * n

    assert map_on_threads(slow, range(20), max_workers=4) == [n * n for n in range(20)]

    def fail(n):
        if n == 3:
            raise KeyError(n)
        return n

    with pytest.raises(KeyError):
        map_on_threads(fail, range(100))
    assert map_on_threads(fail, []) == []


def test_few_jobs_are_started_ahead_of_what_is_taken():
    started, guard = [], threading.Lock()

    def note(n):
        with guard:
            started.append(n)
        return n

    results = run(note, range(1000), max_workers=2)
    assert next(results) == 0
    time.sleep(0.05)
    assert len(started) <= 8
    results.close()


def test_contexts():
    shared = ctx_for_threads()
    assert ctx_for_threads(shared) is shared
    assert ctx_for_process(shared) is not shared
    assert ctx_for_process().config()["sm.compute_concurrency_level"] == "4"


@pytest.fixture
def processes():
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool:
        yield pool


@pytest.fixture(scope="module")
def dask_executor():
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    client = distributed.Client(cluster)
    yield client.get_executor()
    client.close()
    cluster.close()


@pytest.fixture(params=["threads", "processes", "dask"])
def executor(request):
    if request.param == "threads":
        return None
    return request.getfixturevalue("processes" if request.param == "processes" else "dask_executor")


@pytest.mark.filterwarnings("default")
def test_every_verb_on_every_executor(radi, scans, tmp_path, executor):
    mapped = radi.CT.map(add_one, executor=executor)
    np.testing.assert_array_equal(mapped[0], voxels("a") + 1)
    elsewhere = set(mapped.to_dataframe()["where"]) != {os.getpid()}
    assert elsewhere == (executor is not None)

    written = radi.CT.lazy().map(add_one).write(str(tmp_path / "lazy"), executor=executor)
    assert [int(v[0, 0, 0]) for v in written] == [1001, 2001, 3001, 4001]
    written.validate(checksums=True)

    copied = radi.write(str(tmp_path / "copy"), executor=executor)
    check_volume(copied.seg["d_seg"], "d", "seg")
    copied.validate(checksums=True)

    images = {"CT": [(scans / f"{s}.nii", s) for s in "dbca"]}
    made = RadiObject.from_images(str(tmp_path / "made"), images, executor=executor)
    check_volume(made.CT["b_CT"], "b")
    again = scanned_again(scans / "a.nii", tmp_path)
    made.CT.append(niftis=[(again, "a")], executor=executor)
    check_volume(made.CT["a_CT_acq-1"], "a")
    made.validate(checksums=True)
    assert radi.CT.map_batches(lambda_free_batch, 2, executor=executor)[3] == 4000


def lambda_free_batch(batch):
    return [int(volume[0, 0, 0]) for volume, _ in batch]


@pytest.mark.filterwarnings("default")
def test_a_worker_that_dies_loses_nothing_committed(radi, tmp_path):
    before = radi.history()
    with (
        ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool,
        pytest.raises(BrokenProcessPool),
    ):
        radi.CT.lazy().map(die_on_c).write(f"{radi.uri}-out", executor=pool)
    assert not os.path.exists(f"{radi.uri}-out")
    again = RadiObject(radi.uri)
    again.validate(checksums=True)
    assert again.history().equals(before)
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool:
        assert (
            len(VolumeCollection(radi.CT.uri).lazy().write(f"{radi.uri}-out", executor=pool)) == 4
        )


def test_runs_share_their_threads():
    def who(_):
        time.sleep(0.01)
        return threading.get_ident()

    first, second = (set(run(who, range(8), max_workers=3)) for _ in range(2))
    assert first == second
    assert len(first) == 3


def test_a_run_within_a_run_has_threads_of_its_own():
    def inner(n):
        return list(run(lambda m: n * m, range(3), max_workers=2))

    assert list(run(inner, range(6), max_workers=2)) == [[0, n, 2 * n] for n in range(6)]


def test_a_forked_child_has_threads_of_its_own():
    assert list(run(abs, [-1, -2], max_workers=2)) == [1, 2]
    child = os.fork()
    if not child:
        done = list(run(abs, [-3, -4], max_workers=2))
        os._exit(0 if done == [3, 4] else 1)
    assert os.waitpid(child, 0)[1] == 0
