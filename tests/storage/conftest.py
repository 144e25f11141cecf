"""A real object server, and a proxy before it that counts, delays and fails requests."""

import gc
import re
import time

import boto3
import pytest
from s3_server import ProxyProcess
from seaweed import KEYS, seaweed_server

from radiobject.ctx import reset_radiobject_config
from radiobject.storage.cache import tile_cache
from radiobject.storage.read import reader
from radiobject.storage.tables import staging


@pytest.fixture
def new_cache():
    """No cache of decoded tiles is attached before the test and after it."""
    reader.close_all()
    tile_cache.detach()
    yield
    reader.close_all()
    tile_cache.detach()
    reset_radiobject_config()
    gc.collect()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with seaweed_server(tmp_path_factory.mktemp("seaweed")) as endpoint:
        yield endpoint


@pytest.fixture
def proxy(server, monkeypatch):
    """A proxy that the process's settings point to, before a server with the bucket `tests`."""
    proxy = ProxyProcess(server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS[1])
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    reset_radiobject_config()
    yield proxy
    proxy.close()
    reader.close_all()
    staging.clear()
    reset_radiobject_config()


@pytest.fixture
def bucket(proxy, server, request):
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[:50].strip("-")
    client = boto3.client("s3", endpoint_url=server)
    deadline = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket=name)
            return name
        except client.exceptions.ClientError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
