"""Folders that a user may not read, copies that were broken off, states that others gave up."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from stores import check_volume, make_dataset

from radiobject import RadiObject, VolumeCollection
from radiobject.exceptions import (
    RadiObjectError,
    StorageError,
    StoreExistsError,
    StoreNotFoundError,
)
from radiobject.storage.cache import tile_cache
from radiobject.storage.read import reader
from radiobject.storage.tables import groups

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    uri = tmp_path_factory.mktemp("made") / "store"
    make_dataset(uri)
    RadiObject(uri).obs_meta.add_column("note", str, fill="x")
    RadiObject(uri).delete("b")
    return uri


@pytest.fixture
def store(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "store"))


def ask(uri):
    """Read and validate all of the data set."""
    radi = RadiObject(uri)
    for name in radi.collection_names:
        for volume in radi.collection(name):
            volume.to_numpy()
    radi.validate()


# Permissions


@contextmanager
def another_user(*folders):
    """Be a user without privileges, who may enter the `folders` above."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can be another user")
    for folder in folders:
        os.chmod(folder, 0o755)
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def entered(store, monkeypatch):
    """The folders from the temporary one down to the store's; nothing is kept of what was read."""
    monkeypatch.setenv("RADIOBJECT_CACHE", "off")
    tile_cache.detach()
    ask(store)
    reader.close_all()
    above = [p for p in store.parents if "pytest" in str(p)]
    return [*above, store]


@pytest.mark.parametrize(
    "place",
    ["", "__meta", "__group", "obs_meta", "obs_meta/__fragments", "obs_meta/__commits",
     "collections", "collections/CT", "collections/CT/obs", "collections/CT/tile_index",
     "collections/CT/volumes", "a volume", "a tile file", "a file of the head"],
)  # fmt: skip
def test_what_this_user_may_not_read_is_named(store, entered, place):
    volume = min((store / "collections/CT/volumes").iterdir())
    special = {
        "a volume": volume,
        "a tile file": next(volume.rglob("a0.tdb")),
        "a file of the head": min((store / "__meta").iterdir()),
    }
    with another_user(*entered):
        pass  # the folders above are open now
    os.chmod(special.get(place, store / place), 0)
    with another_user(*entered[:-1]), pytest.raises(RadiObjectError) as caught:
        ask(store)
    assert "ermission" in str(caught.value)
    assert str(store) in str(caught.value)


def test_who_may_only_read_learns_it_and_reads(store, entered):
    with another_user(*entered):
        check_volume(RadiObject(store).CT["a_CT"], "a")
        for change in (
            lambda: RadiObject(store).delete("a"),
            lambda: RadiObject(store).vacuum(),
            lambda: RadiObject(store).write(store.parent / "copy"),
        ):
            with pytest.raises(StorageError, match="Permission denied"):
                change()


# Copies


@pytest.mark.parametrize("lost", [("__meta",), ("__group", "__tiledb_group.tdb", "__meta")])
def test_a_copy_without_its_head_is_an_incomplete_copy(store, lost):
    for name in lost:
        path = store / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(StoreNotFoundError, match=r"incomplete copy of one, without .*__meta"):
        len(RadiObject(store))
    with pytest.raises(StoreExistsError, match="incomplete copy"):
        make_dataset(store)
    assert len(list((store / "collections/CT/volumes").iterdir())) == 4


@pytest.mark.parametrize("lost", ["obs_meta", "collections/CT/obs", "collections/CT/tile_index"])
def test_a_copy_without_a_table_is_named(store, lost):
    shutil.rmtree(store / lost)
    with pytest.raises(StorageError, match=rf"{lost}/.* is missing, lost or not copied"):
        ask(store)


def test_a_copy_without_volumes_is_named(store):
    shutil.rmtree(store / "collections/CT/volumes")
    with pytest.raises(StorageError, match=r"'a_CT'.* was not copied whole"):
        RadiObject(store).CT["a_CT"].to_numpy()
    with pytest.raises(
        RadiObjectError, match=r"'a_CT', 'c_CT', 'd_CT'; the data set was not copied"
    ):
        RadiObject(store).validate()


def test_what_rsync_had_not_finished_is_named(store):
    volume = min((store / "collections/CT/volumes").iterdir())
    file = next(volume.rglob("a0.tdb"))
    file.rename(file.with_name(".a0.tdb.Xy12ab"))
    with pytest.raises(StorageError, match=r"a0\.tdb has vanished"):
        ask(store)


# Others' vacuum


def test_a_state_that_another_process_gave_up_is_never_read_as_another(store):
    read, unread, newest = (RadiObject(store, at=at) for at in (-2, -2, None))
    assert unread.collection_names == newest.collection_names  # opened, and nothing more
    assert len(read.CT.obs_ids) == 4
    code = "import sys; from radiobject import RadiObject; RadiObject(sys.argv[1]).vacuum()"
    subprocess.run([sys.executable, "-c", code, str(store)], check=True)
    for ask_it in (
        lambda: unread.CT.obs_ids,
        lambda: unread.obs_meta.read().obs_subject_id.tolist(),
    ):
        try:
            found = [name[0] for name in ask_it()]
        except StorageError as error:
            found = ["a", "b", "c", "d"]
            assert "was given up by vacuum() after it was opened" in str(error)  # noqa: PT017
        assert found == ["a", "b", "c", "d"]
    with pytest.raises(StoreNotFoundError, match=r"'b_CT' is not at .* vacuum\(\) removed it"):
        read.CT["b_CT"].to_numpy()
    check_volume(read.CT["a_CT"], "a")
    newest.validate(checksums=True)
    assert len(VolumeCollection(store / "collections/CT").obs_ids) == 3


def test_the_heads_counts_are_compared_with_the_tables(store):
    metadata = groups.read_metadata(str(store))
    last = max(key for key in metadata if key.startswith("commit:"))
    wrong = (("n_subjects", 2), ("n_volumes", 5), ("n_volumes", 7))
    for turn, (field, other) in enumerate(wrong):
        altered = json.loads(metadata[last]) | {field: other}
        groups.write_metadata(str(store), {last: json.dumps(altered)}, 2**50 + turn)
        radi = RadiObject(store)
        with pytest.raises(StorageError, match=rf"committed with {other} .*, its tables have"):
            ask_counts(radi)


def ask_counts(radi):
    assert radi.obs_subject_ids
    for name in radi.collection_names:
        assert radi.collection(name).obs_ids
