"""DICOM series through the nouns: stored, appended, and exported with their geometry."""

import dicom_builder as build
import nibabel as nib
import numpy as np
import pytest

from radiobject import RadiObject, Volume, VolumeCollection
from radiobject.exceptions import ShapeError
from radiobject.formats.dicom import load_folder


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    for subject, slices in (("s2", 4), ("s1", 4), ("long", 6)):
        (folder / subject).mkdir()
        build.write_series(folder / subject, slices=slices)
    return folder


def test_every_reader_gives_the_same_voxels_and_affine(series, tmp_path):
    expected = load_folder(series / "s1")
    pairs = [(series / s, s) for s in ("s2", "s1")]
    ways = {
        "volume": Volume.from_dicom(str(tmp_path / "v"), series / "s1"),
        "collection": VolumeCollection.from_dicoms(str(tmp_path / "c"), pairs)["s1_c"],
        "data set": RadiObject.from_images(str(tmp_path / "d"), {"CT": pairs}).CT["s1_CT"],
    }
    for name, volume in ways.items():
        np.testing.assert_array_equal(volume.to_numpy(), expected.data, err_msg=name)
        np.testing.assert_allclose(volume.affine, expected.affine, err_msg=name)
        exported = nib.load(volume.to_nifti(tmp_path / name))
        np.testing.assert_array_equal(np.asanyarray(exported.dataobj), expected.data)
        np.testing.assert_allclose(exported.affine, expected.affine, atol=1e-4)


def test_a_dicom_collection_has_one_shape_unless_asked(series, tmp_path):
    uneven = [(series / "s1", "s1"), (series / "long", "long")]
    with pytest.raises(ShapeError, match="Dimension mismatch"):
        RadiObject.from_images(str(tmp_path / "d"), {"CT": uneven})
    assert not (tmp_path / "d").exists()
    mixed = VolumeCollection.from_dicoms(str(tmp_path / "c"), uneven, validate_dimensions=False)
    assert not mixed.is_uniform
    even = VolumeCollection.from_dicoms(str(tmp_path / "e"), uneven[:1])
    with pytest.raises(ShapeError, match="Dimension mismatch"):
        even.append(dicom_dirs=uneven[1:])
    even.append(dicom_dirs=[(series / "s2", "s2")])
    assert even.obs_ids == ["s1_e", "s2_e"]


def test_no_name_of_a_patient_is_stored(series, tmp_path):
    radi = RadiObject.from_images(str(tmp_path / "d"), {"CT": [(series / "s1", "s1")]})
    found = b"".join(p.read_bytes() for p in (tmp_path / "d").rglob("*") if p.is_file())
    text = radi.CT.to_obs().to_csv() + str(radi.CT[0].metadata)
    for secret in ("Doe", "MRN77", "19600102", str(series)):
        assert secret.encode() not in found
        assert secret not in text
