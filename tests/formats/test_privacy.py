"""Fields that may leave a file, and ids that hide."""

from __future__ import annotations

import pytest
from pydicom.datadict import tag_for_keyword

from radiobject.exceptions import ConfigurationError
from radiobject.formats.privacy import (
    ALLOWED_KEYWORDS,
    IDENTIFYING_KEYWORDS,
    check_keywords,
    column_name,
    identifying_columns,
    keyed_id,
)

KEY = bytes(range(16))


def test_the_lists_are_of_real_keywords_and_do_not_overlap() -> None:
    for keyword in (*ALLOWED_KEYWORDS, *IDENTIFYING_KEYWORDS):
        assert tag_for_keyword(keyword) is not None, keyword
    assert not IDENTIFYING_KEYWORDS & set(ALLOWED_KEYWORDS)


def test_column_names() -> None:
    assert column_name("PatientBirthDate") == "patient_birth_date"
    assert column_name("KVP") == "kvp"
    assert column_name("SOPInstanceUID") == "sop_instance_uid"
    assert column_name("MagneticFieldStrength") == "magnetic_field_strength"


def test_identifying_columns() -> None:
    columns = ["obs_id", "patient_age", "StudyDate", "descrip", "modality", "study_date"]
    assert identifying_columns(columns) == ["patient_age", "StudyDate", "descrip", "study_date"]


def test_check_keywords() -> None:
    assert check_keywords(["PatientAge"]) == ("PatientAge",)
    with pytest.raises(ConfigurationError, match="private elements cannot be kept"):
        check_keywords(["PatientAge", "0009,1001"])


def test_keyed_id_hides_and_repeats() -> None:
    hidden = keyed_id("MRN77", KEY)
    assert hidden == keyed_id("MRN77", KEY)
    assert hidden == "lfnauh3444q7v7dz7vgofryvau", "the same on every machine, for ever"
    assert len({keyed_id(f"MRN{i}", KEY) for i in range(1000)}) == 1000
    assert keyed_id("MRN77", bytes(16)) != hidden
    with pytest.raises(ConfigurationError, match="at least 16 bytes"):
        keyed_id("MRN77", b"short")
