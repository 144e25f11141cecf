"""What headers say about an image; an import path of 0.1.x."""

from radiobject.formats.dicom import extract_dicom_metadata
from radiobject.formats.metadata import (
    KNOWN_SERIES_TYPES,
    DicomMetadata,
    NiftiMetadata,
    infer_series_type,
)
from radiobject.formats.nifti import extract_nifti_metadata

__all__ = [
    "KNOWN_SERIES_TYPES",
    "DicomMetadata",
    "NiftiMetadata",
    "extract_dicom_metadata",
    "extract_nifti_metadata",
    "infer_series_type",
]
