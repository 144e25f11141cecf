"""Copies of a data set: one state, verified, taken up where they stopped."""

import os
import shutil

import pytest
from stores import check_volume, make_dataset

from radiobject import RadiObject
from radiobject.edit import copying
from radiobject.edit.copying import copy_dataset
from radiobject.exceptions import StorageError, StoreExistsError
from radiobject.storage.commits.transaction import transaction
from radiobject.storage.io import layout


def test_a_copy_has_the_states_of_its_source(radi, tmp_path):
    radi.delete("a")
    done = copy_dataset(radi.uri, str(tmp_path / "copy"), checksums=True)
    assert done["files"] > 50
    assert done["there"] == 0
    copy = RadiObject(str(tmp_path / "copy"))
    check_volume(copy.CT.loc["b_CT"], "b")
    assert copy.obs_subject_ids == ["b", "c", "d"]
    assert len(RadiObject(copy.uri, at=-2)) == 4
    assert not (tmp_path / "copy" / layout.LOCK).exists()
    copy.delete("b")


def test_a_copy_leaves_out_what_a_writer_has_not_committed(radi, tmp_path):
    with transaction(radi.uri, "writes") as tx:
        radi_ct = RadiObject(radi.uri).CT
        copy_dataset(radi.uri, str(tmp_path / "before"))
        del tx, radi_ct
    assert len(RadiObject(str(tmp_path / "before"))) == 4


def test_an_interrupted_copy_is_no_data_set_and_is_taken_up(radi, tmp_path, monkeypatch):
    target = str(tmp_path / "copy")
    copy, number = copying._copy, 0

    def stops(*args):
        nonlocal number
        number += 1
        if number == 60:
            raise StorageError("stopped")
        copy(*args)

    monkeypatch.setattr(copying, "_copy", stops)
    with pytest.raises(StorageError, match="stopped"):
        copy_dataset(radi.uri, target)
    with pytest.raises(StorageError):
        len(RadiObject(target))
    monkeypatch.undo()
    done = copy_dataset(radi.uri, target)
    assert done["there"] == 59
    check_volume(RadiObject(target).CT.loc["b_CT"], "b")


def test_a_copy_follows_volumes_that_lie_on_other_disks(radi, tmp_path):
    folder = tmp_path / "store" / "collections" / "CT" / "volumes"
    shutil.move(folder, tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    copy_dataset(radi.uri, str(tmp_path / "copy"), checksums=True)
    assert not (tmp_path / "copy" / "collections" / "CT" / "volumes").is_symlink()


def test_a_copy_replaces_nothing(radi, tmp_path):
    make_dataset(tmp_path / "other", subjects=("a",))
    with pytest.raises(StoreExistsError, match="already exists"):
        copy_dataset(radi.uri, str(tmp_path / "other"))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "precious.txt").write_text("x")
    with pytest.raises(StoreExistsError, match=r"precious\.txt"):
        copy_dataset(radi.uri, str(tmp_path / "files"))


def test_a_file_that_arrives_shorter_is_named(radi, tmp_path, monkeypatch):
    copy = copying.files.copy_file

    def cut(old, new):
        copy(old, new)
        if new.endswith("/a0.tdb") and "/volumes/d_CT-" in new:
            os.truncate(new, os.path.getsize(new) - 1)

    monkeypatch.setattr(copying.files, "copy_file", cut)
    with pytest.raises(StorageError, match=r"a0\.tdb has \d+ bytes after it was copied"):
        copy_dataset(radi.uri, str(tmp_path / "copy"))


def test_a_table_that_arrives_altered_is_named(radi, tmp_path, monkeypatch):
    copy = copying.files.copy_file

    def alter(old, new):
        copy(old, new)
        if new.endswith("/d0_var.tdb") and "/obs_meta/" in new:
            with open(new, "r+b") as file:
                file.seek(9)
                file.write(b"!")

    monkeypatch.setattr(copying.files, "copy_file", alter)
    with pytest.raises(StorageError, match="is not the file that was written"):
        copy_dataset(radi.uri, str(tmp_path / "copy"))
