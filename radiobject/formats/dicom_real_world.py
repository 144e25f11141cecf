"""Real world value mappings: what stored values mean where no rescale says it.

A mapping goes from stored values to quantities, beside a rescale and not behind it
(PS3.3 C.7.6.16.2.11). The stored integers of a parametric map mean nothing without it. Where a
rescale gives the values already, it is another view of them, and is only said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_elements import Fields
from radiobject.formats.dicom_header import PixelFormat, number_of, stored_number, text_of

REAL_WORLD = "RealWorldValueMappingSequence"
REAL_WORLD_KEYWORDS = (
    REAL_WORLD, "RealWorldValueSlope", "RealWorldValueIntercept", "RealWorldValueFirstValueMapped",
    "RealWorldValueLastValueMapped", "MeasurementUnitsCodeSequence", "CodeValue",
)  # fmt: skip
NO_UNIT = frozenset({"", "US", "UNSPECIFIED"})
"""What images state as their unit that is none."""
_PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
_UNITS = {"[hnsf'U]": "HU", "1": ""}
"""Units that have another name everywhere else here, or are none, by their UCUM code."""
_DIGITS = 1e-6
"""Largest relative difference of two scales that are one: a decimal string has 16 characters."""


@dataclass(frozen=True, slots=True)
class RealWorld:
    """How a frame's stored values become quantities.

    Parameters
    ----------
    slope, intercept : float
        ``quantity = stored * slope + intercept``; not a number where a table says it.
    unit : str
        Code of the unit, UCUM as a rule.
    first, last : int, optional
        The stored values between which it holds; None where that is not stated.
    unused : str
        Why it was not applied, with what it is; empty where it was.
    """

    slope: float
    intercept: float
    unit: str
    first: int | None = None
    last: int | None = None
    unused: str = ""

    @property
    def linear(self) -> bool:
        """Whether it is a slope and an intercept."""
        return math.isfinite(self.slope) and math.isfinite(self.intercept) and self.slope != 0

    def is_scale(self, slope: float, intercept: float) -> bool:
        """Return whether it is a rescale of so many digits as a decimal string has."""
        near = math.isclose(
            self.intercept, intercept, rel_tol=_DIGITS, abs_tol=_DIGITS * abs(slope)
        )
        return math.isclose(self.slope, slope, rel_tol=_DIGITS) and near

    def __str__(self) -> str:
        how = f"slope {self.slope:g}, intercept {self.intercept:g}" if self.linear else "by a table"
        return f"{self.unit or 'no unit'}: {how}"


def real_world(
    view: Mapping[str, Any], pixels: PixelFormat, scale: tuple[float, float], unit: str
) -> RealWorld | None:
    """Return what a frame's mappings are to its values; None where there are none.

    Parameters
    ----------
    view : mapping
        Its header, functional groups included.
    pixels : PixelFormat
        How its voxels are coded.
    scale : tuple of float
        Slope and intercept that the header states otherwise; 1 and 0 where it states none.
    unit : str
        The unit that it states otherwise.

    Raises
    ------
    IngestError
        If it is a parametric map and which of several mappings holds is not known, or by a table.
    """
    items = view.get(REAL_WORLD)
    if not isinstance(items, list) or not items:
        return None
    found = list(dict.fromkeys(_mapping(item, pixels) for item in items))
    one = found[0]
    if pixels.has_table:
        return _unused(found, "a modality lookup table gives the values")
    if scale != (1.0, 0.0) or unit not in NO_UNIT:
        if any(other.is_scale(*scale) for other in found):
            return None  # the values are quantities already
        stated = "" if unit in NO_UNIT else f", in {unit!r}"
        return _unused(found, f"its other fields say what the values are{stated}")
    if len(found) == 1 and one.linear:
        return one
    why = "which of them holds is not known" if len(found) > 1 else "tables are not read"
    if text_of(view, "SOPClassUID") == _PARAMETRIC_MAP:
        raise IngestError(
            f"a parametric map with {_words(found)}: {why}, and its stored values mean nothing "
            "without; leave one mapping by slope and intercept"
        )
    return _unused(found, why)


def unapplied(frames: list[RealWorld | None]) -> tuple[str, ...]:
    """Return a warning about mappings that were not applied, and how many images have them."""
    said = [one.unused for one in frames if one is not None and one.unused]
    return (f"{len(said)} of {len(frames)} images have {said[0]}",) if said else ()


def _mapping(item: Fields, pixels: PixelFormat) -> RealWorld:
    code = item.get("MeasurementUnitsCodeSequence") or [{}]
    unit = text_of(code[0], "CodeValue")
    slope = number_of(item, "RealWorldValueSlope")
    intercept = number_of(item, "RealWorldValueIntercept")
    ends = [item.get(f"RealWorldValue{end}ValueMapped") for end in ("First", "Last")]
    first, last = (stored_number(end, pixels) if isinstance(end, int) else None for end in ends)
    if first is None or last is None or first > last:
        first = last = None
    known = slope is not None and intercept is not None
    return RealWorld(
        slope if slope is not None and known else math.inf,
        intercept if intercept is not None and known else math.inf,
        _UNITS.get(unit, unit), first, last,
    )  # fmt: skip


def _unused(found: list[RealWorld], why: str) -> RealWorld:
    one = found[0]
    words = f"{_words(found)}, not applied: {why}"
    return RealWorld(one.slope, one.intercept, one.unit, unused=words)


def _words(found: list[RealWorld]) -> str:
    listed = "; ".join(map(str, found))
    if len(found) == 1:
        return f"a real world value mapping ({listed})"
    return f"{len(found)} real world value mappings ({listed})"
