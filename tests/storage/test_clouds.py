"""The same life of a data set on Azure, as its emulator has it."""

import json

import pytest
import tiledb
from azurite import azurite, azurite_server
from stores import check_volume, make_dataset

from radiobject import RadiObject, delete_tiledb_uri
from radiobject.ctx import get_tiledb_ctx, reset_radiobject_config
from radiobject.edit.copying import copy_dataset
from radiobject.edit.doctor import examine
from radiobject.exceptions import LockError
from radiobject.storage.commits.transaction import transaction
from radiobject.storage.io import files, layout, object_store, remote
from radiobject.storage.io.lock_record import LockRecord
from radiobject.storage.read import reader

pytestmark = pytest.mark.server


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    if azurite() is None:
        pytest.skip("Azurite is not installed (tests/azurite.py)")
    with azurite_server(tmp_path) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        reset_radiobject_config()
        uri = "azure://tests"
        tiledb.VFS(ctx=get_tiledb_ctx()).create_bucket(uri)
        yield uri
        reader.close_all()
        monkeypatch.undo()
        reset_radiobject_config()


def test_a_data_sets_whole_life(bucket):
    uri = f"{bucket}/data sets/x"
    make_dataset(uri)
    assert remote.reads(uri)
    radi = RadiObject(uri)
    for subject in "abcd":
        check_volume(radi.CT.loc[f"{subject}_CT"], subject)
    with transaction(uri, "a long ingest"), pytest.raises(LockError, match="a long ingest"):
        radi.delete("a")
    radi.delete("a")
    RadiObject(uri).obs_meta.add_column("note", str)
    assert RadiObject(uri).vacuum(keep=1)["volumes"] == 2
    RadiObject(uri).validate(checksums=True)
    delete_tiledb_uri(uri)
    assert files.list_folder(uri) == []


def test_a_copy_a_dead_writer_and_the_doctor(bucket, tmp_path):
    make_dataset(tmp_path / "store")
    uri = f"{bucket}/a+b é#100%/x"
    copy_dataset(str(tmp_path / "store"), uri, checksums=True)
    dead = json.loads(LockRecord.mine("dying").dump()) | {"pid": 2**22 - 1}
    store = object_store.open_store(*object_store.split(uri))
    store.put(layout.LOCK, json.dumps(dead).encode())
    RadiObject(uri).delete("a")
    store.put(layout.LOCK, json.dumps(dead | {"host": "elsewhere"}).encode())
    with pytest.raises(LockError, match="'elsewhere'"):
        RadiObject(uri).delete("b")
    RadiObject(uri).repair(break_lock=True)
    RadiObject(uri).delete("b")
    assert [f for f in examine(uri) if not f.good] == []
    copy_dataset(uri, str(tmp_path / "back"), checksums=True)
    check_volume(RadiObject(tmp_path / "back").CT["c_CT"], "c")
