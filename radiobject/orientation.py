"""Orientation of volumes and files; an import path of 0.1.x."""

from radiobject.formats.dicom import detect_dicom_orientation
from radiobject.geometry.orientation import (
    OrientationInfo,
    detect_nifti_orientation,
    is_orientation_valid,
    metadata_to_orientation_info,
    orientation_info_to_metadata,
    reorient_to_canonical,
)

__all__ = [
    "OrientationInfo",
    "detect_dicom_orientation",
    "detect_nifti_orientation",
    "is_orientation_valid",
    "metadata_to_orientation_info",
    "orientation_info_to_metadata",
    "reorient_to_canonical",
]
