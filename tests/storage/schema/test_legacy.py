"""Data sets of the published 0.1.x open, read correctly, are never changed, and can be upgraded."""

import hashlib
import shutil
from pathlib import Path

import legacy_store
import numpy as np
import pandas as pd
import pytest
import tiledb

from radiobject import RadiObject, StorageError, VolumeCollection
from radiobject.exceptions import AlignmentError, StoreExistsError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return legacy_store.write(tmp_path_factory.mktemp("old") / "store")


@pytest.fixture
def old(made, tmp_path):
    """A copy elsewhere: its groups name members at the first place, as 0.1.x left them."""
    shutil.copytree(made, tmp_path / "store")
    return RadiObject(str(tmp_path / "store"))


def digest(folder):
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("name", ["CT", "seg", "bold"])
def test_voxels_belong_to_their_ids_whatever_the_directory(old, name):
    collection = old.collection(name)
    assert collection.obs_ids == [f"{s}_{name}" for s in "ABC"]
    for subject in "ABC":
        volume = collection.loc[f"{subject}_{name}"]
        np.testing.assert_array_equal(volume.to_numpy(), legacy_store.voxels(subject, name))
        np.testing.assert_array_equal(volume[2:5, 1, -3:], volume.to_numpy()[2:5, 1, -3:])
        np.testing.assert_array_equal(volume.affine, legacy_store.AFFINE)
        assert volume.obs_id == f"{subject}_{name}"


def test_tables_filters_and_views_reach_everything(old):
    assert old.obs_subject_ids == ["A", "B", "C"]
    assert old.collection_names == ("CT", "bold", "seg")
    frame = old.obs_meta.read()
    assert frame["age"].tolist() == [41, 42, 40]
    assert frame["site"].tolist() == ["y", "z", "x"]
    view = old.filter("age > 40 and site != 'z'")
    assert view.CT.obs_ids == ["A_CT"]
    assert old.CT.filter("series_type == 'T1w' and datatype == 4").obs_ids == old.CT.obs_ids
    row = old.CT.get_obs_row_by_obs_id("B_CT").iloc[0]
    assert row["voxel_spacing"] == "(1.0, 2.0, 3.0)"
    assert row["dimensions"] == "(7, 6, 5)"
    assert old.CT.shape == (7, 6, 5)
    assert "RadiObject(3 subjects" in repr(old)
    assert old.get_volume("C_seg").shape == (7, 6, 5)


def test_a_collection_opens_alone(old):
    alone = VolumeCollection(f"{old.uri}/collections/CT")
    np.testing.assert_array_equal(alone.loc["C_CT"].to_numpy(), legacy_store.voxels("C", "CT"))
    assert alone.name == "CT"


@pytest.mark.parametrize(
    "change",
    [
        lambda radi: radi.delete("A"),
        lambda radi: radi.CT.delete("A_CT"),
        lambda radi: radi.rename_collection("CT", "MR"),
        lambda radi: radi.append({"CT": [("x.nii", "A")]}),
        lambda radi: radi.CT.append(niftis=[("x.nii", "A")]),
        lambda radi: radi.obs_meta.update(pd.DataFrame({"obs_subject_id": ["A"], "age": [1]})),
        lambda radi: radi.CT.obs.add_column("new", int),
        lambda radi: radi.vacuum(),
        lambda radi: radi.split({"train": 0.5, "test": 0.5}),
    ],
)
def test_changes_are_refused_with_the_way_out(old, change):
    before = digest(old.uri)
    with pytest.raises(StorageError, match=r"upgrade\(new_uri\)"):
        change(old)
    assert digest(old.uri) == before


def test_creating_over_an_old_store_is_refused(old, tmp_path):
    before = digest(old.uri)
    with pytest.raises(StoreExistsError, match="already exists"):
        RadiObject.from_images(old.uri, {"CT": str(tmp_path / "*.nii")}, format_hint="nifti") if (
            _scan(tmp_path)
        ) else None
    assert digest(old.uri) == before


def _scan(folder):
    import nibabel as nib

    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)), folder / "a.nii")
    return True


def test_upgrade_keeps_ids_voxels_geometry_and_columns_and_leaves_the_old(old, tmp_path):
    before = digest(old.uri)
    new = old.upgrade(str(tmp_path / "new"))
    assert digest(old.uri) == before
    new.validate(checksums=True)
    for name in old:
        assert new.collection(name).obs_ids == old.collection(name).obs_ids
        for volume in new.collection(name):
            subject = volume.obs_id[0]
            np.testing.assert_array_equal(volume.to_numpy(), legacy_store.voxels(subject, name))
            np.testing.assert_array_equal(volume.affine, legacy_store.AFFINE)
            assert volume.metadata["nifti_sform_code"] == 1
    pd.testing.assert_frame_equal(
        new.obs_meta.read(["age", "site", "obs_ids"]), old.obs_meta.read(["age", "site", "obs_ids"])
    )
    frame = new.CT.obs.read()
    assert frame["series_type"].tolist() == ["T1w"] * 3
    assert frame["spacing_z"].tolist() == [3.0] * 3
    assert frame["voxel_spacing"].tolist() == old.CT.obs.read()["voxel_spacing"].tolist()
    with pytest.raises(StorageError, match="already"):
        new.upgrade(str(tmp_path / "again"))


def test_release_0_1_1_is_read_and_upgraded(tmp_path):
    old = RadiObject(legacy_store.write_0_1_1(tmp_path / "old"))
    subjects = old.obs_meta.read()
    assert subjects.columns.tolist() == ["obs_subject_id", "age", "obs_ids"]
    assert subjects["obs_ids"].tolist() == [f'["{s}_unknown", "{s}_unknown"]' for s in "ABC"]
    assert old.filter("age > 41").obs_subject_ids == ["B"]
    with pytest.warns(UserWarning, match="3 volume ids were those of volumes in several coll"):
        new = old.upgrade(str(tmp_path / "new"))
    new.validate(checksums=True)
    for name in ("CT", "seg"):
        assert new.collection(name).obs_ids == [f"{s}_{name}" for s in "ABC"]
        for volume in new.collection(name):
            np.testing.assert_array_equal(
                volume.to_numpy(), legacy_store.voxels(volume.obs_id[0], name)
            )
    assert new.obs_meta.read()["obs_ids"].tolist() == [f'["{s}_CT", "{s}_seg"]' for s in "ABC"]
    assert new.obs_meta.read()["age"].tolist() == [41, 42, 40]


def test_a_second_key_of_0_1_1_with_a_meaning_becomes_a_column(tmp_path):
    old = RadiObject(legacy_store.write_0_1_1(tmp_path / "old", row_ids=["c1", "a1", "b1"]))
    assert old.obs_meta.read()["obs_id"].tolist() == ["a1", "b1", "c1"]
    with pytest.warns(UserWarning, match="several collections"):
        new = old.upgrade(str(tmp_path / "new"))
    assert new.obs_meta.read()["obs_id"].tolist() == ["a1", "b1", "c1"]


def test_validate_says_what_the_layout_lacks(old):
    with pytest.warns(UserWarning, match="no commits, no tile index"):
        old.validate(checksums=True)


def test_validate_finds_rows_without_volumes_and_volumes_without_rows(old):
    shutil.rmtree(f"{old.uri}/collections/CT/volumes/1")
    legacy_store.volume(
        f"{old.uri}/collections/seg/volumes/9", np.zeros((2, 2, 2), np.int16), "Z_seg", np.eye(4)
    )
    fresh = RadiObject(old.uri)
    with pytest.warns(UserWarning, match="layout of"), pytest.raises(AlignmentError, match="A_CT"):
        fresh.CT.validate()
    with pytest.raises(AlignmentError, match="Z_seg"):
        fresh.seg.validate()
    assert fresh.CT.loc["C_CT"].to_numpy()[0, 0, 0] == 2000
    with pytest.raises(FileNotFoundError, match="A_CT"):
        fresh.CT.loc["A_CT"].to_numpy()


def test_two_arrays_of_one_id_are_never_guessed_between(old):
    legacy_store.volume(
        f"{old.uri}/collections/CT/volumes/7", np.zeros((2, 2, 2), np.int16), "A_CT", np.eye(4)
    )
    with pytest.raises(AlignmentError, match="both say"):
        RadiObject(old.uri).CT.obs_ids  # noqa: B018


def test_a_group_of_something_else_is_no_old_store(tmp_path):
    tiledb.Group.create(str(tmp_path / "other"))
    with pytest.raises(FileNotFoundError, match="written by something else"):
        len(RadiObject(str(tmp_path / "other")))
