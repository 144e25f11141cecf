"""The packages that parse files, each imported when a file first needs it.

nibabel takes a third of a second and brings pydicom along; pydicom, highdicom, SimpleITK and zarr
are optional.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from radiobject.lazy import LazyModule

if TYPE_CHECKING:
    import highdicom
    import pydicom
    import SimpleITK as sitk
    import zarr
    from nibabel import nifti1, nifti2
    from nibabel.freesurfer import mghformat
    from pydicom import encaps, pixels
else:
    nifti1 = LazyModule("nibabel.nifti1")
    nifti2 = LazyModule("nibabel.nifti2")
    mghformat = LazyModule("nibabel.freesurfer.mghformat")
    sitk = LazyModule("SimpleITK", "reading NRRD and MetaImage", "formats")
    zarr = LazyModule("zarr", "reading Zarr", "formats")
    pydicom = LazyModule("pydicom", "reading DICOM", "dicom")
    encaps = LazyModule("pydicom.encaps", "reading DICOM", "dicom")
    pixels = LazyModule("pydicom.pixels", "reading DICOM", "dicom")
    highdicom = LazyModule("highdicom", "a DICOM segmentation", "dicom")

__all__ = [
    "encaps", "highdicom", "mghformat", "nifti1", "nifti2", "pixels", "pydicom", "sitk", "zarr",
]  # fmt: skip
