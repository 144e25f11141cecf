"""Folders and patients: a subject is one patient, and a patient one subject, unless asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from radiobject.exceptions import IngestError
from radiobject.indexing import shortened

_HOW = (
    "choose: --subject-from PatientID takes the header's id, --subject-from folder the folders as "
    "they are (subject_from= in Python)"
)


@dataclass(frozen=True, slots=True)
class Owned:
    """An image with the subject that its folder gives it and the patient that its header names.

    ``patient`` is compared and never stored; empty where the header names none.
    """

    subject: str
    patient: str
    source: str


def check_patients(images: Iterable[Owned]) -> None:
    """Refuse a subject with several patients, and a patient who would be several subjects.

    Raises
    ------
    IngestError
        The message says which, by folders and never by a patient's id, and how to choose.
    """
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
                f"{shortened(list(found.values()))}; {_HOW}"
            )
    for names in subjects.values():
        if len(names) > 1:
            raise IngestError(
                f"one patient would become {len(names)} subjects, {shortened(sorted(names))}; "
                + _HOW
            )
