"""plastimatch as a second oracle for contours: the same voxels, and the volume of the phantom.

The program comes with the package of its name (tried with 1.10.0). Without it this is skipped.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from test_dicom_rtstruct import circle, ct, write_rtstruct

from radiobject.formats.dicom_rtstruct import load_rtstruct
from radiobject.geometry.orientation import axis_codes, reorient_to_canonical

PROGRAM = shutil.which("plastimatch", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        PROGRAM is None, reason="plastimatch is not installed: its contours were NOT COMPARED"
    ),
]


@pytest.mark.parametrize("hole", [False, True])
def test_a_phantom_equals_plastimatch(hole: bool, tmp_path: Path) -> None:
    series = ct(tmp_path / "ct")
    contours = []
    for s in range(4, 16):
        contours.append(circle((40.3, 30.4), (25, 20), s))
        if hole:
            contours.append(circle((40.3, 30.4), (10, 8), s))
    path = write_rtstruct(tmp_path / "rs.dcm", series, {"organ": contours})
    loaded = load_rtstruct(path, reference=series)
    words = [PROGRAM, "convert", "--input", path, "--referenced-ct", tmp_path / "ct",
             "--output-prefix", tmp_path / "out", "--prefix-format", "nii.gz",
             *(["--xor-contours"] if hole else [])]  # fmt: skip
    subprocess.run(list(map(str, words)), check=True, capture_output=True)
    image = nib.load(tmp_path / "out" / "organ.nii.gz")
    codes = "".join(axis_codes(loaded.affine))
    mask, affine = reorient_to_canonical(np.asanyarray(image.dataobj), image.affine, codes)
    np.testing.assert_allclose(affine, loaded.affine, atol=1e-4)
    np.testing.assert_array_equal(mask > 0, loaded.data > 0)
    millilitres = (loaded.data > 0).sum() * 1.2 / 1000
    area = np.pi * (20**2 - (8**2 if hole else 0))
    assert millilitres == pytest.approx(area * 12 * 1.5 / 1000, rel=5e-3)
