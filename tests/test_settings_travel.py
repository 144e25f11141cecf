"""Settings of the process reach every worker, however it was started."""

import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from stores import make_dataset

from radiobject import RadiObject, configure, get_radiobject_config
from radiobject.ctx import (
    CompressionConfig,
    ReadConfig,
    S3Config,
    TileConfig,
    WriteConfig,
    reset_radiobject_config,
)
from radiobject.ml import DatasetConfig, VolumeCollectionDataset
from radiobject.parallel import run
from radiobject.storage.schema.description import describe_volume

pytestmark = pytest.mark.processes

ENDPOINT = "http://store.example:9000"


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    monkeypatch.setenv("AWS_REGION", "eu-north-7")
    configure(
        write=WriteConfig(
            tile=TileConfig(x=3, y=3, z=3), compression=CompressionConfig(algorithm="gzip")
        ),
        read=ReadConfig(max_workers=3),
        s3=S3Config(endpoint=ENDPOINT),
    )
    yield
    reset_radiobject_config()


def seen(_):
    config = get_radiobject_config()
    os.environ.pop("AWS_REGION", None)
    return config.s3.resolved_endpoint(), config.s3.resolved_region(), config.read.max_workers


def endpoint_without_environment(_):
    os.environ.pop("AWS_ENDPOINT_URL_S3", None)
    return get_radiobject_config().s3.resolved_endpoint()


def add_one(volume, row):
    return volume + 1


@pytest.fixture(params=["fork", "spawn", "forkserver", "dask"])
def executor(request):
    if request.param != "dask":
        # The workers are there before the settings are.
        with ProcessPoolExecutor(1, mp_context=get_context(request.param)) as pool:
            yield pool
        return
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor()


@pytest.mark.filterwarnings("ignore:This process")
def test_jobs_see_the_settings(executor, tmp_path, monkeypatch):
    assert set(run(seen, range(3), executor=executor)) == {(ENDPOINT, "eu-north-7", 3)}
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://of.this.machine:9000")
    configure(s3=S3Config())
    found = set(run(endpoint_without_environment, range(3), executor=executor))
    assert found == {"http://of.this.machine:9000"}
    make_dataset(tmp_path / "store")
    configure(write=WriteConfig(tile=TileConfig(x=2, y=2, z=2)))
    radi = RadiObject(str(tmp_path / "store"))
    new = radi.CT.lazy().map(add_one).write(str(tmp_path / "new"), executor=executor)
    for volume in new:
        assert describe_volume(volume.uri).extents == (2, 2, 2)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_loaders_workers_see_the_settings(method, tmp_path):
    make_dataset(tmp_path / "store")
    radi = RadiObject(str(tmp_path / "store"))
    dataset = VolumeCollectionDataset(radi.CT, DatasetConfig(), transform=note)
    loader = torch.utils.data.DataLoader(dataset, num_workers=1, multiprocessing_context=method)
    assert {int(batch["workers"][0]) for batch in loader} == {3}


def note(sample):
    return {**sample, "workers": get_radiobject_config().read.max_workers}


def test_a_dataset_in_a_file_changes_no_settings(tmp_path):
    make_dataset(tmp_path / "store")
    dataset = VolumeCollectionDataset(RadiObject(str(tmp_path / "store")).CT, DatasetConfig())
    kept = pickle.dumps(dataset)
    reset_radiobject_config()
    pickle.loads(kept)
    assert get_radiobject_config().read.max_workers == 4
    assert b"secret" not in kept.lower()
    np.testing.assert_array_equal(len(dataset), 4)
