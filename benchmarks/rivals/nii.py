"""Uncompressed ``.nii`` mapped by nibabel, Fortran order."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rivals.base import BoxLoader


class NiiMemmap(BoxLoader):
    """nibabel's array proxy, which maps uncompressed files.

    Second look: it does so by itself where no rescale is to be applied, and is opened once.
    """

    name = "nii"
    label = "memory-mapped .nii"
    framework = "nibabel"
    storage = "nii"
    suffix = ".nii"
    cites = "https://nipy.org/nibabel/images_and_memory.html"
    needs = ("torch", "nibabel")

    def write(self, voxels: np.ndarray, path: Path) -> None:
        import nibabel as nib

        nib.Nifti1Image(voxels, np.eye(4)).to_filename(path)

    def open_volume(self, path: Path) -> Any:
        import nibabel as nib

        return np.asanyarray(nib.load(path).dataobj)
