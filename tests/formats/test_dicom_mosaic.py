"""Siemens mosaics taken apart, with nibabel as the oracle."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest
from dicom_builder import NIBABEL_FILES, write_mosaics
from pydicom import dcmread

from radiobject.exceptions import IngestError
from radiobject.formats.dicom import load_folder, scan_dicom
from radiobject.formats.dicom_mosaic import parse_csa
from radiobject.geometry.orientation import reorient_to_canonical


@pytest.mark.filterwarnings("ignore:The DICOM readers are highly experimental")
@pytest.mark.parametrize("name", ["siemens_dwi_0", "siemens_dwi_1000"])
def test_real_mosaic_equals_nibabel(name: str, tmp_path: Path) -> None:
    from nibabel.nicom.dicomwrappers import wrapper_from_file

    (path,) = write_mosaics(tmp_path, name)
    wrapper = wrapper_from_file(path)
    expected, affine = reorient_to_canonical(
        wrapper.get_data(), np.diag([-1, -1, 1, 1]) @ wrapper.affine
    )
    loaded = load_folder(tmp_path, reorient="RAS")
    assert loaded.shape == (128, 128, 48)
    np.testing.assert_array_equal(loaded.rescaled(), expected)
    np.testing.assert_allclose(loaded.affine, affine, atol=1e-5)


def test_mosaics_of_one_series_are_time_points(tmp_path: Path) -> None:
    later, earlier = write_mosaics(tmp_path, "siemens_dwi_1000", "siemens_dwi_0")
    loaded = load_folder(tmp_path)
    assert loaded.shape == (128, 128, 48, 2)
    assert dcmread(earlier).AcquisitionTime < dcmread(later).AcquisitionTime
    assert loaded.data[0, 0, 0].tolist() == [1, 0], "b = 0 was taken first"


def test_a_mosaic_without_its_private_header_is_refused(tmp_path: Path) -> None:
    (path,) = write_mosaics(tmp_path, "siemens_dwi_0")
    dataset = dcmread(path)
    dataset.remove_private_tags()
    dataset.save_as(path)
    report, found = scan_dicom(tmp_path)
    assert not found
    assert "mosaic without its CSA header" in report.lines[0].reasons[0]


def test_csa_header_of_any_bytes() -> None:
    content = (NIBABEL_FILES / "csa2_b1000.bin").read_bytes()
    values = parse_csa(content)
    assert int(values["NumberOfImagesInMosaic"][0]) == 48
    assert len(values["SliceNormalVector"]) == 3
    rng = random.Random(0)
    for _ in range(300):
        spoiled = bytearray(content[: rng.choice([len(content), rng.randrange(len(content))])])
        for _ in range(rng.randrange(5)):
            if spoiled:
                spoiled[rng.randrange(len(spoiled))] = rng.randrange(256)
        try:
            parse_csa(bytes(spoiled))
        except (IngestError, struct.error):
            continue


def test_a_mosaic_that_was_cropped_is_said_to_be(tmp_path: Path) -> None:
    """Two of nibabel's files: 48 slices in 256 by 256 pixels, of 896 by 896 when it was made."""
    for name in ("0.dcm", "1.dcm"):
        (tmp_path / name).write_bytes((NIBABEL_FILES / name).read_bytes())
    report, found = scan_dicom(tmp_path)
    assert not found
    (line,) = report.refused
    assert "48 slices is a grid of 7 x 7 tiles" in line.reasons[0]
    assert "cropped or resized; get the original" in line.reasons[0]
