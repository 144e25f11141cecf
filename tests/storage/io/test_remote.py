"""Volumes in an object store: requests counted, retried, mirrored; errors that name the object."""

import itertools
import multiprocessing
import os
import stat

import boto3
import numpy as np
import pytest
from s3_server import Proxy
from stored import coded
from worker_reads import wrong_and_counted

from radiobject.ctx import S3Config, configure
from radiobject.exceptions import IntegrityError, StorageError, StoreNotFoundError
from radiobject.geometry.box import Box
from radiobject.stats import TileDBStats
from radiobject.storage.cache import tile_cache
from radiobject.storage.io import remote
from radiobject.storage.read import reader
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.prefetch import Prefetch
from radiobject.storage.read.reader import ReadRequest
from radiobject.storage.tables import writer
from radiobject.storage.tiles.tile_index import TileIndex

pytestmark = pytest.mark.s3
SHAPE = (70, 60, 50)


@pytest.fixture
def no_cache(monkeypatch):
    monkeypatch.setenv("RADIOBJECT_CACHE", "off")
    tile_cache.detach()
    yield
    reader.close_all()
    tile_cache.detach()


@pytest.fixture
def volume(s3_bucket, no_cache):
    data = (np.arange(np.prod(SHAPE)) % 30011).reshape(SHAPE).astype(np.int16)
    locator = writer.write_volume(f"s3://{s3_bucket}/v", data, metadata={"obs_id": "a"})
    return data, locator


@pytest.fixture
def proxy(s3_endpoint, volume):
    proxy = Proxy(s3_endpoint)
    configure(s3=S3Config(endpoint=proxy.endpoint))
    yield proxy
    proxy.close()


def read(locator, box):
    out = np.empty(box.shape, locator.dtype)
    reader.read_into(locator, box, out)
    return out


BOX = Box((3, 5, 1), (67, 45, 39))


def test_one_request_a_patch(volume, proxy):
    data, locator = volume
    for _ in range(3):
        before = len(proxy.requests)
        with TileDBStats() as stats:
            np.testing.assert_array_equal(read(locator, BOX), data[BOX.slices])
        assert stats.s3_stats().read_ops == 1
        assert len(proxy.requests) - before == 1
        assert stats.s3_stats().total_bytes_read > 0


def test_far_tiles_are_asked_for_in_parallel(volume, proxy, monkeypatch):
    from radiobject.storage.tiles import remote_tiles

    monkeypatch.setattr(remote_tiles, "REMOTE_GAP_BYTES", 0)
    monkeypatch.setattr(remote_tiles, "REMOTE_RANGE_BYTES", 1)
    data, locator = volume
    proxy.delay_s = 0.05
    with TileDBStats() as stats:
        np.testing.assert_array_equal(read(locator, BOX), data[BOX.slices])
    assert stats.s3_stats().read_ops > 1
    assert stats.s3_stats().parallelization_rate == 1.0


def test_without_a_stored_index(volume):
    data, locator = volume
    bare = VolumeLocator(locator.uri, locator.shape, locator.dtype)
    with TileDBStats() as stats:
        np.testing.assert_array_equal(read(bare, BOX), data[BOX.slices])
    assert stats.counters()["index_builds"] == 1
    assert "fallback_reads" not in stats.counters()


@pytest.mark.parametrize("failure", ["503", "cut"])
def test_failures_are_retried(volume, proxy, failure):
    data, locator = volume
    proxy.failures += [failure, failure]
    np.testing.assert_array_equal(read(locator, BOX), data[BOX.slices])
    assert len(proxy.requests) == 3
    assert not proxy.failures


def test_lasting_failure_names_the_object(volume, proxy):
    _, locator = volume
    configure(s3=S3Config(endpoint=proxy.endpoint, patience_s=1))
    proxy.failures += ["503"] * 1000
    with pytest.raises(StorageError, match=rf"{locator.uri}/__fragments/.*a0\.tdb cannot be read"):
        read(locator, BOX)


def test_vanished_object(volume, s3_bucket, s3_endpoint):
    _, locator = volume
    key = f"v/{TileIndex.unpack(locator.index).path}"
    boto3.client("s3", endpoint_url=s3_endpoint).delete_object(Bucket=s3_bucket, Key=key)
    with pytest.raises(StoreNotFoundError, match=r"a0\.tdb does not exist or has vanished"):
        read(locator, BOX)
    with pytest.raises(StoreNotFoundError):
        read(VolumeLocator(f"s3://{s3_bucket}/ghost", SHAPE, "int16"), BOX)


def test_damaged_object(volume, s3_bucket, s3_endpoint):
    _, locator = volume
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    index = TileIndex.unpack(locator.index)
    where = {"Bucket": s3_bucket, "Key": f"v/{index.path}"}
    content = bytearray(client.get_object(**where)["Body"].read())
    content[int(index.offsets[3]) + 200] ^= 16
    client.put_object(**where, Body=bytes(content))
    with pytest.raises(IntegrityError, match=r"tile 3 .*/v"):
        read(locator, Box.whole(SHAPE))
    client.put_object(**where, Body=bytes(content[:1000]))
    with pytest.raises(StorageError, match=r"a0\.tdb"):
        read(locator, Box.whole(SHAPE))


def test_anonymous(volume, s3_endpoint, monkeypatch):
    data, locator = volume
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    configure(s3=S3Config(include_credentials=False))
    np.testing.assert_array_equal(read(locator, BOX), data[BOX.slices])


def test_mirror(volume, proxy, tmp_path, monkeypatch):
    data, locator = volume
    folder = tmp_path / "mirror"
    monkeypatch.setenv("RADIOBJECT_MIRROR", str(folder))
    with TileDBStats() as stats:
        for _ in range(3):
            np.testing.assert_array_equal(read(locator, BOX), data[BOX.slices])
    assert stats.counters()["mirror_writes"] == 1
    assert len(proxy.requests) == 2
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (copy,) = folder.iterdir()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600

    reader.close_all()
    with TileDBStats() as stats:
        np.testing.assert_array_equal(read(locator, BOX), data[BOX.slices])
    assert stats.counters()["mirror_hits"] == 1
    assert len(proxy.requests) == 3


def test_mirror_is_checked_and_bounded(
    volume, proxy, s3_bucket, s3_endpoint, tmp_path, monkeypatch
):
    data, locator = volume
    folder = tmp_path / "mirror"
    monkeypatch.setenv("RADIOBJECT_MIRROR", str(folder))
    read(locator, BOX)
    (copy,) = folder.iterdir()

    os.truncate(copy, 100)
    reader.close_all()
    np.testing.assert_array_equal(read(locator, BOX), data[BOX.slices])

    flipped = bytearray(copy.read_bytes())
    index = TileIndex.unpack(locator.index)
    flipped[int(index.offsets[2]) + 100] ^= 1
    copy.write_bytes(flipped)
    reader.close_all()
    np.testing.assert_array_equal(read(locator, Box.whole(SHAPE)), data)
    assert copy.read_bytes() != flipped

    copy.unlink()
    (folder / ".x.tiles.999999999-0123abcd.part").write_bytes(b"left by a killed process")
    for i in range(3):
        (folder / f"old{i}.tiles").write_bytes(b"x" * (400 << 10))
        os.utime(folder / f"old{i}.tiles", (i, i))
    monkeypatch.setenv("RADIOBJECT_MIRROR_MB", "1")
    reader.close_all()
    np.testing.assert_array_equal(read(locator, BOX), data[BOX.slices])
    kept = {p.name for p in folder.iterdir()}
    assert "old0.tiles" not in kept
    assert not any(name.endswith(".part") for name in kept)
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 1 << 20

    folder.chmod(0o755)
    reader.close_all()
    with pytest.raises(IntegrityError, match="0700"):
        read(locator, BOX)


def test_batch_is_read_in_parallel(volume, proxy, monkeypatch):
    from radiobject.storage.tiles import remote_tiles

    monkeypatch.setattr(remote_tiles, "REMOTE_GAP_BYTES", 0)
    data, locator = volume
    proxy.delay_s = 0.4
    extents = TileIndex.unpack(locator.index).tiling.extents
    corners = itertools.product(*(range(0, n - 4, e) for n, e in zip(SHAPE, extents, strict=True)))
    boxes = [Box.at(corner, (4, 4, 4)) for corner in corners][:8]
    out = np.empty((len(boxes), 4, 4, 4), np.int16)
    with TileDBStats() as stats:
        reader.read_batch([ReadRequest(locator, b, out[i]) for i, b in enumerate(boxes)])
    for got, box in zip(out, boxes, strict=True):
        np.testing.assert_array_equal(got, data[box.slices])
    assert stats.s3_stats().read_ops == len(boxes) == 8
    assert proxy.most_at_once >= 4


def test_look_ahead_over_the_network(volume, proxy):
    data, locator = volume
    proxy.delay_s = 0.02

    def plan():
        for i in range(12):
            box = Box.at((i, 2 * i, i), (20, 20, 20))
            yield [ReadRequest(locator, box, np.empty(box.shape, np.int16))]

    with Prefetch(plan(), depth=6) as ahead:
        for batch in ahead:
            for request in batch:
                np.testing.assert_array_equal(request.out, data[request.box.slices])


def test_workers_of_every_kind(volume, monkeypatch):
    """A forked child of a process that has used the network goes through libtiledb."""
    data, locator = volume
    read(locator, BOX)
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as workers:
            wrong, counted = workers.apply(wrong_and_counted, (locator, 0, 3))
        assert wrong == 0
        assert ("fallback_reads" in counted) == (method == "fork")
    assert remote.usable()
    np.testing.assert_array_equal(read(locator, BOX), data[BOX.slices])


def test_secrets_stay_out_of_errors_and_pickles(volume, monkeypatch):
    import pickle

    _, locator = volume
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    configure(s3=S3Config(endpoint="http://127.0.0.1:9", patience_s=1))
    with pytest.raises(StorageError) as caught:
        read(locator, BOX)
    assert "very-secret" not in str(caught.value)
    assert b"very-secret" not in pickle.dumps(locator)


def test_coded_volume_over_the_network(s3_bucket, no_cache):
    for dtype in ("uint8", "float32"):
        data = coded((33, 20, 17, 3), dtype)
        locator = writer.write_volume(f"s3://{s3_bucket}/{dtype}", data)
        got = read(locator, Box.whole(data.shape))
        assert got.tobytes() == data.tobytes()


def test_a_range_that_comes_short_is_asked_for_twice_more(monkeypatch):
    answers = [[b"a"], [b"abc"], [b"abcd"]]
    remote_files = remote.RemoteFiles("s3://bucket/x")
    monkeypatch.setattr(remote_files, "_do", lambda *_: answers.pop(0))
    assert bytes(remote_files.ranges("tiles", [0], [4])[0]) == b"abcd"
    assert not answers
