"""Which header fields may leave a file, and how an id is replaced by a keyed hash."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence

from radiobject.exceptions import ConfigurationError
from radiobject.formats.engines import pydicom

ALLOWED_KEYWORDS = (
    "Modality", "SeriesDescription", "KVP", "Exposure", "RepetitionTime", "EchoTime",
    "MagneticFieldStrength",
)  # fmt: skip
"""DICOM fields that become obs columns. Others are read only when a caller names them."""

NUMBER_KEYWORDS = (
    "KVP", "Exposure", "RepetitionTime", "EchoTime", "MagneticFieldStrength",
)  # fmt: skip
"""Those of them that are numbers."""

IDENTIFYING_KEYWORDS = frozenset(
    {
        "AccessionNumber", "AdmissionID", "AdditionalPatientHistory", "AcquisitionDate",
        "ContentDate", "CountryOfResidence", "DeviceSerialNumber", "EthnicGroup",
        "FrameOfReferenceUID",
        "ImageComments", "InstitutionAddress", "InstitutionName", "InstitutionalDepartmentName",
        "InsurancePlanIdentification", "IssuerOfPatientID", "MedicalAlerts", "MedicalRecordLocator",
        "MilitaryRank", "NameOfPhysiciansReadingStudy", "Occupation", "OperatorsName",
        "OtherPatientIDs", "OtherPatientNames", "PatientAddress", "PatientAge", "PatientBirthDate",
        "PatientBirthName", "PatientBirthTime", "PatientComments", "PatientID",
        "PatientInsurancePlanCodeSequence", "PatientMotherBirthName", "PatientName",
        "PatientReligiousPreference", "PatientSex", "PatientSize", "PatientState",
        "PatientTelephoneNumbers", "PatientWeight", "PerformingPhysicianName",
        "PhysiciansOfRecord", "ProtocolName", "ReferringPhysicianAddress", "ReferringPhysicianName",
        "ReferringPhysicianTelephoneNumbers", "RegionOfResidence", "RequestingPhysician",
        "SOPInstanceUID", "SeriesDate", "SeriesInstanceUID", "StationName", "StudyDate",
        "StudyDescription", "StudyID", "StudyInstanceUID",
    }
)  # fmt: skip
"""Fields that can point to a person: the attributes of the confidentiality profile of DICOM
PS3.15, table E.1-1, that images carry most often."""

BURNED_IN = "BurnedInAnnotation"
"""The field by which an image says that text is part of its pixels."""

_NIFTI_TEXT = frozenset({"descrip", "aux_file", "intent_name", "db_name"})


def column_name(keyword: str) -> str:
    """Return the obs column of a DICOM keyword: "PatientBirthDate" is patient_birth_date."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", keyword)
    return spaced.lower()


_IDENTIFYING_COLUMNS = frozenset(map(column_name, IDENTIFYING_KEYWORDS)) | _NIFTI_TEXT


def check_keywords(keep: Sequence[str]) -> tuple[str, ...]:
    """Return `keep` if each is a public DICOM keyword.

    Raises
    ------
    ConfigurationError
        If one is not; private elements have no keyword and cannot be kept.
    """
    known = pydicom.datadict.tag_for_keyword
    unknown = [keyword for keyword in keep if known(keyword) is None]
    if unknown:
        raise ConfigurationError(
            f"{', '.join(map(repr, unknown))}: no such DICOM keyword; give names such as "
            "'PatientAge' (private elements cannot be kept)"
        )
    return tuple(keep)


def identifying_columns(columns: Iterable[str]) -> list[str]:
    """Return those table columns whose name is that of a field which can point to a person."""
    return [
        name
        for name in columns
        if name in IDENTIFYING_KEYWORDS or name.lower() in _IDENTIFYING_COLUMNS
    ]


def keyed_id(value: str, key: bytes) -> str:
    """Return a replacement for an id: the same for the same key, and not to be undone without it.

    Parameters
    ----------
    value : str
        The id, such as a PatientID.
    key : bytes
        A secret of at least 16 bytes, kept outside the data set.

    Returns
    -------
    str
        26 characters a-z and 2-7: 128 bits of HMAC-SHA-256 (RFC 2104).
    """
    if len(key) < 16:
        raise ConfigurationError(f"a key needs at least 16 bytes, got {len(key)}")
    digest = hmac.new(key, value.encode(), hashlib.sha256).digest()[:16]
    return base64.b32encode(digest).decode().rstrip("=").lower()
