"""What DICOM files have to give: highdicom's answer, and the reason of a refusal."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from dicom_builder import volume

from radiobject.formats.dicom import load_series, scan_dicom
from radiobject.formats.report import Verdict

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])
TRUTH = volume(6, 4, 5) - 1024


def oracle(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """highdicom's voxels as (columns, rows, slices) along our normal, and the affine in RAS+."""
    datasets = [pydicom.dcmread(path) for path in paths]
    if len(datasets) == 1:
        # Not every single image is a volume to highdicom's reader of files; its geometry is.
        image = hd.Image.from_dataset(datasets[0])
        found = image.get_volume(apply_real_world_transform=False, apply_presentation_lut=False)
    else:
        found = hd.get_volume_from_series(
            datasets, apply_real_world_transform=False, apply_presentation_lut=False
        )
    array = found.array.transpose(2, 1, 0)
    affine = LPS_TO_RAS @ found.affine[:, [2, 1, 0, 3]]
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    # In LPS+ the slice axis runs along the cross product; a mirror changes its sign in RAS+.
    if normal @ affine[:3, 2] < 0:
        affine = affine @ np.array(
            [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, array.shape[2] - 1], [0, 0, 0, 1]]
        )
        array = array[:, :, ::-1]
    return array, affine


def check_against_highdicom(folder: Path) -> None:
    report, found = scan_dicom(folder)
    assert len(found) == 1, report.to_table()
    loaded = load_series(found[0])
    array, affine = oracle(list(found[0].files))
    np.testing.assert_array_equal(loaded.rescaled(), array.astype(loaded.rescaled().dtype))
    np.testing.assert_allclose(loaded.affine, affine, atol=1e-6)


def refused(folder: Path, **options: object) -> str:
    """The reason of the one refused line of a folder that gives no volume."""
    report, found = scan_dicom(folder, **options)
    assert not found
    assert [line.verdict for line in report.lines] == [Verdict.REFUSED]
    return report.lines[0].reasons[0]
