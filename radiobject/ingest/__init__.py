"""Image files found, recognised and stored; an import path of 0.1.x."""

from radiobject.formats.discovery import (
    ImageFormat,
    NiftiSource,
    detect_format,
    discover_nifti_pairs,
    resolve_dicom_source,
    resolve_image_source,
    resolve_nifti_source,
)
from radiobject.ingest.entry import IngestOutcome, ingest_images, ingest_plan
from radiobject.ingest.run import IngestOptions

__all__ = [
    "ImageFormat",
    "IngestOptions",
    "IngestOutcome",
    "NiftiSource",
    "detect_format",
    "discover_nifti_pairs",
    "ingest_images",
    "ingest_plan",
    "resolve_dicom_source",
    "resolve_image_source",
    "resolve_nifti_source",
]
