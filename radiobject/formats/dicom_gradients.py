"""B-values and gradient directions: public, or where each maker keeps them.

Siemens and Philips state directions in the patient (LPS+), United Imaging along row, column and
normal of the image, and GE along its frequency, phase and slice. All are turned as dcm2niix turns
them, which calls that little validated for sagittal and coronal slices of GE. Canon writes them as
a comment of the image, of which nothing else is read, along phase, frequency and slice, and states
b-values, as Toshiba did, only where a gradient is on.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from radiobject.formats.dicom_header import number_of, text_of
from radiobject.formats.dicom_mosaic import csa_values

Vector = tuple[float, float, float]

PRIVATE_ELEMENTS = {
    (0x0019, "SIEMENS MR HEADER", 0x0C): ("SiemensBValue", b"IS"),
    (0x0019, "SIEMENS MR HEADER", 0x0E): ("SiemensDirection", b"FD"),
    (0x0043, "GEMS_PARM_01", 0x39): ("GEBValue", b"IS"),
    (0x0019, "GEMS_ACQU_01", 0xBB): ("GEDirectionX", b"DS"),
    (0x0019, "GEMS_ACQU_01", 0xBC): ("GEDirectionY", b"DS"),
    (0x0019, "GEMS_ACQU_01", 0xBD): ("GEDirectionZ", b"DS"),
    (0x2001, "Philips Imaging DD 001", 0x03): ("PhilipsBValue", b"FL"),
    (0x2001, "Philips Imaging DD 001", 0x04): ("PhilipsDirectionality", b"CS"),
    (0x2005, "Philips MR Imaging DD 001", 0xB0): ("PhilipsDirectionX", b"FL"),
    (0x2005, "Philips MR Imaging DD 001", 0xB1): ("PhilipsDirectionY", b"FL"),
    (0x2005, "Philips MR Imaging DD 001", 0xB2): ("PhilipsDirectionZ", b"FL"),
    (0x0065, "Image Private Header", 0x09): ("UIHBValue", b"FD"),
    (0x0065, "Image Private Header", 0x37): ("UIHDirection", b"FD"),
}
"""Numbers that makers keep in private elements; nothing of these elements but these is read."""

_B_VALUES = ("DiffusionBValue", "SiemensBValue", "PhilipsBValue", "GEBValue", "UIHBValue")
_DIRECTIONS = ("DiffusionGradientOrientation", "SiemensDirection")
GRADIENT_FIELDS = frozenset(
    (*_B_VALUES, *_DIRECTIONS, "PhilipsDirectionX", "UIHDirection", "GEDirectionX",
     "CSAImageHeader", "ImageComments")
)  # fmt: skip
"""Where none of these is, there is neither a b-value nor a direction."""
_COMMENT = re.compile(r"b=(\d{1,5}(?:\.\d{0,6})?)(?:\(([-+.\d]+),([-+.\d]+),([-+.\d]+)\))?")
"""The whole of Canon's comment: a b-value, and a direction."""
_GE_B_OFFSET = 1e6
"""GE adds multiples of 10^6 to a b-value (its manual, element 0043,1039)."""


def b_value(view: Mapping[str, Any]) -> float | None:
    """Return the b-value of a frame in s/mm2, None where none is stated."""
    for keyword in _B_VALUES:
        value = view.get(keyword)
        if value is None:
            continue
        if isinstance(value, tuple):
            value = value[0]
        if isinstance(value, int | float) and math.isfinite(value) and value >= 0:
            return float(value % _GE_B_OFFSET if keyword == "GEBValue" else value)
    stated = _csa(view, "B_value", 1) or _comment(view)[:1]
    return stated[0] if stated and stated[0] >= 0 else None


def silent_on_zero(view: Mapping[str, Any]) -> bool:
    """Return whether the maker states b-values only where a gradient is on."""
    return text_of(view, "Manufacturer").upper().startswith(("CANON", "TOSHIBA"))


def direction(view: Mapping[str, Any]) -> Vector | None:
    """Return the direction of the gradient, a unit vector in LPS+; None where none is known."""
    found = next((view[name] for name in _DIRECTIONS if name in view), None)
    if found is None and "PhilipsDirectionX" in view:
        found = tuple(view.get(f"PhilipsDirection{axis}") for axis in "XYZ")
    if found is None and "UIHDirection" in view:
        found = _from_image(view, view["UIHDirection"])
    if found is None and "GEDirectionX" in view:
        found = _from_encoding(view, *(number_of(view, f"GEDirection{axis}") for axis in "XYZ"))
    if found is None:
        found = _csa(view, "DiffusionGradientDirection", 3)
    if found is None and len(_comment(view)) == 4:
        _, phase, frequency, along = _comment(view)
        found = _from_encoding(view, frequency, phase, along)
    if not isinstance(found, tuple) or len(found) != 3:
        return None
    if not all(isinstance(part, int | float) for part in found):
        return None
    length = math.sqrt(sum(part * part for part in found))
    if not length > 1e-6:
        return None
    return (found[0] / length, found[1] / length, found[2] / length)


def _from_encoding(
    view: Mapping[str, Any], frequency: float | None, phase: float | None, along: float | None
) -> Vector | None:
    """Return a vector along frequency, phase and slice in LPS+; None where these are not stated."""
    normal = _normal(view)
    encoding = text_of(view, "InPlanePhaseEncodingDirection")
    if frequency is None or phase is None or along is None or normal is None:
        return None
    if abs(normal[1]) > max(abs(normal[0]), abs(normal[2])):
        phase = -phase  # coronal
    if encoding == "ROW":
        return _from_image(view, (phase, -frequency, -along))
    if encoding in ("COL", "COLUMN"):
        return _from_image(view, (frequency, phase, -along))
    return None


def _from_image(view: Mapping[str, Any], vector: Any) -> Vector | None:
    """Return a vector along row, column and normal of the image in LPS+."""
    normal = _normal(view)
    if normal is None or not isinstance(vector, tuple) or len(vector) != 3:
        return None
    axes = (view["ImageOrientationPatient"][:3], view["ImageOrientationPatient"][3:], normal)
    x, y, z = (
        sum(part * axis[k] for part, axis in zip(vector, axes, strict=True)) for k in range(3)
    )
    return (x, y, z)


def _normal(view: Mapping[str, Any]) -> Vector | None:
    iop = view.get("ImageOrientationPatient")
    if not isinstance(iop, tuple) or len(iop) != 6:
        return None
    return _cross(iop[:3], iop[3:]) if all(isinstance(part, float) for part in iop) else None


def _cross(one: Sequence[float], other: Sequence[float]) -> Vector:
    return (
        one[1] * other[2] - one[2] * other[1],
        one[2] * other[0] - one[0] * other[2],
        one[0] * other[1] - one[1] * other[0],
    )


def _comment(view: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the b-value and the direction of a comment of Canon, as far as it states them."""
    if not silent_on_zero(view):
        return ()
    match = _COMMENT.fullmatch(text_of(view, "ImageComments").strip())
    try:
        return tuple(float(text) for text in match.groups() if text) if match else ()
    except ValueError:
        return ()


def _csa(view: Mapping[str, Any], name: str, count: int) -> tuple[float, ...] | None:
    """Return numbers of the CSA header: before 2006 Siemens wrote them nowhere else."""
    content = view.get("CSAImageHeader")
    if not isinstance(content, bytes):
        return None
    try:
        values = tuple(float(text) for text in csa_values(content, name)[:count])
    except (ValueError, struct.error):
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None
