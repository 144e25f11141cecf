"""What headers say about an image; an import path of 0.1.x."""

from radiobject.formats.metadata import (
    KNOWN_SERIES_TYPES,
    DicomMetadata,
    NiftiMetadata,
    extract_dicom_metadata,
    extract_nifti_metadata,
    infer_series_type,
)

__all__ = [
    "KNOWN_SERIES_TYPES",
    "DicomMetadata",
    "NiftiMetadata",
    "extract_dicom_metadata",
    "extract_nifti_metadata",
    "infer_series_type",
]
