"""Header metadata as table rows, and the series type from names."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radiobject.formats.dicom import extract_dicom_metadata
from radiobject.formats.metadata import (
    KNOWN_SERIES_TYPES,
    DicomMetadata,
    infer_series_type,
)
from radiobject.formats.nifti import extract_nifti_metadata


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sub-01_ses-1_T1w.nii.gz", "T1w"),
        ("sub-01_task-rest_bold.nii", "bold"),
        ("sub-01_flair.nii.gz", "FLAIR"),
        ("sub-01_CT.nii.gz", "CT"),
        ("patient7-t1ce.nii.gz", "T1gd"),
        ("BraTS-GLI-0001-t2 flair.nii", "FLAIR"),
        ("scan.t2.nii.gz", "T2w"),
        ("lung_HRCT.hdr", "HRCT"),
        ("impact.nii.gz", "unknown"),
        ("BRATS_001.nii.gz", "unknown"),
        ("", "unknown"),
    ],
)
def test_series_type_from_the_name(name: str, expected: str) -> None:
    assert infer_series_type(name) == expected
    assert expected == "unknown" or expected in KNOWN_SERIES_TYPES


def test_series_type_from_the_header_only_when_the_name_says_nothing() -> None:
    header = nib.Nifti1Header()
    header["descrip"] = b"TE=30;T2 FLAIR"
    assert infer_series_type("a.nii", header) == "FLAIR"
    assert infer_series_type("a_T1w.nii", header) == "T1w"
    assert infer_series_type("a.nii", {}) == "unknown"


def test_nifti_metadata(tmp_path: Path) -> None:
    path = tmp_path / "x_T1w.nii.gz"
    img = nib.Nifti1Image(np.zeros((3, 4, 5, 2), np.int16), np.diag([1.5, 2, 3, 1]))
    img.header.set_xyzt_units("mm", "sec")
    nib.save(img, path)
    metadata = extract_nifti_metadata(path)
    assert metadata.voxel_spacing == "(1.5, 2.0, 3.0)"
    assert metadata.dimensions == "(3, 4, 5, 2)"
    assert metadata.spatial_dimensions == (3, 4, 5)
    assert metadata.is_4d
    assert (metadata.spatial_units, metadata.axcodes) == ("mm", "RAS")
    assert metadata.source_path == "x_T1w.nii.gz", "never the folder"
    row = metadata.to_obs_dict("x_T1w", "x", "T1w")
    assert (row["obs_id"], row["obs_subject_id"], row["series_type"]) == ("x_T1w", "x", "T1w")


def test_missing_inputs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        extract_nifti_metadata(tmp_path / "none.nii")
    with pytest.raises(FileNotFoundError):
        extract_dicom_metadata(tmp_path / "none")
    with pytest.raises(ValueError, match="No DICOM files"):
        extract_dicom_metadata(tmp_path)


def test_absent_numbers_are_nan_in_the_table() -> None:
    metadata = DicomMetadata(
        "(1, 1, 1)", "(2, 2, 2)", "CT", "", 120.0, None, None, None, None,
        "LPS", "[]", "dicom_iop", "a",
    )  # fmt: skip
    row = metadata.to_obs_dict("i", "s")
    assert row["kvp"] == 120.0
    assert np.isnan(row["exposure"])
