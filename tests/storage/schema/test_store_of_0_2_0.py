"""A data set that 0.2.0 wrote is read, appended to, validated, vacuumed and upgraded."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from store_of_0_2_0 import AFFINE, delivered, unpack

from radiobject import RadiObject
from radiobject.exceptions import IntegrityError
from radiobject.storage.tables import groups


@pytest.fixture
def store(tmp_path):
    return unpack(tmp_path)


def check(radi, subjects=("a", "c")):
    for name in ("CT", "seg"):
        for subject in subjects:
            volume = radi.collection(name)[f"{subject}_{name}"]
            np.testing.assert_array_equal(volume.to_numpy(), delivered(subject, name))
            np.testing.assert_array_equal(volume.affine, AFFINE)
    table = radi.obs_meta.read().set_index("obs_subject_id")
    assert table.loc["c", ["age", "site", "note"]].tolist() == [30.0, "x", "written by 0.2.0"]
    assert np.isnan(table.loc["a", "age"])


def test_it_is_read_with_its_history(store):
    radi = RadiObject(store)
    assert groups.read_metadata(str(store))["radiobject.format_version"] == 2
    assert radi.obs_subject_ids == ["a", "c"]
    check(radi)
    radi.validate(checksums=True)
    assert len(radi.history()) == 3
    old = RadiObject(store, at=-2)
    assert old.obs_subject_ids == ["a", "b", "c"]
    check(old, subjects=("a", "b", "c"))


def test_the_next_commit_records_what_it_has(store, tmp_path):
    data = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "new.nii")
    row = pd.DataFrame({"obs_subject_id": ["d"], "age": [44.0]})
    RadiObject(store).append({"CT": [(tmp_path / "new.nii", "d")]}, obs_meta=row)
    metadata = groups.read_metadata(str(store))
    assert metadata["radiobject.format_version"] == 3
    radi = RadiObject(store)
    check(radi)
    check(RadiObject(store, at=-3), subjects=("a", "b", "c"))
    np.testing.assert_array_equal(radi.CT["d_CT"].to_numpy(), data)
    radi.validate(checksums=True)
    part = next((store / "collections/seg/obs/__fragments").rglob("d0.tdb"))
    part.write_bytes(part.read_bytes()[::-1])
    with pytest.raises(IntegrityError, match=r"seg/obs/.*d0\.tdb is not the file"):
        RadiObject(store).seg.to_obs()


def test_every_change_is_made_to_it(store):
    RadiObject(store).rename_collection("CT", "MR")
    radi = RadiObject(store)
    radi.delete("a")
    radi.repair()
    assert radi.vacuum()["volumes"] == 4
    radi = RadiObject(store)
    radi.validate(checksums=True)
    np.testing.assert_array_equal(radi.MR["c_CT"].to_numpy(), delivered("c", "CT"))


def test_a_copy_of_it_is_of_this_version(store, tmp_path):
    copy = RadiObject(store).write(tmp_path / "copy")
    check(copy)
    copy.validate(checksums=True)
    assert groups.read_metadata(copy.uri)["radiobject.format_version"] == 3
