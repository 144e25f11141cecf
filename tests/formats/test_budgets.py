"""What a load may cost, counted where it cannot be argued with: files opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from dicom_builder import write_series

PROGRAM = """
import sys
from pathlib import Path
from radiobject.formats.dicom import load_folder
from radiobject.formats.nifti import load_nifti

opened = []
root = sys.argv[1]
def count(event, arguments):
    if event == "open" and str(arguments[0]).startswith(root):
        opened.append(Path(arguments[0]).name)

sys.addaudithook(count)
for name in ("a.nii", "b.nii.gz", "c.hdr", "ct"):
    opened.clear()
    path = Path(root, name)
    load_folder(path) if path.is_dir() else load_nifti(path, reorient="RAS")
    print(name, *sorted(opened))
"""


def test_files_are_opened_once_and_dicom_files_once_more_for_their_header(tmp_path: Path) -> None:
    voxels = np.zeros((30, 40, 50), np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii")
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "b.nii.gz")
    nib.save(nib.Nifti1Pair(voxels, np.eye(4)), tmp_path / "c.hdr")
    write_series(tmp_path / "ct", slices=3)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True
    )
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert lines["a.nii"] == ["a.nii"]
    assert lines["b.nii.gz"] == ["b.nii.gz"]
    assert lines["c.hdr"] == ["c.hdr", "c.img"]
    slices = [name for name in lines["ct"] if name.endswith(".dcm")]
    assert slices == sorted(2 * [f"IM000{i}.dcm" for i in range(3)])
