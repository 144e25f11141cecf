"""Work on clusters: Dask with two worker processes, and Ray, each for real."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from stores import check_volume, scanned_again, voxels

from radiobject import RadiObject, configure
from radiobject.ctx import CompressionConfig, TileConfig, WriteConfig, reset_radiobject_config
from radiobject.exceptions import ClusterError, ConfigurationError
from radiobject.executors import run
from radiobject.storage import records
from radiobject.storage.schema.description import describe_volume
from radiobject.storage.schema.label_build import ensure_label_rows
from radiobject.storage.schema.label_index import read_label_rows

dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray")
    paths = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(num_cpus=2, runtime_env=paths, **quiet)
    yield ray
    ray.shutdown()


@pytest.fixture(params=["dask", "ray"])
def engine(request):
    request.getfixturevalue("client" if request.param == "dask" else "ray")
    return request.param


def where(volume, row):
    return volume + 1, {"where": os.getpid()}


def test_every_verb(engine, radi, scans, tmp_path, monkeypatch):
    mapped = radi.CT.map(where, executor=engine)
    np.testing.assert_array_equal(mapped[0], voxels("a") + 1)
    assert os.getpid() not in set(mapped.to_dataframe()["where"])
    assert list(radi.CT.map(lambda volume, row: volume.max(), executor=engine))
    assert radi.CT.map_batches(lambda b: [int(v[0, 0, 0]) for v, _ in b], 2, executor=engine)

    # Workers are in another folder: what is given relative to this one is found all the same.
    monkeypatch.chdir(scans)
    images = {"CT": [(f"{s}.nii", s) for s in "dbca"], "seg": [(scans / "a.nii", "a")]}
    made = RadiObject.from_images(str(tmp_path / "made"), images, labels=["seg"], executor=engine)
    check_volume(made.CT["b_CT"], "b")
    made.CT.append(niftis=[(scanned_again(scans / "a.nii", tmp_path), "a")], executor=engine)
    check_volume(made.CT["a_CT_acq-1"], "a")
    made.validate(checksums=True, executor=engine)

    masks = made.CT
    assert len(ensure_label_rows(masks.uri, masks.locators(), executor=engine)) == 5
    assert len(read_label_rows(masks.uri, masks.locators())) == 5

    iso = radi.resample(2.0, labels=["seg"]).write(str(tmp_path / "iso"), executor=engine)
    iso.validate(executor=engine)
    copied = radi.write(str(tmp_path / "copy"), executor=engine)
    check_volume(copied.seg["d_seg"], "d", "seg")

    made.CT.delete("a_CT_acq-1")
    assert made.vacuum(executor=engine)["volumes"] == 1
    assert len(os.listdir(f"{made.CT.uri}/volumes")) == 4
    made.validate(checksums=True)


def test_settings_go_along_with_every_job(engine, radi, tmp_path):
    """Also with the second one: workers keep the functions that they got."""
    try:
        for side in (2, 3):
            tile = TileConfig(x=side, y=side, z=side)
            configure(write=WriteConfig(tile=tile, compression=CompressionConfig(algorithm="gzip")))
            new = radi.CT.lazy().map(where).write(str(tmp_path / f"new{side}"), executor=engine)
            for volume in new:
                assert describe_volume(volume.uri).extents == (side, side, side)
    finally:
        reset_radiobject_config()


def taken_before_the_first_result(executor):
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = run(abs, items(), executor=executor)
    assert next(results) == 0
    results.close()
    return len(taken)


def test_the_jobs_under_way_follow_the_cluster(client, ray):
    """Two a core, whatever is usual elsewhere; a cluster that grows gets more."""
    assert taken_before_the_first_result("dask") == 4
    assert taken_before_the_first_result(client) == 4
    assert taken_before_the_first_result(client.get_executor()) == 4
    assert taken_before_the_first_result("ray") == 4
    client.cluster.scale(3)
    client.wait_for_workers(3)
    assert taken_before_the_first_result("dask") == 6
    client.cluster.scale(2)
    while len(client.ncores()) > 2:
        time.sleep(0.01)


def dies_once(mark, volume, row):
    """Take the worker along, the first time that the volume of subject c is at hand."""
    if row["obs_subject_id"] == "c" and not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return volume + 1


def half_written_once(mark, write, uri, *args, **options):
    """Write a volume, and take the worker along before anybody hears of it."""
    done = write(uri, *args, **options)
    if not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return done


def write_in_vain(mark, volume, row):
    """Have the volume of this job written whole, and its worker killed before it says so."""
    if row["obs_subject_id"] == "b":
        real = getattr(records, "_real", records.write_volume)
        records._real = real
        records.write_volume = partial(half_written_once, mark, real)
    return volume + 1


@pytest.mark.parametrize("death", [dies_once, write_in_vain])
def test_what_a_killed_worker_had_begun_is_done_again(engine, radi, tmp_path, death):
    mark = str(tmp_path / "died")
    new = radi.CT.lazy().map(partial(death, mark)).write(str(tmp_path / "new"), executor=engine)
    assert os.path.exists(mark)
    assert [int(v[0, 0, 0]) for v in new] == [1001, 2001, 3001, 4001]
    new.validate(checksums=True)
    # What the lost worker had written stays beside, without a row: its result was lost with it.
    left = set(os.listdir(f"{new.uri}/volumes")) - {os.path.basename(v.uri) for v in new}
    assert len(left) >= (death is write_in_vain)


def always_dies(volume, row):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_job_that_kills_every_worker_is_given_up(engine, radi, tmp_path):
    with pytest.raises(ClusterError, match=r"every worker that began it was lost.*memory"):
        radi.CT.head(1).lazy().map(always_dies).write(str(tmp_path / "new"), executor=engine)
    assert not os.path.exists(tmp_path / "new")


def refuses(volume, row):
    raise KeyError(f"no {row['obs_id']}")


def test_errors_of_jobs_arrive_as_they_are(engine, radi):
    with pytest.raises(KeyError, match="no a_CT"):
        radi.CT.map(refuses, executor=engine)


class LostWithItsWorker:
    """A result whose worker dies when somebody asks for it; there is none a second time."""

    def __init__(self, mark):
        if os.path.exists(mark):
            raise KeyError("only once")
        self.mark = mark

    def __reduce__(self):
        open(self.mark, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_result_that_is_lost_and_fails_then_is_an_error(engine, tmp_path):
    mark = str(tmp_path / "lost")
    with pytest.raises(KeyError, match="only once"):
        list(run(LostWithItsWorker, [mark], executor=engine))
    assert os.path.exists(mark)


def test_a_job_that_the_cluster_gave_up_is_said(client):
    def items():
        yield 5
        client.cancel([distributed.Future(key, client) for key in client.futures])

    with pytest.raises(ClusterError, match="gave a job up"):
        list(run(time.sleep, items(), executor=client))


def test_an_executor_that_was_shut_down_is_refused(client):
    executor = client.get_executor()
    executor.shutdown()
    with pytest.raises(ConfigurationError, match="executor was shut down"):
        list(run(abs, [1], executor=executor))


def hide(place):
    """Let this worker see another folder at `place`, as a machine without the mount does."""
    os.rename(place, f"{place}-elsewhere")
    os.mkdir(place)


def test_a_folder_that_workers_do_not_see_is_said(engine, radi, tmp_path):
    place = radi.uri

    def items():
        hide(place)  # between the question and its job
        yield 0

    with pytest.raises(ClusterError, match=f"has another folder at {place}; mount the same"):
        list(run(abs, items(), executor=engine, places=[place]))


def test_workers_of_another_version_are_said(engine, monkeypatch):
    monkeypatch.setattr("radiobject.executors.__version__", "9.9.9")
    with pytest.raises(ClusterError, match=r"has RadiObject \d.*has 9\.9\.9; .*pip install"):
        list(run(abs, [1], executor=engine))


@pytest.mark.parametrize(
    ("executor", "error", "words"),
    [
        ("spark", ConfigurationError, "no executor 'spark'; give 'dask', 'ray'"),
        (7, ConfigurationError, "got int 7"),
        ("tcp://127.0.0.1:9", ClusterError, "no Dask scheduler answers at tcp://127.0.0.1:9"),
    ],
)
def test_what_is_no_executor(executor, error, words):
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "200ms"}),
        pytest.raises(error, match=words),
    ):
        list(run(abs, [1], executor=executor))


@pytest.mark.parametrize(("name", "package"), [("dask", "dask[distributed]"), ("ray", "ray")])
def test_a_missing_package_is_named(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed" if name == "dask" else name, None)
    with pytest.raises(ConfigurationError) as raised:
        list(run(abs, [1], executor=name))
    assert f"pip install '{package}'" in str(raised.value)


def test_an_executor_of_ones_own_stays_open():
    with ThreadPoolExecutor(2) as pool:
        assert list(run(abs, [-1, 2], executor=pool)) == [1, 2]
        assert taken_before_the_first_result(pool) == 4
