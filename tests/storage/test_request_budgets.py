"""What each verb asks of an object store, counted by a proxy in a process of its own.

Requests are what a verb costs there: each takes the server's latency, 16 at a time at best. The
first look at a table fetches every file of it, to be compared with what the commit records: in one
pack a fragment, which no later look of the process asks for again.
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import nibabel as nib
import numpy as np
import pytest
from s3_server import ProxyProcess
from stores import check_volume, scanned_again

from radiobject import RadiObject
from radiobject.ctx import reset_radiobject_config
from radiobject.storage.cache import tile_cache
from radiobject.storage.read import reader
from radiobject.storage.tables.columns import BLOB
from radiobject.storage.tables.table import Table, create_table

FIRST_BATCH = """
import sys
from radiobject import RadiObject
from radiobject.ml import create_training_dataloader
radi = RadiObject(sys.argv[1])
options = {"patch_size": (2, 2, 2), "num_workers": 0, "batch_size": 2}
batch = next(iter(create_training_dataloader(radi.CT, **options)))
assert batch["image"].shape == (2, 1, 2, 2, 2)
print(*sys.modules)
"""
NOT_FOR_A_BATCH = {
    "boto3", "botocore", "highdicom", "matplotlib", "monai", "nibabel", "pandas", "pydicom",
    "rich", "scipy", "SimpleITK", "torchio", "typer", "zarr",
    "radiobject.bids_export", "radiobject.edit.changes", "radiobject.formats.dicom",
    "radiobject.formats.nifti", "radiobject.ingest", "radiobject.storage.writers",
    "radiobject.transform",
}  # fmt: skip
OPTIONS = {"patch_size": (2, 2, 2), "num_workers": 0, "batch_size": 2}


@pytest.fixture(scope="module")
def bucket(made: Path, s3_server: str) -> str:
    """A bucket with the data set of `made`, as a copying program puts it there."""
    name = f"budgets-{uuid.uuid4().hex[:12]}"
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1", **keys)
    client.create_bucket(Bucket=name)
    for path in made.rglob("*"):
        if path.is_file():
            key = f"store/{path.relative_to(made).as_posix()}"
            client.put_object(Bucket=name, Key=key, Body=path.read_bytes())
    return name


@pytest.fixture(scope="module")
def proxy(s3_server: str) -> Iterator[ProxyProcess]:
    proxy = ProxyProcess(s3_server)
    yield proxy
    proxy.close()


@pytest.fixture
def requests_of(
    proxy: ProxyProcess, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[], Any]], tuple[Any, list[str]]]]:
    """A function that calls another, and returns its result and the requests that it made."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    # Volumes equal to these may have been read from somewhere else.
    monkeypatch.setenv("RADIOBJECT_CACHE", f"requests-{uuid.uuid4()}")
    tile_cache.detach()
    reset_radiobject_config()

    def run(verb: Callable[[], Any]) -> tuple[Any, list[str]]:
        before = len(proxy.requests)
        result = verb()
        return result, proxy.requests[before:]

    yield run
    reader.close_all()
    tile_cache.detach()


def test_reading_verbs_keep_to_their_requests(bucket, requests_of):
    radi = RadiObject(f"s3://{bucket}/store")
    subjects, opened = requests_of(lambda: len(radi))
    assert subjects == 4
    assert len(opened) <= 11, opened
    chosen, filtered = requests_of(lambda: len(radi.filter("age > 40")))
    assert (chosen, filtered) == (2, [])
    volume, found = requests_of(lambda: radi.get_volume("b_seg"))
    assert len(found) <= 2, found
    _, voxels = requests_of(lambda: check_volume(volume, "b", "seg"))
    assert len(voxels) == 1, voxels
    again, looked = requests_of(lambda: radi.get_volume("d_seg").obs_id)
    assert (again, looked) == ("d_seg", [])


def test_a_loader_asks_for_nothing_and_an_epoch_for_each_volume_once(bucket, requests_of):
    pytest.importorskip("torch")
    from radiobject.ml import create_training_dataloader

    radi = RadiObject(f"s3://{bucket}/store")
    ct, seg = radi.CT, radi.seg
    assert len(ct.locators()) == len(seg.locators()) == 4
    loader, asked = requests_of(lambda: create_training_dataloader([ct, seg], **OPTIONS))
    assert asked == []
    batches, voxels = requests_of(lambda: len(list(loader)))
    assert batches == 2
    assert len(voxels) <= 8, voxels


def test_a_process_has_its_first_batch_soon(bucket, requests_of):
    """Each module left out and each request saved is time that a training run starts earlier."""
    pytest.importorskip("torch")
    command = [sys.executable, "-c", FIRST_BATCH, f"s3://{bucket}/store"]
    done, asked = requests_of(
        lambda: subprocess.run(command, capture_output=True, text=True, check=True)
    )
    assert NOT_FOR_A_BATCH & set(done.stdout.split()) == set()
    # Four are for tiles: two batches are read ahead, each volume is an object.
    assert len(asked) <= 12, "\n".join(asked)


def test_an_append_asks_for_each_file_that_it_writes_twice(bucket, requests_of, tmp_path):
    """Once to put it there and once to see what arrived, and 80 times for all else.

    Four of these are for the objects that give readers all files of a table at once.
    """
    scan = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((6, 5, 4), np.int16), np.eye(4)), scan)
    RadiObject(f"s3://{bucket}/store").append({"CT": [(scan, "a")]})
    radi = RadiObject(f"s3://{bucket}/store")
    assert len(radi) == 4
    again = scanned_again(scan, tmp_path)
    _, appended = requests_of(lambda: radi.append({"CT": [(again, "a")]}))
    written = [line for line in appended if line.startswith("PUT ") and "__fragments" in line]
    assert len(appended) <= 2 * len(written) + 80, appended
    assert len(appended) <= 306, appended
    assert RadiObject(radi.uri).CT.obs_ids[:3] == ["a_CT", "a_CT_acq-1", "a_CT_acq-2"]


def test_a_large_column_goes_up_in_parts(bucket, requests_of):
    """Uploads in one request hold as much as one buffer; what is larger is written all the same."""
    uri = f"s3://{bucket}/table"
    create_table(uri, ["key"], {"value": BLOB})
    value = np.random.default_rng(0).bytes(6 << 20)
    _, asked = requests_of(lambda: Table(uri).write({"key": ["a"], "value": [value]}, 1))
    assert any("uploadId=" in line for line in asked), asked
    assert Table(uri).read(["value"])["value"].values[0] == value
