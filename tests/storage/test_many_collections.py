"""A volume of a data set of 50 collections, found over a network that takes 30 ms an answer."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import boto3
import numpy as np
import pandas as pd
import pytest
from s3_server import ProxyProcess

from radiobject import RadiObject
from radiobject.storage.tables.table import Table
from radiobject.writers import RadiObjectWriter

pytestmark = pytest.mark.slow
COUNT = 50


@pytest.fixture(scope="module")
def bucket(tmp_path_factory, s3_server):
    """A bucket with one volume in each of 50 collections, named so that no id tells which."""
    made = tmp_path_factory.mktemp("many") / "store"
    with RadiObjectWriter(str(made), {}) as writer:
        writer.write_obs_meta(pd.DataFrame({"obs_subject_id": ["a"]}))
        for number in range(COUNT):
            with writer.add_collection(f"C{number:02d}") as collection:
                collection.write_volume(np.full((4, 4, 4), number, np.int16), f"v{number}", "a")
        writer.finalize()
    name = f"many-{uuid.uuid4().hex[:12]}"
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1", **keys)
    client.create_bucket(Bucket=name)

    def put(path):
        key = f"store/{path.relative_to(made).as_posix()}"
        client.put_object(Bucket=name, Key=key, Body=path.read_bytes())

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(put, [path for path in made.rglob("*") if path.is_file()]))
    return name


def test_its_tables_are_read_side_by_side_and_once(bucket, s3_server, s3_endpoint, monkeypatch):
    """2,814 requests one after the other, 28 s, before; one table a collection is needed."""
    proxy = ProxyProcess(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    reads = []
    read = Table.read

    def counted(table, *args, **kwargs):
        reads.append(table.uri)
        return read(table, *args, **kwargs)

    monkeypatch.setattr(Table, "read", counted)
    try:
        proxy.delay_s = 0.03
        radi = RadiObject(f"s3://{bucket}/store")
        assert int(radi.get_volume("v37")[0, 0, 0]) == 37
        first, at_once = len(proxy.requests), proxy.most_at_once
        # Every collection's table, the subjects' and the tile indexes of the one that has it.
        assert len(reads) == len(set(reads)) == COUNT + 1
        assert first <= 2000
        assert at_once >= 12
        radi.get_volume("v12")
        assert len(reads) == COUNT + 2
    finally:
        proxy.close()
