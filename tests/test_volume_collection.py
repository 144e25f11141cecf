"""Collections: order, selection, rows, creation and append from files, and what goes wrong."""

import shutil
import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from stores import affine, check_volume, make_dataset, scanned_again, voxels

from radiobject import RadiObject, VolumeCollection
from radiobject.exceptions import (
    AlignmentError,
    IngestError,
    SchemaError,
    ShapeError,
    StoreExistsError,
    ViewError,
)
from radiobject.volume_collection import generate_obs_id


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    uri = tmp_path_factory.mktemp("made") / "store"
    make_dataset(uri)
    return uri


@pytest.fixture
def collection(made, tmp_path):
    shutil.copytree(made, tmp_path / "store")
    return RadiObject(str(tmp_path / "store")).CT


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for subject in "abcd":
        image = nib.Nifti1Image(voxels(subject, dtype=np.int16), affine(subject))
        nib.save(image, folder / f"{subject}.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)), folder / "small.nii")
    (folder / "broken.nii").write_bytes(b"not an image at all")
    return folder


def pairs(scans, subjects):
    return [(scans / f"{s}.nii.gz", s) for s in subjects]


@pytest.mark.parametrize(
    ("select", "ids"),
    [
        (lambda c: c.iloc[[2, 0, 2]], "cac"),
        (lambda c: c.iloc[::-2], "db"),
        (lambda c: c.iloc[np.array([False, True, True, False])], "bc"),
        (lambda c: c.loc[["d_CT", "a_CT", "d_CT"]], "dad"),
        (lambda c: c[1:3], "bc"),
        (lambda c: c[["b_CT"]], "b"),
        (lambda c: c[[]], ""),
        (lambda c: c.filter("kvp > 198 and protocol == 'slow'"), "cd"),
        (lambda c: c.filter("kvp > 197").iloc[::-1].filter("protocol == 'slow'"), "dc"),
        (lambda c: c.sel(subject=["c", "a"]), "ca"),
        (lambda c: c.head(3).tail(2), "bc"),
        (lambda c: c.lazy().filter("kvp < 199").iloc([1, 0])._source, "ba"),
        (lambda c: c.of_subjects(["b", "z", "b"]), "bb"),
    ],
)
def test_a_selection_keeps_order_and_repeats_in_everything(collection, select, ids):
    view = select(collection)
    names = [f"{s}_CT" for s in ids]
    assert view.is_view
    assert view.obs_ids == names
    assert view.subject_ids == view.obs_subject_ids == list(ids)
    assert [v.obs_id for v in view] == [loc.obs_id for loc in view.locators()] == names
    assert view.to_obs()["obs_id"].tolist() == names
    assert view.affines()[:, 0, 3].tolist() == ["abcd".index(s) for s in ids]
    assert list(view.index) == list(dict.fromkeys(names))
    assert list(view.subjects) == list(dict.fromkeys(ids))
    assert view.shapes.shape == (len(ids), 4)
    assert view.uri == collection.uri
    for volume, subject in zip(view, ids, strict=True):
        check_volume(volume, subject)
    for subject, group in view.groupby_subject():
        assert set(group.subject_ids) == {subject}
    if names:
        assert view.locate(names[0]).obs_id == names[0]
        assert view.shape == (6, 5, 4)


def test_single_volumes_and_bad_keys(collection):
    check_volume(collection[-1], "d")
    check_volume(collection["b_CT"], "b")
    check_volume(collection.sel(subject="c"), "c")
    assert collection.get_obs_row_by_obs_id("b_CT")["kvp"].tolist() == [198]
    assert collection.get_obs_row_by_obs_id("zzz").empty
    for key, error in (
        (4, IndexError), (-5, IndexError), ("zzz", KeyError), (["a_CT", "zzz"], KeyError),
        (1.5, TypeError), ([True], ValueError), ({}, TypeError),
    ):  # fmt: skip
        with pytest.raises(error):
            collection[key]
    with pytest.raises(KeyError, match="not found"):
        collection.sel(subject="zzz")
    assert sorted(collection.sample(3, seed=1).obs_ids) == sorted(
        collection.sample(3, seed=1).obs_ids
    )
    assert len(collection.sample(99)) == 4


def test_mixed_shapes_have_no_one_shape(tmp_path):
    volumes = {("s", "i"): np.zeros((2, 3, 4)), ("t", "j"): np.zeros((2, 3, 4, 5))}
    rows = pd.DataFrame({"obs_subject_id": ["t"], "obs_id": ["j"], "age": [7]})
    collection = VolumeCollection.from_numpy(str(tmp_path / "c"), volumes, obs=rows)
    assert collection.shape is None
    assert not collection.is_uniform
    assert "heterogeneous" in repr(collection)
    assert collection.shapes.tolist() == [[2, 3, 4, 0], [2, 3, 4, 5]]
    assert collection["j"].shape == (2, 3, 4, 5)
    assert collection.to_obs()["age"].tolist() == [pd.NA, 7]
    with pytest.raises(AlignmentError, match="without a volume"):
        VolumeCollection.from_numpy(
            str(tmp_path / "d"), volumes, obs=rows.assign(obs_subject_id=["x"])
        )
    assert not (tmp_path / "d").exists()


# From files


def test_from_niftis_in_any_order_with_repeated_subjects(scans, tmp_path):
    again = [(scanned_again(scans / "a.nii.gz", tmp_path), "a") for _ in range(2)]
    given = pairs(scans, "cab") + again[:1]
    made = VolumeCollection.from_niftis(str(tmp_path / "CT"), given)
    assert made.obs_ids == ["a_CT", "a_CT_acq-1", "b_CT", "c_CT"]
    for volume in made:
        np.testing.assert_array_equal(volume.to_numpy(), voxels(volume.obs_id[0]))
        np.testing.assert_allclose(volume.affine, affine(volume.obs_id[0]))
    made.append(niftis=again[1:] + pairs(scans, "d"))
    assert made.obs_ids == ["a_CT", "a_CT_acq-1", "a_CT_acq-2", "b_CT", "c_CT", "d_CT"]
    np.testing.assert_array_equal(made["a_CT_acq-2"].to_numpy(), voxels("a"))
    made.validate(checksums=True)
    frame = made.to_obs()
    assert frame["spacing_y"].tolist() == [1.0] * 6
    assert not [v for v in frame.astype(str).to_numpy().ravel() if str(scans) in v]


def test_what_adds_nothing_is_left_out_and_said(scans, tmp_path):
    with pytest.warns(UserWarning, match="given twice"):
        made = VolumeCollection.from_niftis(str(tmp_path / "CT"), pairs(scans, "aba"))
    assert made.obs_ids == ["a_CT", "b_CT"]
    with pytest.warns(UserWarning, match="stored as 'b_CT'"):
        made.append(niftis=pairs(scans, "bc"))
    assert made.obs_ids == ["a_CT", "b_CT", "c_CT"]


def test_obs_gives_ids_and_columns(scans, tmp_path):
    rows = pd.DataFrame({"obs_id": ["X", "Y"], "obs_subject_id": ["b", "a"], "grade": [2, 4]})
    made = VolumeCollection.from_niftis(str(tmp_path / "c"), pairs(scans, "ba"), obs=rows)
    assert made.obs_ids == ["Y", "X"]
    assert made.to_obs()["grade"].tolist() == [4, 2]
    np.testing.assert_array_equal(made["X"].to_numpy(), voxels("b"))


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"niftis": []}, ValueError, "At least one NIfTI"),
        ({"obs": pd.DataFrame({"obs_id": ["a"]})}, ValueError, "obs length"),
        (
            {"obs": pd.DataFrame({"obs_id": ["i", "j"], "obs_subject_id": ["b", "a"]})},
            ValueError,
            "obs_subject_id mismatch",
        ),
        (
            {"obs": pd.DataFrame({"obs_id": ["i", "i"], "obs_subject_id": ["a", "b"]})},
            AlignmentError,
            "twice",
        ),
        (
            {"obs": pd.DataFrame({"obs_id": ["i", "j"], "obs_subject_id": ["a", "b"], "dim_x": 1})},
            SchemaError,
            "collide",
        ),
        ({"valid_subject_ids": ["a"]}, ValueError, "Invalid obs_subject_ids"),
        ({"niftis": [("small.nii", "a"), ("a.nii.gz", "b")]}, ShapeError, "Dimension mismatch"),
        ({"niftis": [("missing.nii", "a")]}, FileNotFoundError, "missing.nii"),
        ({"niftis": [("broken.nii", "a")]}, IngestError, "broken.nii"),
    ],
)
def test_bad_input_leaves_nothing(scans, tmp_path, change, error, said):
    given = {"niftis": pairs(scans, "ab")} | change
    given["niftis"] = [(scans / path, subject) for path, subject in given["niftis"]]
    with pytest.raises(error, match=said):
        VolumeCollection.from_niftis(str(tmp_path / "c"), **given)
    assert not (tmp_path / "c").exists()


def test_append_is_all_or_nothing(collection, scans):
    before = collection.to_obs()
    with pytest.raises(IngestError):
        collection.append(niftis=[*pairs(scans, "a"), (scans / "broken.nii", "b")])
    with pytest.raises(ShapeError, match="Dimension mismatch"):
        collection.append(niftis=[(scans / "small.nii", "a")])
    with pytest.raises(AlignmentError, match="no row in obs_meta"):
        collection.append(niftis=[(scans / "a.nii.gz", "stranger")])
    for wrong, said in (({}, "Must provide either"), ({"niftis": [], "dicom_dirs": []}, "both")):
        with pytest.raises(ValueError, match=said):
            collection.append(**wrong)
    with pytest.raises(ViewError):
        collection.head(1).append(niftis=pairs(scans, "a"))
    pd.testing.assert_frame_equal(collection.to_obs(), before)
    collection.append(niftis=pairs(scans, "a"))
    assert collection.obs_ids[:2] == ["a_CT", "a_CT_acq-1"]
    np.testing.assert_array_equal(collection["a_CT_acq-1"].to_numpy(), voxels("a"))
    radi = RadiObject(collection.uri.rsplit("/", 2)[0])
    assert radi.history()["n_volumes"].tolist() == [8, 9]
    radi.validate(checksums=True)


def test_write_keeps_geometry_columns_and_scans(collection, tmp_path):
    written = collection.iloc[[3, 0, 3]].write(str(tmp_path / "out"), name="MR")
    assert written.obs_ids == ["a_MR", "d_MR", "d_MR_acq-1"]
    assert written.name == "MR"
    for volume in written:
        check_volume(volume, volume.obs_id[0])
    assert written.to_obs()["kvp"].tolist() == [197, 200, 200]
    with pytest.raises(ValueError, match="No volumes to write"):
        collection[[]].write(str(tmp_path / "none"))
    with pytest.raises(StoreExistsError):
        collection.write(str(tmp_path / "out"))


def test_generated_ids():
    assert generate_obs_id("s", "CT") == "s_CT"
    assert generate_obs_id("s", "CT", 2) == "s_CT_acq-2"


def test_no_warning_is_given_without_reason(scans, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VolumeCollection.from_niftis(str(tmp_path / "c"), pairs(scans, "ab")).to_obs()
