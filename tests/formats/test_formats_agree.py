"""The formats agree: one volume through every format has the same voxels in the same places."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_builder import SAGITTAL, write_enhanced, write_series
from pydicom import dcmread

from radiobject.formats.dicom import load_folder
from radiobject.formats.image import LoadedImage
from radiobject.formats.nifti import load_nifti, save_nifti


def exported(image: LoadedImage, path: Path) -> LoadedImage:
    save_nifti(path, image.data, image.shape, image.data.dtype, image.affine, image.metadata)
    return load_nifti(path)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), SAGITTAL, (0.8, 0.6, 0, 0, 0, -1)])
@pytest.mark.parametrize("reorient", [None, "RAS"])
@pytest.mark.parametrize("slope", [1.0, 0.5])
def test_dicom_to_nifti(
    orientation: tuple[float, ...], reorient: str | None, slope: float, tmp_path: Path
) -> None:
    write_series(tmp_path / "ct", orientation=orientation, slope=slope)
    image = load_folder(tmp_path / "ct", reorient=reorient)
    back = exported(image, tmp_path / "ct.nii.gz")
    np.testing.assert_array_equal(back.rescaled(), image.rescaled())
    np.testing.assert_allclose(back.affine, image.affine, atol=1e-5)
    seen = nib.load(tmp_path / "ct.nii.gz")
    np.testing.assert_allclose(np.asanyarray(seen.dataobj), image.rescaled())
    np.testing.assert_allclose(seen.affine, image.affine, atol=1e-5)
    assert int(seen.header["sform_code"]) == int(seen.header["qform_code"]) == 1


@pytest.mark.filterwarnings("ignore:The DICOM readers are highly experimental")
def test_nibabel_places_a_slice_where_we_do(tmp_path: Path) -> None:
    from nibabel.nicom.dicomwrappers import wrapper_from_data

    paths = write_series(tmp_path, orientation=(0.8, 0.6, 0, 0, 0, -1))
    ours = load_folder(tmp_path).affine
    theirs = np.diag([-1, -1, 1, 1]) @ wrapper_from_data(dcmread(paths[0])).affine
    # nibabel's first axis runs down a column; ours runs along a row.
    np.testing.assert_allclose(ours[:, [0, 1, 3]], theirs[:, [1, 0, 3]], atol=1e-9)


def test_time_series_to_nifti(tmp_path: Path) -> None:
    (tmp_path / "mr").mkdir()
    write_enhanced(tmp_path / "mr" / "IM", times=3)
    image = load_folder(tmp_path / "mr")
    back = exported(image, tmp_path / "mr.nii")
    np.testing.assert_array_equal(back.data, image.data)


def test_nifti_in_either_orientation_is_the_same_place(tmp_path: Path) -> None:
    affine = np.array([[0, -2.0, 0, 10], [0, 0, 3.0, -20], [-4.0, 0, 0, 30], [0, 0, 0, 1]])
    data = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "a.nii")
    plain, turned = load_nifti(tmp_path / "a.nii"), load_nifti(tmp_path / "a.nii", reorient="RAS")
    for image in (plain, turned):
        back = exported(image, tmp_path / "b.nii")
        np.testing.assert_array_equal(back.data, image.data)
        np.testing.assert_array_equal(back.affine, image.affine)
    place = {int(v): plain.affine @ [*i, 1] for i, v in np.ndenumerate(plain.data)}
    for index, value in np.ndenumerate(turned.data):
        np.testing.assert_allclose(turned.affine @ [*index, 1], place[int(value)])
