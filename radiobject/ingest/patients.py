"""Folders and patients: a subject is one patient, and a patient one subject, unless asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from radiobject.exceptions import ConfigurationError, IngestError
from radiobject.formats.dicom import patient_of_folder
from radiobject.indexing import shortened

HOW_TO_CHOOSE = (
    "choose: --subject-from PatientID takes the header's id, --subject-from folder the folders as "
    "they are (subject_from= in Python)"
)


SUBJECT_SOURCES = ("folder", "PatientID")
"""Where the subject of a DICOM series is taken from."""


def checked_source(subject_from: str | None) -> None:
    """Refuse what is none of `SUBJECT_SOURCES`.

    Raises
    ------
    ConfigurationError
        The message names them.
    """
    if subject_from is not None and subject_from not in SUBJECT_SOURCES:
        raise ConfigurationError(
            f"subject_from must be one of {SUBJECT_SOURCES}, got {subject_from!r}"
        )


def folder_subjects(
    pairs: Sequence[tuple[Path, str]], subject_from: str | None
) -> list[tuple[Path, str]]:
    """Return folders of one series each with their subjects, by the first header of each.

    Raises
    ------
    IngestError
        If folders and patients disagree and nothing was asked for, or a header has no PatientID
        and it was.
    """
    checked_source(subject_from)
    if subject_from == "folder":
        return list(pairs)
    patients = [patient_of_folder(folder) for folder, _ in pairs]
    if subject_from is None:
        check_patients(
            Owned(subject, patient, folder.name)
            for (folder, subject), patient in zip(pairs, patients, strict=True)
        )
        return list(pairs)
    for (folder, _), patient in zip(pairs, patients, strict=True):
        if not patient:
            raise IngestError(
                f"{folder.name!r} has no PatientID; give a list of (folder, subject id) instead"
            )
    return [(folder, patient) for (folder, _), patient in zip(pairs, patients, strict=True)]


@dataclass(frozen=True, slots=True)
class Owned:
    """An image with the subject that its folder gives it and the patient that its header names.

    ``patient`` is compared and never stored; empty where the header names none. ``born`` and
    ``issuer`` tell people with one PatientID apart; empty where the header does not state them.
    """

    subject: str
    patient: str
    source: str
    born: str = ""
    issuer: str = ""


def check_people(images: Sequence[Owned]) -> None:
    """Refuse a PatientID that two people have: hospitals number their patients each from 1.

    Raises
    ------
    IngestError
        The message says by which field, and in which files.
    """
    for name, keyword in (("born", "PatientBirthDate"), ("issuer", "IssuerOfPatientID")):
        stated: dict[str, dict[str, str]] = {}
        for image in images:
            value = getattr(image, name)
            if image.patient and value:
                stated.setdefault(image.patient, {}).setdefault(value, image.source)
        for people in stated.values():
            if len(people) > 1:
                raise IngestError(
                    f"one PatientID stands for {len(people)} people, who differ in {keyword}, such "
                    f"as those of {shortened(list(people.values()))}; choose: --subject-from "
                    "folder takes the folders (subject_from= in Python), a list names each subject"
                )


def check_patients(given: Iterable[Owned]) -> None:
    """Refuse a subject with several patients, and a patient who would be several subjects.

    Raises
    ------
    IngestError
        The message says which, by folders and never by a patient's id, and how to choose.
    """
    images = list(given)
    check_people(images)
    sources: dict[str, dict[str, str]] = {}
    subjects: dict[str, dict[str, None]] = {}
    for image in images:
        if image.patient:
            sources.setdefault(image.subject, {}).setdefault(image.patient, image.source)
            subjects.setdefault(image.patient, {})[image.subject] = None
    for subject, found in sources.items():
        if len(found) > 1:
            raise IngestError(
                f"subject {subject!r} would hold {len(found)} patients, such as those of "
                f"{shortened(list(found.values()))}; {HOW_TO_CHOOSE}"
            )
    for names in subjects.values():
        if len(names) > 1:
            raise IngestError(
                f"one patient would become {len(names)} subjects, {shortened(sorted(names))}; "
                + HOW_TO_CHOOSE
            )
