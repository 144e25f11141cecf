"""Image files found, recognised and stored; an import path of 0.1.x."""

from typing import TYPE_CHECKING

from radiobject.formats.discovery import (
    ImageFormat,
    NiftiSource,
    detect_format,
    discover_nifti_pairs,
    resolve_dicom_source,
    resolve_image_source,
    resolve_nifti_source,
)
from radiobject.ingest.run import IngestOptions
from radiobject.lazy import lazy_names

if TYPE_CHECKING:
    from radiobject.ingestion import IngestOutcome, ingest_images, ingest_plan

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

__getattr__ = lazy_names(
    __name__,
    {
        "IngestOutcome": "radiobject.ingestion",
        "ingest_images": "radiobject.ingestion",
        "ingest_plan": "radiobject.ingestion",
    },
)
