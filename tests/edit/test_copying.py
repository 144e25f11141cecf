"""Copies of a data set: one state, verified, taken up where they stopped."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from stores import check_volume, make_dataset

from radiobject import RadiObject
from radiobject.edit import copying
from radiobject.edit.copying import copy_dataset
from radiobject.exceptions import StorageError, StoreExistsError
from radiobject.storage.commits.transaction import transaction
from radiobject.storage.io import layout
from radiobject.storage.tables.table import Table
from radiobject.storage.tables.writer import write_volume


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
        Table(f"{radi.uri}/obs_meta").delete("obs_subject_id == 'a'", tx.clock.tick())
        name = layout.array_name("new", tx.timestamp)
        write_volume(f"{radi.uri}/collections/CT/volumes/{name}", np.ones((3, 3, 3), np.int16))
        copy_dataset(radi.uri, str(tmp_path / "before"))
    copied = RadiObject(str(tmp_path / "before"))
    assert copied.obs_subject_ids == ["a", "b", "c", "d"]
    later = [p for p in Path(copied.uri).rglob("*") if name in p.name or p.suffix == ".del"]
    assert later == []


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
    begun = next(path for path in Path(target).rglob("*.tdb") if path.stat().st_size)
    os.truncate(begun, begun.stat().st_size - 1)
    done = copy_dataset(radi.uri, target)
    assert done["there"] == 58
    check_volume(RadiObject(target).CT.loc["b_CT"], "b")


def test_a_copy_that_stops_in_its_history_is_taken_up(radi, tmp_path, monkeypatch):
    """Half a history would be refused as another data set for ever."""
    radi.delete("a")
    target, copy = str(tmp_path / "copy"), copying._copy

    def stops(old, new, name):
        if name.startswith("__meta/") and os.path.isdir(f"{target}/__meta"):
            raise StorageError("stopped")
        copy(old, new, name)

    with monkeypatch.context() as patch:
        patch.setattr(copying, "_copy", stops)
        with pytest.raises(StorageError, match="stopped"):
            copy_dataset(radi.uri, target)
    copy_dataset(radi.uri, target)
    assert RadiObject(target).obs_subject_ids == ["b", "c", "d"]


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


def test_nothing_is_written_through_links_at_the_target(radi, tmp_path):
    """What they led to was overwritten."""
    (tmp_path / "foreign").mkdir()
    (tmp_path / "victim").write_text("precious")
    schema = next((tmp_path / "store" / "obs_meta" / "__schema").glob("__[0-9]*"))
    place = Path("obs_meta", "__schema", schema.name)
    for target, link, goal in (
        (tmp_path / "one", Path("obs_meta"), tmp_path / "foreign"),
        (tmp_path / "two", place, tmp_path / "victim"),
    ):
        (target / link).parent.mkdir(parents=True)
        (target / link).symlink_to(goal)
        with pytest.raises(StoreExistsError, match=f"{link} is a link"):
            copy_dataset(radi.uri, str(target))
    assert list((tmp_path / "foreign").iterdir()) == []
    assert (tmp_path / "victim").read_text() == "precious"


def test_files_that_are_links_are_named(radi, tmp_path):
    """As git-annex and DVC check them out: the copy had none of them, and its head was missing."""
    for number, file in enumerate(p for p in [*Path(radi.uri).rglob("*")] if p.is_file()):
        goal = tmp_path / f"object {number}"
        file.rename(goal)
        file.symlink_to(goal)
    with pytest.raises(StorageError, match="is a link to a file outside, as git-annex and DVC"):
        copy_dataset(radi.uri, str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()
    with pytest.raises(StorageError, match="git annex unlock"):
        RadiObject(radi.uri).CT["a_CT"].to_numpy()


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
