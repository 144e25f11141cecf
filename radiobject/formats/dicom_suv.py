"""Standardised uptake values by body weight, as the QIBA profile of FDG-PET/CT calculates them.

SUVbw = activity concentration [Bq/ml] * body weight [g] / administered activity [Bq], the activity
decayed to the time that the voxels are corrected to. What the formula needs and the header does not
state is never assumed: the series is refused.
"""

from __future__ import annotations

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
)  # fmt: skip
_NEEDED_CORRECTIONS = ("ATTN", "DECY")
_LONGEST_WAIT_S = DAY_S
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
        dose *= 2.0 ** (-_waited(fields, items[0], frames) / half_life)
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


def _waited(fields: Fields, drug: Any, frames: Sequence[Frame]) -> float:
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
    stamp = text_of(drug, "RadiopharmaceuticalStartDateTime")
    if stamp:
        given = moment(stamp[:8], stamp[8:])
    else:
        given = moment(text_of(fields, "SeriesDate"), text_of(drug, "RadiopharmaceuticalStartTime"))
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
