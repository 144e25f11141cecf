"""dcm2niix as a second oracle: what it makes of real series equals what we load.

It is not on PyPI: ``apt-get install dcm2niix``. Without it these tests are skipped.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_builder import NIBABEL_FILES, write_mosaics

from radiobject.formats.dicom import load_series, scan_dicom
from radiobject.geometry.orientation import reorient_to_canonical

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
SERIES = PYDICOM_FILES / "dicomdirtests"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("dcm2niix") is None,
        reason="dcm2niix is not installed: the second DICOM oracle DID NOT RUN",
    ),
]


def converted(files: list[Path], tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """dcm2niix's voxels and affine in RAS order."""
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    for index, file in enumerate(files):
        content = file.read_bytes()
        packed = file.name.endswith(".gz")
        (tmp_path / "in" / f"{index}.dcm").write_bytes(
            gzip.decompress(content) if packed else content
        )
    command = ["dcm2niix", "-b", "n", "-z", "n", "-o", str(tmp_path / "out"), str(tmp_path / "in")]
    subprocess.run(command, check=True, capture_output=True)
    (result,) = (tmp_path / "out").glob("*.nii")
    image = nib.load(result)
    voxels = np.asanyarray(image.dataobj)
    volume = voxels if voxels.ndim > 2 else voxels[:, :, None]
    return reorient_to_canonical(volume, image.affine)


@pytest.mark.parametrize(
    "files",
    [
        [PYDICOM_FILES / "CT_small.dcm"],
        [PYDICOM_FILES / "MR_small.dcm"],
        [PYDICOM_FILES / "MR_small_RLE.dcm"],
        [PYDICOM_FILES / "MR_small_bigendian.dcm"],
        [PYDICOM_FILES / "MR_small_implicit.dcm"],
        [PYDICOM_FILES / "MR_small_expb.dcm"],
        [PYDICOM_FILES / "MR_small_jp2klossless.dcm"],
        sorted((SERIES / "98892001" / "CT5N").iterdir()),
        [SERIES / "98892003" / "MR1" / "15820"],
        [SERIES / "98892003" / "MR1" / "4919"],
        [NIBABEL_FILES / "philips_mprage.dcm.gz"],
    ],
    ids=lambda files: files[0].parent.name + "-" + files[0].name,
)
def test_real_series_equal_dcm2niix(files: list[Path], tmp_path: Path) -> None:
    expected, expected_affine = converted(files, tmp_path)
    _, found = scan_dicom(tmp_path / "in")
    loaded = load_series(found[0], reorient="RAS")
    np.testing.assert_array_equal(loaded.rescaled(), expected)
    # dcm2niix calculates and stores its affine in float32.
    np.testing.assert_allclose(loaded.affine, expected_affine, atol=1e-3)


def test_mosaics_equal_dcm2niix(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    files = write_mosaics(tmp_path / "source", "siemens_dwi_0", "siemens_dwi_1000")
    expected, expected_affine = converted(files, tmp_path)
    loaded = load_series(scan_dicom(tmp_path / "in")[1][0], reorient="RAS")
    np.testing.assert_array_equal(loaded.data, expected)
    np.testing.assert_allclose(loaded.affine, expected_affine, atol=1e-3)
