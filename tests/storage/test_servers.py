"""A server that nobody here wrote, and proxies before it that do what servers in the wild do."""

import os
import re
import time

import pytest
from stores import check_volume, make_dataset

from radiobject import RadiObject, configure, delete_tiledb_uri
from radiobject.ctx import S3Config
from radiobject.edit.copying import copy_dataset
from radiobject.edit.doctor import examine
from radiobject.exceptions import LockError, StorageError
from radiobject.stats import TileDBStats
from radiobject.storage.commits.transaction import creation, transaction
from radiobject.storage.io import files, layout, object_store
from radiobject.storage.read import reader
from radiobject.storage.tables import staging

pytestmark = pytest.mark.server


def test_a_data_sets_whole_life(bucket):
    uri = f"s3://{bucket}/data sets/a+b é#100%/x"
    for _ in range(2):
        make_dataset(uri)
        radi = RadiObject(uri)
        for subject in "abcd":
            check_volume(radi.CT.loc[f"{subject}_CT"], subject)
        radi.delete("a")
        RadiObject(uri).obs_meta.add_column("note", str)
        assert RadiObject(uri).vacuum(keep=1)["volumes"] == 2
        RadiObject(uri).validate(checksums=True)
        delete_tiledb_uri(uri)
        assert files.list_folder(uri) == []


def test_a_buckets_root_and_the_address_of_a_failed_creation_are_free(bucket):
    with pytest.raises(KeyError), creation(f"s3://{bucket}", "radiobject", "fails"):
        raise KeyError
    make_dataset(f"s3://{bucket}")
    assert RadiObject(f"s3://{bucket}").CT.obs_ids == ["a_CT", "b_CT", "c_CT", "d_CT"]


def test_a_server_that_ignores_conditions_is_refused(bucket, proxy):
    uri = f"s3://{bucket}/x"
    make_dataset(uri)
    proxy.rewrite = [(rb"(?i)\r\nif-none-match:[^\r]*", b"")]
    with pytest.raises(StorageError, match=r"ignores conditional writes \(If-None-Match\)"):
        RadiObject(uri).delete("a")
    proxy.rewrite = []
    RadiObject(uri).delete("a")
    assert RadiObject(uri).obs_subject_ids == ["b", "c", "d"]


def test_a_server_without_conditions_says_so(bucket, proxy):
    uri = f"s3://{bucket}/x"
    make_dataset(uri)
    proxy.only, proxy.failures = "/.radiobject/lock", ["501"] * 20
    with pytest.raises(StorageError, match="refuses conditional writes"):
        RadiObject(uri).delete("a")


def dead_lock(bucket, uri, content=None):
    with transaction(uri, "dying"):
        store = object_store.open_store(f"s3://{bucket}")
        record = bytes(store.get(f"x/{layout.LOCK}").bytes())
    gone = re.sub(rb'"pid": \d+', b'"pid": 4194303', record)
    store.put(f"x/{layout.LOCK}", gone if content is None else content)


def test_a_dead_lock_where_tags_are_compared_without_quotes(bucket, proxy):
    """As Ceph 16 does: with quotes the condition never holds."""
    uri = f"s3://{bucket}/x"
    make_dataset(uri)
    dead_lock(bucket, uri)

    proxy.rewrite = [
        (rb'(?i)\r\nif-match: *"[^\r]*', b'\r\nIf-Match: "0"'),
        (rb'(?i)\r\nif-match: *([^"\r][^\r]*)', rb'\r\nIf-Match: "\1"'),
    ]
    with transaction(uri, "next"):
        pass


def test_an_empty_copied_lock_is_a_released_one(bucket):
    uri = f"s3://{bucket}/x"
    make_dataset(uri)
    dead_lock(bucket, uri, b"")
    with transaction(uri, "next"):
        pass


def test_a_living_lock_holds_until_it_is_broken(bucket):
    uri = f"s3://{bucket}/x"
    make_dataset(uri)
    dead_lock(bucket, uri, b'{"another": "version"}')
    with pytest.raises(LockError, match="break_lock=True"):
        RadiObject(uri).delete("a")
    RadiObject(uri).repair(break_lock=True)
    RadiObject(uri).delete("a")


def test_a_lock_whose_answer_was_lost_is_this_writers_own(bucket, proxy):
    uri = f"s3://{bucket}/x"
    make_dataset(uri)
    proxy.only, proxy.failures = "PUT", ["lost"]
    RadiObject(uri).delete("a")
    assert not proxy.failures
    dead_lock(bucket, uri)
    proxy.failures = ["lost"]
    RadiObject(uri).delete("b")
    assert not proxy.failures
    assert RadiObject(uri).obs_subject_ids == ["c", "d"]


def test_a_lost_release_is_no_failure_of_the_commit(bucket, proxy, caplog):
    uri = f"s3://{bucket}/x"
    make_dataset(uri)
    configure(s3=S3Config(patience_s=0))
    with transaction(uri, "writes") as tx:
        tx.commit(collections=tx.last.collections, n_subjects=4, n_volumes=8)
        proxy.only, proxy.failures = "/.radiobject/lock", ["503"] * 1000
    proxy.failures = []
    assert "could not be given back" in caplog.text
    assert RadiObject(uri).history()["operation"].iloc[-1] == "writes"


def test_busy_servers_are_waited_for(bucket, proxy):
    uri = f"s3://{bucket}/x"
    make_dataset(uri)
    volume = RadiObject(uri).CT.loc["a_CT"]
    proxy.only, proxy.failures = "/volumes/", ["503"] * 6
    check_volume(volume, "a")
    assert not proxy.failures
    reader.close_all()
    configure(s3=S3Config(patience_s=1))
    proxy.failures = ["503"] * 1000
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"a0\.tdb"):
        RadiObject(uri).CT.loc["b_CT"].to_numpy()
    assert time.monotonic() - start < 45


@pytest.mark.parametrize("failure", ["flip", "cut"])
def test_a_bad_range_is_fetched_again_twice(bucket, proxy, failure):
    uri = f"s3://{bucket}/x"
    make_dataset(uri)
    volume = RadiObject(uri).CT.loc["a_CT"]
    proxy.only, proxy.failures = "/volumes/", [failure] * 2
    check_volume(volume, "a")
    assert not proxy.failures
    reader.close_all()
    proxy.failures = ["flip"] * 3
    with pytest.raises(StorageError, match="b_CT"):
        RadiObject(uri).CT.loc["b_CT"].to_numpy()


def test_a_table_altered_on_its_way_is_fetched_again(bucket, proxy):
    uri = f"s3://{bucket}/x"
    make_dataset(uri)
    staging.clear()
    proxy.only, proxy.failures = "/obs/", ["flip", "flip"]
    assert RadiObject(uri).CT.obs_ids == ["a_CT", "b_CT", "c_CT", "d_CT"]
    assert not proxy.failures


def test_a_stalled_request_is_sent_again(bucket, proxy):
    uri = f"s3://{bucket}/x"
    make_dataset(uri)
    volume = RadiObject(uri).CT.loc["a_CT"]
    configure(s3=S3Config(hedge_s=0.3))
    proxy.only, proxy.failures, proxy.stall_s = "/volumes/", ["stall"], 60.0
    start = time.monotonic()
    with TileDBStats() as stats:
        check_volume(volume, "a")
    assert time.monotonic() - start < 50
    assert stats.counters()["hedged_requests"] == 1


def test_checksum_trailers_are_sent_to_no_endpoint_of_ones_own(bucket, proxy):
    make_dataset(f"s3://{bucket}/x")
    heads = [head.lower() for head in proxy.heads]
    assert heads
    assert not [head for head in heads if b"x-amz-trailer" in head or b"aws-chunked" in head]
    assert os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] == "when_required"


def test_the_doctor_tries_what_writing_needs(bucket, proxy):
    findings = {f.what: f for f in examine(f"s3://{bucket}/x")}
    assert len(findings) == 10
    assert [f for f in findings.values() if not f.good and f.what != "empty folders"] == []
    assert files.list_folder(f"s3://{bucket}/x") == []
    proxy.rewrite = [(rb"(?i)\r\nif-(none-)?match:[^\r]*", b"")]
    bad = [f.what for f in examine(f"s3://{bucket}/x") if not f.good]
    assert bad[:2] == ["conditional creation (If-None-Match)", "conditional replacement (If-Match)"]
    proxy.rewrite, proxy.only, proxy.failures = [], "PUT", ["", "501", "501"]
    bad = [(f.what, f.seen) for f in examine(f"s3://{bucket}/x") if not f.good]
    assert [seen for what, seen in bad if "conditional" in what] == ["the server answered 501"] * 2
    proxy.rewrite, proxy.delay_s = [], 0.3
    assert "latency" in [f.what for f in examine(f"s3://{bucket}/x") if not f.good]


def test_a_copy_goes_to_a_bucket_and_back(bucket, made, tmp_path):
    copy_dataset(str(made), f"s3://{bucket}/x")
    again = copy_dataset(f"s3://{bucket}/x", str(tmp_path / "back"), checksums=True)
    assert again["there"] == 0
    check_volume(RadiObject(str(tmp_path / "back")).CT.loc["a_CT"], "a")
    RadiObject(f"s3://{bucket}/x").delete("a")
