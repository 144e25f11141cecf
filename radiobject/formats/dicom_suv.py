"""Standardised uptake values by body weight, as the QIBA profile of FDG-PET/CT calculates them.

SUVbw = activity concentration [Bq/ml] * body weight [g] / administered activity [Bq], the activity
decayed to the time that the voxels are corrected to. What the formula needs and the header does not
state is never assumed: the series is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_elements import Fields, Wanted
from radiobject.formats.dicom_frames import Frame
from radiobject.formats.dicom_header import number_of, text_of
from radiobject.formats.dicom_keys import DAY_S, moment
from radiobject.formats.dicom_parse import read_header

PET_CLASS = "1.2.840.10008.5.1.4.1.1.128"
_WANTED = (
    "SOPClassUID", "Units", "SUVType", "CorrectedImage", "DecayCorrection", "PatientWeight",
    "SeriesDate", "SeriesTime", "RadiopharmaceuticalInformationSequence", "RadionuclideTotalDose",
    "RadionuclideHalfLife", "RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime",
    "TimezoneOffsetFromUTC",
)  # fmt: skip
_NEEDED_CORRECTIONS = ("ATTN", "DECY")
_LONGEST_WAIT_S = DAY_S
_GONE_NEXT_DAY_S = DAY_S / 10
"""Of an activity with a shorter half-life less than a thousandth is there a day later."""
_SAME_MINUTE_S = 60.0
_ZONE = re.compile(r"[+-]\d{4}$")
_HEAVIEST_KG = 1000.0
_LEAST_BQ = 1e4
"""Less is no activity that was imaged: old software wrote MBq."""


@dataclass(frozen=True)
class SuvScale:
    """How Bq/ml become g/ml.

    Parameters
    ----------
    factor : float
        SUV per Bq/ml; 1 where the voxels are SUV already.
    decay_correction : str
        What the voxels are corrected to: "START" or "ADMIN"; empty where they are SUV already.
    """

    factor: float
    decay_correction: str


def suv_scale(frames: Sequence[Frame]) -> SuvScale:
    """Return the factor of a PET series.

    Raises
    ------
    IngestError
        If the series is no PET, its unit is another, it is not corrected for attenuation and decay,
        or weight, dose, half-life or a time is missing or impossible.
    """
    path = frames[0].file.path
    fields = _agreed_header(frames)
    if text_of(fields, "SOPClassUID") != PET_CLASS:
        raise IngestError(f"{path.name}: SUV needs a series of classic PET images")
    units = {frame.units for frame in frames}
    if units == {"GML"}:
        kind = text_of(fields, "SUVType") or "BW"
        if kind != "BW":
            raise IngestError(f"{path.name}: voxels are SUV by {kind}, not by body weight")
        return SuvScale(1.0, "")
    if units != {"BQML"}:
        raise IngestError(
            f"{path.name}: SUV needs voxels in BQML, the series is in {sorted(units)}"
        )
    stated = fields.get("CorrectedImage") or ()
    corrections = (stated,) if isinstance(stated, str) else stated
    missing = [name for name in _NEEDED_CORRECTIONS if name not in corrections]
    if missing:
        raise IngestError(f"{path.name}: SUV needs images corrected for {' and '.join(missing)}")
    items = fields.get("RadiopharmaceuticalInformationSequence") or []
    if len(items) != 1:
        raise IngestError(f"{path.name}: SUV needs one radiopharmaceutical, got {len(items)}")
    weight = _positive(fields, "PatientWeight", path.name)
    dose = _positive(items[0], "RadionuclideTotalDose", path.name)
    half_life = _positive(items[0], "RadionuclideHalfLife", path.name)
    if weight > _HEAVIEST_KG:
        raise IngestError(f"{path.name}: PatientWeight is {weight:.0f} kg; is it in g?")
    if dose < _LEAST_BQ:
        raise IngestError(f"{path.name}: RadionuclideTotalDose is {dose:g} Bq; is it in MBq?")
    correction = text_of(fields, "DecayCorrection")
    if correction == "START":
        dose *= 2.0 ** (-_waited(fields, items[0], frames, half_life) / half_life)
    elif correction != "ADMIN":
        raise IngestError(
            f"{path.name}: SUV needs DecayCorrection START or ADMIN, got {correction or 'none'!r}"
        )
    return SuvScale(weight * 1000.0 / dose, correction)


def _agreed_header(frames: Sequence[Frame]) -> Fields:
    """Return what the files say of patient, drug and times, the same in all of them.

    Raises
    ------
    IngestError
        If they say different things.
    """
    first: Fields | None = None
    for path in dict.fromkeys(frame.file.path for frame in frames):
        with path.open("rb") as stream:
            fields = read_header(stream, Wanted.of(_WANTED)).fields
        first = fields if first is None else first
        for one, other in ((first, fields), (_drug(first), _drug(fields))):
            for name in _WANTED:
                if not isinstance(one.get(name), list) and one.get(name) != other.get(name):
                    raise IngestError(
                        f"{frames[0].file.path.name} and {path.name} do not agree on {name}: no "
                        "one SUV scale holds for the series"
                    )
    return first or {}


def _drug(fields: Fields) -> Fields:
    items = fields.get("RadiopharmaceuticalInformationSequence") or [{}]
    return dict(items[0])


def _positive(fields: Fields, keyword: str, name: str) -> float:
    value = number_of(fields, keyword)
    if value is None or not value > 0:
        raise IngestError(f"{name}: SUV needs {keyword} above 0, got {value}")
    return value


def _waited(fields: Fields, drug: Any, frames: Sequence[Frame], half_life_s: float) -> float:
    """Return the seconds from administration to the time that decay is corrected to."""
    name = frames[0].file.path.name
    begun = moment(text_of(fields, "SeriesDate"), text_of(fields, "SeriesTime"))
    acquired = [frame.keys.time for frame in frames]
    if begun is None or begun < DAY_S or any(time is None for time in acquired):
        raise IngestError(f"{name}: SUV needs SeriesDate, SeriesTime and acquisition times")
    if begun > min(time for time in acquired if time is not None):
        raise IngestError(
            f"{name}: SeriesTime is later than the first acquisition: the series was calculated "
            "from another, and the start of the scan is not known"
        )
    if text_of(drug, "RadiopharmaceuticalStartDateTime"):
        given = _stamped(fields, drug, name)
    else:
        given = moment(text_of(fields, "SeriesDate"), text_of(drug, "RadiopharmaceuticalStartTime"))
        if given is not None and half_life_s > _GONE_NEXT_DAY_S:
            raise IngestError(
                f"{name}: the time of administration has no date, and with a half-life of "
                f"{half_life_s / 3600:.1f} hours it may have been days before the scan; SUV needs "
                "RadiopharmaceuticalStartDateTime"
            )
        if given is not None and begun < given < begun + DAY_S / 2:
            raise IngestError(
                f"{name}: administration is stated {given - begun:.0f} s after the start of the "
                "scan: SUV by a dose that was given while scanning is not defined"
            )
        if given is not None and given > begun:
            given -= DAY_S  # Given before midnight, scanned after it.
    if given is None:
        raise IngestError(f"{name}: SUV needs the time of administration")
    if not 0 <= begun - given <= _LONGEST_WAIT_S:
        raise IngestError(
            f"{name}: administration and scan are {(begun - given) / 3600:.1f} hours apart; check "
            "the times of the header"
        )
    return begun - given


def _stamped(fields: Fields, drug: Any, name: str) -> float | None:
    """Return when the drug was given, by the element that has a date, on the clock of the scan.

    Raises
    ------
    IngestError
        If it is of another clock: of another time zone, or not the time that is stated beside it.
    """
    stamp = text_of(drug, "RadiopharmaceuticalStartDateTime")
    given = moment(stamp[:8], stamp[8:])
    clock = moment("", text_of(drug, "RadiopharmaceuticalStartTime"))
    if given is not None and clock is not None:
        apart = abs((given - clock + DAY_S / 2) % DAY_S - DAY_S / 2)
        if apart > _SAME_MINUTE_S:
            raise IngestError(
                f"{name}: RadiopharmaceuticalStartDateTime and RadiopharmaceuticalStartTime are "
                f"{apart / 60:.0f} minutes apart: when the drug was given is not known"
            )
        return given
    zone = _ZONE.search(stamp)
    if zone is not None and zone[0] != text_of(fields, "TimezoneOffsetFromUTC"):
        raise IngestError(
            f"{name}: RadiopharmaceuticalStartDateTime is in the time zone {zone[0]}, and that of "
            "the scan is not stated or another: SUV needs both on one clock"
        )
    return given
