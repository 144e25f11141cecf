"""What tells one image of a place from another: echo, component, b-value, time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from radiobject.formats.dicom_gradients import (
    GRADIENT_FIELDS,
    b_value,
    direction,
    silent_on_zero,
)
from radiobject.formats.dicom_header import number_of, text_of

_COMPONENTS = {
    "M": "M", "MAG": "M", "MAGNITUDE": "M", "P": "P", "PHASE": "P", "R": "R", "REAL": "R",
    "I": "I", "IMAGINARY": "I",
}  # fmt: skip
_MIXED = "MIXED"
COUNTS = (
    "ImagesInAcquisition", "NumberOfSlices", "NumberOfTemporalPositions", "NumberOfTimeSlices",
    "NumberOfTimeSlots", "NumberOfRRIntervals",
)  # fmt: skip
"""What states how many images, slices or volumes a series has."""
PLACES_OF_MAKERS = {
    (0x0021, "GEMS_RELA_01", 0x4F): ("Locations in acquisition (GE)", b"SS"),
    (0x2001, "Philips Imaging DD 001", 0x18): ("Number of Slices MR (Philips)", b"SL"),
}
"""Private elements that state how many places a series has slices at, with what makers call them;
dcm2niix goes by these two."""
_COUNTED = (*COUNTS, *(name for name, _ in PLACES_OF_MAKERS.values()))
VARIANTS = (
    "ConvolutionKernel", "ImageFilter", "FilterType", "ReconstructionAlgorithm",
    "ReconstructionMethod", "AttenuationCorrectionMethod", "ReceiveCoilName",
    "MagnetizationTransfer", "SpectrallySelectedSuppression", "ScanOptions",
    "VelocityEncodingDirection",
)  # fmt: skip
"""How an image was made: images that say it differently are of two kinds, and no two moments."""
MAKING = (
    *VARIANTS, "ScanningSequence", "SequenceVariant", "SequenceName", "PulseSequenceName",
    "ContrastBolusAgent",
)  # fmt: skip
"""These, and what may differ between moments, too."""
_BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)
DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class FrameKeys:
    """What may differ between two images of one place; None or empty where not stated.

    Times are in seconds: `time` and `content_time` since 1900, `trigger` and `frame_time` as
    their elements have them, in ms. `direction` is a unit vector, LPS+. Where `silent_on_zero`, a
    diffusion image without a b-value has that of no gradient. `counts` has how many images, slices
    or volumes there should be, by keyword; `in_stack` is the slice's number in its stack, from 1.
    `making` has what of `MAKING` is stated; `variant` is what part the series by it gave, in words.
    """

    component: str = ""
    kind: str = ""
    echo: float | None = None
    echo_number: int | None = None
    b_value: float | None = None
    direction: tuple[float, float, float] | None = None
    directionality: str = ""
    silent_on_zero: bool = False
    temporal: int | None = None
    trigger: float | None = None
    phase: float | None = None
    frame_time: float | None = None
    inversion: float | None = None
    flip: float | None = None
    repetition: float | None = None
    acquisition: int | None = None
    time: float | None = None
    content_time: float | None = None
    dimension: tuple[int, ...] | None = None
    instance: int | None = None
    kvp: float | None = None
    corrected: str = ""
    counts: tuple[tuple[str, int], ...] = ()
    in_stack: int | None = None
    making: tuple[tuple[str, str], ...] = ()
    variant: str = ""

    @property
    def diffusion(self) -> tuple[Any, ...] | None:
        """B-value and direction together, None where there is no b-value."""
        if self.b_value is None:
            return None
        direction = self.direction
        return (self.b_value, None if direction is None else tuple(round(v, 4) for v in direction))


def frame_keys(view: Mapping[str, Any], image_type: tuple[str, ...]) -> FrameKeys:
    """Return the keys of a frame from its header, functional groups included."""
    frame_type = view.get("FrameType")
    kind = frame_type if isinstance(frame_type, tuple) else image_type
    if "DoseSummationType" in view:
        # A dose has no image type: of a plan or of one beam, physical or an error.
        kind = (text_of(view, "DoseType"), "", text_of(view, "DoseSummationType"))
    component = text_of(view, "ComplexImageComponent")
    if component == _MIXED or not component:
        component = next((_COMPONENTS[part] for part in kind[2:] if part in _COMPONENTS), "")
    trigger = _number(view, "NominalCardiacTriggerDelayTime")
    if trigger is None:
        trigger = _number(view, "TriggerTime")
    echo = _number(view, "EffectiveEchoTime")
    if echo is None:
        echo = _number(view, "EchoTime")
    inversion = view.get("InversionTimes", view.get("InversionTime"))
    if isinstance(inversion, tuple):
        inversion = inversion[0] if inversion else None
    temporal = view.get("TemporalPositionIndex")
    if temporal is None:
        temporal = view.get("TemporalPositionIdentifier")
    acquisition = view.get("FrameAcquisitionNumber")
    if acquisition is None:
        acquisition = view.get("AcquisitionNumber")
    content = moment(text_of(view, "ContentDate"), text_of(view, "ContentTime"))
    dimension = view.get("DimensionIndexValues")
    weighted = not GRADIENT_FIELDS.isdisjoint(view)
    return FrameKeys(
        component=_COMPONENTS.get(component, component),
        kind="\\".join(kind[:1] + kind[2:]),
        echo=echo,
        echo_number=_whole(view.get("EchoNumbers")),
        b_value=b_value(view) if weighted else None,
        direction=direction(view) if weighted else None,
        directionality=text_of(view, "DiffusionDirectionality")
        or _PHILIPS.get(text_of(view, "PhilipsDirectionality"), ""),
        silent_on_zero=silent_on_zero(view),
        temporal=_whole(temporal),
        trigger=trigger,
        phase=_number(view, "NominalPercentageOfCardiacPhase"),
        frame_time=_number(view, "FrameReferenceTime"),
        inversion=inversion if isinstance(inversion, int | float) else None,
        flip=_number(view, "FlipAngle"),
        repetition=_number(view, "RepetitionTime"),
        acquisition=_whole(acquisition),
        time=_acquired(view),
        content_time=content,
        dimension=dimension if isinstance(dimension, tuple) else None,
        instance=_whole(view.get("InstanceNumber")),
        kvp=_number(view, "KVP"),
        corrected=text_of(view, "CorrectedImage"),
        counts=tuple([(name, view[name]) for name in _COUNTED if type(view.get(name)) is int]),
        in_stack=_whole(view.get("InStackPositionNumber")),
        making=_shared(tuple([(name, text_of(view, name)) for name in MAKING if view.get(name)])),
    )


@lru_cache(maxsize=4096)
def _shared(making: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Return one object for equal ones, which nearly all images of a series have."""
    return making


_PHILIPS = {"D": "DIRECTIONAL", "I": "ISOTROPIC", "N": "NONE"}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _number(view: Mapping[str, Any], keyword: str) -> float | None:
    value = view.get(keyword)
    return value if value is None or type(value) is float else number_of(view, keyword)


def _acquired(view: Mapping[str, Any]) -> float | None:
    """Return when a frame was acquired."""
    for keyword in ("FrameAcquisitionDateTime", "FrameReferenceDateTime", "AcquisitionDateTime"):
        stamp = text_of(view, keyword)
        if stamp:
            return moment(stamp[:8], stamp[8:])
    return moment(text_of(view, "AcquisitionDate"), text_of(view, "AcquisitionTime"))


@lru_cache(maxsize=4096)
def _day(date: str) -> float:
    """Return the seconds from 1900 to a date "YYYYMMDD", also with dots; 0 where there is none."""
    digits = date.replace(".", "")[:8]
    try:
        return (datetime.strptime(digits, "%Y%m%d").replace(tzinfo=UTC) - _BEGINNING) / timedelta(
            seconds=1
        )
    except ValueError:
        return 0.0


@lru_cache(maxsize=65536)
def moment(date: str, time: str) -> float | None:
    """Return a date and a time "HHMMSS.FFFFFF" as seconds since 1900; None without a time.

    Without a date it is the time of an unknown day. A zone behind the time is the same for a
    whole series, and is left out.
    """
    digits = time.replace(":", "").split("+")[0].split("-")[0].strip()
    if len(digits) < 2 or not digits[:2].isdecimal():
        return None
    try:
        hours, minutes = int(digits[:2]), int(digits[2:4] or 0)
        return _day(date) + hours * 3600 + minutes * 60 + float(digits[4:] or 0)
    except ValueError:
        return None
