"""What was opened at a state that `vacuum` gave up since: its own rows or an error, never none.

Another process's vacuum is one whose record of the tables this process has not read: what it knew
before is put back.
"""

import shutil

import pytest
from store_of_0_2_0 import unpack
from stores import make_dataset

from radiobject import RadiObject
from radiobject.exceptions import IntegrityError, StorageError
from radiobject.storage.io import files, remote
from radiobject.storage.tables import checked, digests, staging

pytestmark = pytest.mark.processes

ASKED = {
    "subjects' table": lambda radi: list(radi.obs_meta.read().obs_subject_id),
    "volumes' table": lambda radi: list(radi.CT.obs.read().obs_subject_id),
    "ids": lambda radi: [name[0] for name in radi.CT.obs_ids],
    "subjects": lambda radi: radi.obs_subject_ids,
    "filter": lambda radi: radi.filter("obs_subject_id != 'z'").obs_subject_ids,
    "filter of volumes": lambda radi: [n[0] for n in radi.CT.filter("obs_id != 'z'").obs_ids],
    "split": lambda radi: list(radi.splits) or list("abcd"),
}
PLACES = ["disk", pytest.param("bucket", marks=pytest.mark.s3)]
WAYS = {
    "compared": lambda patch: None,
    "linked": lambda patch: patch.setattr(checked, "_strangers", lambda *_: ["as if one were"]),
    "too large": lambda patch: patch.setattr(checked, "_STAGED_BYTES", 0),
    "through libtiledb": lambda patch: patch.setattr(remote, "_KINDS", ()),
}
"""How a table is opened."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    uri = tmp_path_factory.mktemp("made") / "store"
    make_dataset(uri)
    RadiObject(uri).delete("b")
    return uri


@pytest.fixture(params=PLACES)
def uri(request, made, tmp_path):
    if request.param == "disk":
        return str(shutil.copytree(made, tmp_path / "store"))
    place = f"s3://{request.getfixturevalue('s3_bucket')}/store"
    make_dataset(place)
    RadiObject(place).delete("b")
    return place


def older(uri):
    """The data set as it was before the last commit, once for each question; opened, not read."""
    found = [RadiObject(uri, at=-2) for _ in ASKED]
    assert {radi.collection_names for radi in found} == {("CT", "seg")}
    return found


def check_refused(opened, known=None):
    """Each question is refused, by a process that had read the record `known` at that time."""
    for ask, radi in zip(ASKED.values(), opened, strict=True):
        if known is not None:
            staging.clear()
            digests.keep(radi.uri, known)
        with pytest.raises(StorageError, match=r"was given up by vacuum\(\) after it was opened"):
            ask(radi)


def test_by_this_process_and_by_another(uri, monkeypatch):
    """This process's record listed no states until it was read again: tables were empty."""
    by_another = {way: older(uri) for way in WAYS}
    by_this, later = older(uri), older(uri)
    known = digests.known(uri)
    RadiObject(uri).vacuum()
    check_refused(by_this)
    for way, change in WAYS.items():
        with monkeypatch.context() as patch:
            change(patch)
            check_refused(by_another[way], known)
    RadiObject(uri).obs_meta.add_column("later", str)
    check_refused(later)
    assert RadiObject(uri).obs_subject_ids == ["a", "c", "d"]


def test_states_that_are_kept_are_read_on(made, tmp_path):
    uri = str(shutil.copytree(made, tmp_path / "store"))
    RadiObject(uri).obs_meta.add_column("later", str)
    opened = older(uri)
    newest = RadiObject(uri)
    newest.vacuum(keep=2)
    for ask, radi in zip(ASKED.values(), opened, strict=True):
        assert set(ask(radi)) - {"b"} == {"a", "c", "d"}
    newest.vacuum(keep=1)
    assert newest.obs_subject_ids == ["a", "c", "d"]


def test_of_a_data_set_of_an_older_format(tmp_path):
    uri = str(unpack(tmp_path))
    opened = [RadiObject(uri, at=-2) for _ in range(2)]
    assert {radi.collection_names for radi in opened} == {("CT", "seg")}
    RadiObject(uri).vacuum()
    digests._known[uri] = None  # as in a process that only read it before
    for ask, radi in ((ASKED["subjects' table"], opened[0]), (ASKED["ids"], opened[1])):
        with pytest.raises(StorageError, match=r"was given up by vacuum\(\) after it was opened"):
            ask(radi)
        digests._known[uri] = None


@pytest.mark.s3
def test_a_lost_file_of_a_large_table_in_a_bucket_is_named(s3_bucket, monkeypatch):
    """As the rules of a bucket remove what is old. Rows were missing without a word."""
    monkeypatch.setattr(checked, "_STAGED_BYTES", 0)
    monkeypatch.setattr(checked, "_RETRIES_S", (0.0,))
    uri = f"s3://{s3_bucket}/store"
    make_dataset(uri, names=("CT",))
    table = remote.RemoteFiles(f"{uri}/obs_meta")
    for folder in ("__commits/", "__fragments/"):
        lost = max(name for name in table.sizes() if name.startswith(folder))
        content = table.read(lost, 1 << 20)
        files.remove_file(f"{uri}/obs_meta/{lost}")
        with pytest.raises(IntegrityError, match=rf"obs_meta/{lost} is missing, lost or not"):
            RadiObject(uri).obs_meta.read()
        table.write(lost, content[:-1])
        if content:
            with pytest.raises(IntegrityError, match=rf"obs_meta/{lost} has \d+ bytes, expected"):
                RadiObject(uri).obs_meta.read()
        table.write(lost, content)
    assert len(RadiObject(uri).obs_meta.read()) == 4
