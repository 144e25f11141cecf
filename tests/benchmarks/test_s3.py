from __future__ import annotations

import os
import time
import urllib.request
from pathlib import Path

import pytest

from benchmarks.s3 import environment_endpoint, running_server, traffic, upload_folder


@pytest.mark.s3
def test_a_folder_goes_up_whole_and_replaces_what_was_there(tmp_path: Path) -> None:
    import boto3

    before = dict(os.environ)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"one")
    with running_server() as environment:
        assert environment_endpoint() == environment["AWS_ENDPOINT_URL_S3"]
        upload_folder(tmp_path, "s3://scans/set")
        (tmp_path / "a" / "b").rename(tmp_path / "c")
        upload_folder(tmp_path, "s3://scans/set")
        client = boto3.client("s3")
        found = client.list_objects_v2(Bucket="scans")["Contents"]
        assert [item["Key"] for item in found] == ["set/c"]
        counted = traffic().requests
        assert client.get_object(Bucket="scans", Key="set/c")["Body"].read() == b"one"
        assert traffic().requests == counted + 1
        endpoint = environment_endpoint()
    assert dict(os.environ) == before
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{endpoint}/scans", timeout=2)


@pytest.mark.s3
def test_latency_is_what_was_asked_for() -> None:
    with running_server(latency_ms=80) as environment:
        url = environment["AWS_ENDPOINT_URL_S3"] + "/"
        begin = time.perf_counter()
        urllib.request.urlopen(url, timeout=10).read()
        assert time.perf_counter() - begin >= 0.08
