"""A volume that is lost, emptied or exchanged is an error wherever it is read."""

import shutil

import numpy as np
import pytest
from stores import make_dataset

from radiobject import RadiObject, Volume
from radiobject.exceptions import StorageError
from radiobject.storage.io import libtiledb
from radiobject.storage.read import reader
from radiobject.storage.schema import collection


@pytest.fixture
def store(tmp_path):
    make_dataset(tmp_path / "store")
    reader.close_all()
    return tmp_path / "store"


def array_of(store, obs_id):
    return next((store / "collections/CT/volumes").glob(f"{obs_id}-*"))


def empty(store):
    for name in ("__fragments", "__commits"):
        shutil.rmtree(array_of(store, "a_CT") / name)
        (array_of(store, "a_CT") / name).mkdir()


def uncommit(store):
    for marker in (array_of(store, "a_CT") / "__commits").iterdir():
        marker.unlink()


def lose(store):
    shutil.rmtree(array_of(store, "a_CT"))


def exchange(store):
    a, b = array_of(store, "a_CT"), array_of(store, "b_CT")
    a.rename(store / "swap")
    b.rename(a)
    (store / "swap").rename(b)


@pytest.mark.parametrize("damage", [empty, lose, exchange])
@pytest.mark.parametrize("indexed", [True, False])
def test_reading_says_so(store, damage, indexed, monkeypatch):
    damage(store)
    if not indexed:
        monkeypatch.setattr(collection.CollectionStore, "_fetch_indexes", lambda *_: None)
    radi = RadiObject(str(store))
    with pytest.raises(StorageError, match="a_CT"):
        radi.CT.loc["a_CT"].to_numpy()
    with pytest.raises((StorageError, ValueError), match="a_CT"):
        radi.validate(checksums=True)
    with pytest.raises((StorageError, ValueError), match="a_CT"):
        radi.validate()
    np.testing.assert_array_equal(radi.CT.loc["c_CT"].to_numpy().shape, (6, 5, 4))


def test_a_fragment_without_its_commit_is_lost_for_libtiledb(store):
    uncommit(store)
    uri = str(array_of(store, "a_CT"))
    with pytest.raises(StorageError, match="lost its voxels"):
        Volume(uri).to_numpy()
    with pytest.raises(StorageError, match="lost its voxels"):
        libtiledb.session(remote=False).open(uri)


def test_an_array_of_ones_own_may_be_empty(tmp_path):
    volume = Volume.create(str(tmp_path / "v"), (4, 4, 4), np.int16)
    assert volume.to_numpy().shape == (4, 4, 4)
