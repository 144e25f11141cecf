"""Uncompressed ``.nii`` mapped by nibabel, Fortran order."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.cohort import Subject
from benchmarks.rivals.base import BoxLoader


class NiiMemmap(BoxLoader):
    """nibabel's array proxy, which maps uncompressed files."""

    name = "nii"
    label = "memory-mapped .nii"
    framework = "nibabel"
    storage = "nii"
    suffix = ".nii"
    cites = "https://nipy.org/nibabel/images_and_memory.html"
    needs = ("torch", "nibabel")
    read_calls = False

    def write(self, voxels: np.ndarray, subject: Subject, path: Path) -> None:
        import nibabel as nib

        nib.Nifti1Image(voxels, nib.load(subject.image).affine).to_filename(path)

    def volumes(self) -> list[Any]:
        import nibabel as nib

        return [np.asanyarray(nib.load(path).dataobj) for path in self.files()]
