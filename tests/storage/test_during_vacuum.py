"""A real vacuum, held before each of its steps: nobody who reads or copies meanwhile is lied to.

It runs in a process of its own, whose calls that remove, rename or merge files wait for this one.
"""

import os
import shutil
import sys
import traceback
from functools import partial

import pandas as pd
import pytest
import tiledb
from stores import check_volume, make_dataset

from radiobject import RadiObject
from radiobject.edit.copying import copy_dataset
from radiobject.exceptions import StorageError
from radiobject.storage.commits import transaction
from radiobject.storage.read import reader
from radiobject.storage.tables import checked

HELD = [(os, "unlink"), (os, "rmdir"), (os, "replace"), (os, "rename"), (tiledb, "vacuum"),
        (tiledb, "consolidate"), (tiledb.Group, "consolidate_metadata")]  # fmt: skip
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no process"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set with a volume that its newest state lacks, and tables of several files."""
    uri = str(tmp_path_factory.mktemp("made") / "store")
    make_dataset(uri)
    for age in (31.0, 32.0):
        change = pd.DataFrame({"obs_subject_id": ["c"], "age": [age]})
        RadiObject(uri).obs_meta.update(change)
    RadiObject(uri).delete("b")
    return uri


@pytest.fixture
def store(made, tmp_path, monkeypatch):
    # What is held stays held: to look again after a while shows the same.
    monkeypatch.setattr(checked, "_RETRIES_S", (0.0,))
    return shutil.copytree(made, tmp_path / "store").as_posix()


class HeldVacuum:
    """Iterating gives the name of each step that the vacuum is about to take."""

    def __init__(self, uri):
        self._says, says = os.pipe()
        waits, self._goes = os.pipe()
        sys.stdout.flush()
        self._child = os.fork()
        if self._child == 0:
            os.close(self._says)
            os.close(self._goes)
            status = 1
            try:
                for module, name in HELD:
                    setattr(module, name, partial(_held, getattr(module, name), name, says, waits))
                RadiObject(uri).vacuum(keep=1)
                status = 0
            except BaseException:  # noqa: BLE001  (shown, and nothing goes on)
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(status)
        os.close(says)
        os.close(waits)

    def __iter__(self):
        try:
            with os.fdopen(self._says) as says:
                for line in says:
                    yield line.strip()
                    os.write(self._goes, b".")
        finally:
            os.close(self._goes)  # whoever waits there ends
            status = os.waitpid(self._child, 0)[1]
        assert status == 0


def _held(call, name, says, waits, *args, **kwargs):
    os.write(says, f"{name}\n".encode())
    if not os.read(waits, 1):
        os._exit(1)
    return call(*args, **kwargs)


def check_newest(uri, *, voxels):
    radi = RadiObject(uri)
    assert radi.obs_subject_ids == ["a", "c", "d"]
    assert radi.CT.obs_ids == ["a_CT", "c_CT", "d_CT"]
    if voxels:
        assert radi.obs_meta.read()["age"].tolist()[:2] == [61.0, 32.0]
        check_volume(radi.CT["d_CT"], "d")


def test_who_opens_and_who_had_opened_gets_a_right_answer_or_our_error(store):
    old = RadiObject(store, at=-2)
    given_up = int(old.history().timestamp.iloc[-2])
    assert old.CT.obs_ids[1] == "b_CT"
    older = RadiObject(store, at=-2)
    assert older.collection_names == ("CT", "seg")  # opened, and nothing more
    seen, said = [], set()
    for number, step in enumerate(HeldVacuum(store)):
        changed = not seen or seen[-1] != step
        seen.append(step)
        if not changed and number % 12:
            continue
        reader.close_all()
        check_newest(store, voxels=changed)
        for ask in (
            lambda: check_volume(old.CT["b_CT"], "b"),
            lambda: check_volume(old.CT["a_CT"], "a"),
            lambda: check_volume(RadiObject(store, at=given_up).seg["b_seg"], "b", "seg"),
            lambda: older.obs_meta.read().obs_subject_id.tolist() == ["a", "b", "c", "d"],
        ):
            try:
                assert ask() is not False
            except StorageError as error:
                assert store in str(error)  # noqa: PT017
                said.add(str(error))
    assert {"unlink", "rmdir", "replace", "consolidate_metadata"} <= {*seen}
    assert any("vacuum() removed it" in text for text in said)
    assert any(f"has no commit at {given_up}" in text for text in said)
    assert not [text for text in said if "vacuum()" not in text and "no commit at" not in text]
    assert not [text for text in said if "TileDB" in text]
    RadiObject(store).validate(checksums=True)
    check_newest(store, voxels=True)


def test_a_copy_is_of_one_state_or_says_that_states_were_given_up(store, tmp_path, monkeypatch):
    """The vacuum begins while files are copied, and goes on by a step with each of them."""
    steps, own = None, os.getpid()
    copy = shutil.copyfile

    def copies(old, new):
        nonlocal steps
        if os.getpid() != own:
            return copy(old, new)
        steps = iter(HeldVacuum(store)) if steps is None else steps
        next(steps, None)
        return copy(old, new)

    target = str(tmp_path / "copy")
    monkeypatch.setattr(shutil, "copyfile", copies)
    with pytest.raises(StorageError, match=r"states of .*/store were given up by vacuum\(\) while"):
        copy_dataset(store, target)
    with pytest.raises(StorageError):
        len(RadiObject(target))
    for _ in steps:
        pass
    monkeypatch.undo()
    assert copy_dataset(store, target, checksums=True)["there"] > 10
    check_newest(target, voxels=True)
    assert len(RadiObject(target).history()) == len(RadiObject(store).history())
    RadiObject(target).vacuum()
    check_newest(target, voxels=True)


def test_what_an_interrupted_copy_brought_is_not_merged_with_what_came_later(store, tmp_path):
    """Rows that were deleted since would come back with the merge of a later vacuum."""
    target = str(tmp_path / "copy")
    shutil.copytree(store, target)
    shutil.rmtree(f"{target}/__meta")
    RadiObject(store).vacuum(keep=1)
    copy_dataset(store, target)
    for table in ("obs_meta", "collections/CT/obs"):
        both = [set(os.listdir(f"{uri}/{table}/__fragments")) for uri in (store, target)]
        assert both[0] == both[1]
    assert sorted(os.listdir(f"{target}/collections/CT/volumes")) == sorted(
        os.listdir(f"{store}/collections/CT/volumes")
    )
    assert transaction.read_head(target).last == transaction.read_head(store).last
    for _ in range(2):
        RadiObject(target).vacuum()
        check_newest(target, voxels=True)
    RadiObject(target).validate(checksums=True)


def test_an_interrupted_copy_of_another_data_set_is_left_alone(store, tmp_path):
    other = tmp_path / "other"
    make_dataset(other)
    shutil.rmtree(other / "__meta")
    before = sorted(p.name for p in other.rglob("*"))
    with pytest.raises(StorageError, match="files of another data set, such as"):
        copy_dataset(store, str(other))
    assert sorted(p.name for p in other.rglob("*")) == before
