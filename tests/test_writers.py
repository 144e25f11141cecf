# ruff: noqa: PT012  (what raises is the whole `with` block of a writer)
"""Writers: in any order, nothing until the end, nothing at all after an error."""

import threading

import numpy as np
import pandas as pd
import pytest
from stores import affine, check_volume, make_dataset, voxels

from radiobject import RadiObject, VolumeCollection
from radiobject.exceptions import AlignmentError, SchemaError, ShapeError, StorageError
from radiobject.writers import RadiObjectWriter, VolumeCollectionWriter


def test_volumes_written_z_m_a_are_found_by_their_ids(tmp_path):
    with VolumeCollectionWriter(tmp_path / "CT", shape=(6, 5, 4), obs_schema={"age": int}) as w:
        for count, subject in enumerate("hea", start=1):
            w.write_volume(
                voxels(subject), f"{subject}1", subject, age=count, affine=affine(subject)
            )
            assert w.n_written == count
        w.write_batch([(voxels("b"), "b1", "b", {"age": 9})])
    found = VolumeCollection(str(tmp_path / "CT"))
    assert found.name == "CT"
    assert found.obs_ids == ["a1", "b1", "e1", "h1"]
    assert found.to_obs()["age"].tolist() == [3, 9, 2, 1]
    check_volume(found["h1"], "h")
    found.validate(checksums=True)


def test_nothing_is_there_before_the_end_nor_after_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="mine"), VolumeCollectionWriter(tmp_path / "c") as w:
        w.write_volume(voxels("a"), "a", "a")
        with pytest.raises(FileNotFoundError, match="never finished"):
            len(VolumeCollection(str(tmp_path / "c")))
        raise RuntimeError("mine")
    assert not (tmp_path / "c").exists()
    with pytest.raises(KeyboardInterrupt), RadiObjectWriter(tmp_path / "r") as w:
        w.add_collection("CT").write_volume(voxels("a"), "a", "a")
        raise KeyboardInterrupt
    assert not (tmp_path / "r").exists()


def test_a_writer_is_opened_once(tmp_path):
    writer = VolumeCollectionWriter(tmp_path / "c")
    with pytest.raises(StorageError, match="not initialized"):
        writer.write_volume(voxels("a"), "a", "a")
    with writer:
        writer.write_volume(voxels("a"), "a", "a")
        with pytest.raises(StorageError, match="already initialized"):
            writer.__enter__()
    with pytest.raises(StorageError, match="already finalized"):
        writer.write_volume(voxels("b"), "b", "b")


def test_bad_volumes_are_refused_and_the_writer_goes_on(tmp_path):
    with VolumeCollectionWriter(tmp_path / "c", shape=(6, 5, 4), obs_schema={"age": int}) as w:
        w.write_volume(voxels("a"), "a", "a")
        for problem, error, said in (
            ({"data": np.zeros((2, 2, 2))}, ShapeError, "shape"),
            ({"data": np.zeros((2, 2))}, ShapeError, "shape"),
            ({"obs_id": "a"}, AlignmentError, "already"),
            ({"weight": 3}, SchemaError, "obs_schema"),
            ({"data": np.zeros((6, 5, 4), complex)}, TypeError, "voxels"),
            ({"affine": np.full((4, 4), np.nan)}, ShapeError, "finite"),
        ):
            given = {"data": voxels("b"), "obs_id": "b", "obs_subject_id": "b"} | problem
            with pytest.raises(error, match=said):
                w.write_volume(**given)
        w.write_volume(voxels("b"), "b", "b", age=3)
        assert w.n_written == 2
    found = VolumeCollection(str(tmp_path / "c"))
    assert found.obs_ids == ["a", "b"]
    assert found.to_obs()["age"].tolist() == [pd.NA, 3]
    found.validate(checksums=True)


@pytest.mark.parametrize("name", ["dim_x", "_array", "obs_id", "axcodes"])
def test_columns_of_the_store_are_refused(tmp_path, name):
    with pytest.raises((SchemaError, TypeError)), VolumeCollectionWriter(tmp_path / "c") as w:
        w.write_volume(voxels("a"), "a", "a", **{name: 1})


def test_undeclared_columns_take_their_types(tmp_path):
    with VolumeCollectionWriter(tmp_path / "c") as w:
        w.write_volume(voxels("a"), "a", "a", flag=True, n=3, x=1.5, s="t")
        w.write_volume(voxels("b"), "b", "b", n=4, y=None)
    table = VolumeCollection(str(tmp_path / "c")).obs
    kinds = {n: table.dtypes[n].kind for n in ("flag", "n", "x", "s")}
    assert kinds == {"flag": "b", "n": "i", "x": "f", "s": "U"}
    assert "y" not in table.columns
    assert table.read(["s"])["s"].isna().tolist() == [False, True]
    with pytest.raises(SchemaError, match="mixes"), VolumeCollectionWriter(tmp_path / "d") as w:
        w.write_volume(voxels("a"), "a", "a", n=3)
        w.write_volume(voxels("b"), "b", "b", n="three")
    assert not (tmp_path / "d").exists()


def test_many_threads_may_write(tmp_path):
    with VolumeCollectionWriter(tmp_path / "c") as w:
        threads = [
            threading.Thread(target=w.write_volume, args=(voxels(s), f"{s}1", s))
            for s in "abcdefgh"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = VolumeCollection(str(tmp_path / "c"))
    assert len(found) == 8
    for volume in found:
        np.testing.assert_array_equal(volume.to_numpy(), voxels(volume.obs_id[0]))


def test_data_sets(tmp_path):
    make_dataset(tmp_path / "r")
    radi = RadiObject(str(tmp_path / "r"))
    assert radi.obs_meta.read()["obs_ids"].tolist() == [f'["{s}_CT", "{s}_seg"]' for s in "abcd"]
    radi.validate(checksums=True)


def test_data_set_errors_leave_nothing(tmp_path):
    rows = pd.DataFrame({"obs_subject_id": ["a"], "age": [1]})

    def undeclared(w):
        w.write_obs_meta(rows.assign(x=1))

    def nameless(w):
        w.write_obs_meta(rows.drop(columns="obs_subject_id"))

    def twice(w):
        w.write_obs_meta(rows)
        w.write_obs_meta(rows)

    def added_twice(w):
        w.add_collection("CT")
        w.add_collection("CT")

    def reused(w):
        for name in ("CT", "seg"):
            w.add_collection(name).write_volume(voxels("a"), "same", "a")

    for problem, error, said in (
        (undeclared, SchemaError, "'x'"),
        (nameless, SchemaError, "obs_subject_id"),
        (twice, AlignmentError, "'a'"),
        (added_twice, ValueError, "already added"),
        (reused, AlignmentError, "'same'"),
    ):
        writer = RadiObjectWriter(tmp_path / "r", obs_meta_schema={"age": int})
        with pytest.raises(error, match=said), writer:
            problem(writer)
        assert not (tmp_path / "r").exists(), problem.__name__


def test_finalize_gives_the_data_set_and_ends_it(tmp_path):
    with RadiObjectWriter(tmp_path / "r") as writer:
        writer.write_obs_meta(pd.DataFrame({"obs_subject_id": ["lonely"]}))
        with writer.add_collection("CT") as target:
            target.write_volume(voxels("a"), "a", "a")
        assert writer.collection_names == ["CT"]
        radi = writer.finalize()
        with pytest.raises(StorageError, match="already finalized"):
            writer.add_collection("more")
    assert radi.obs_subject_ids == ["a", "lonely"]
    assert radi.obs_meta.read()["obs_ids"].tolist() == ['["a"]', "[]"]
