"""Where each frame of a DICOM file lies in the patient, and what tells it from its neighbours."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_classes import (
    MEDIA_DIRECTORY,
    is_image,
    is_secondary_capture,
    name_of_class,
)
from radiobject.formats.dicom_elements import (
    DEFLATED,
    UNDEFINED_LENGTH,
    Fields,
    Header,
    HeaderError,
    Wanted,
)
from radiobject.formats.dicom_gradients import PRIVATE_ELEMENTS
from radiobject.formats.dicom_header import (
    NATIVE_SYNTAXES,
    DicomFile,
    NotDicomError,
    OtherObjectError,
    RefusedFileError,
    SeriesIdentity,
    describe,
    element_header_bytes,
    header_fields,
    number_of,
    parse_errors,
    pixel_format,
    text_of,
    undecodable,
)
from radiobject.formats.dicom_keys import (
    COUNTS,
    MAKING,
    PLACES_OF_MAKERS,
    FrameKeys,
    frame_keys,
    moment,
)
from radiobject.formats.dicom_mosaic import CSA_ELEMENT, Window, mosaic_tiles
from radiobject.formats.dicom_parse import FIRST_READ, read_header
from radiobject.formats.dicom_planes import (
    UIH_ELEMENTS,
    dose_positions,
    is_uih_grid,
    nuclear_frames,
    places_listed,
    uih_tiles,
)
from radiobject.formats.dicom_real_world import (
    REAL_WORLD,
    REAL_WORLD_KEYWORDS,
    RealWorld,
    real_world,
)
from radiobject.formats.discovery import starts_like_dicom
from radiobject.formats.guards import DEFAULT_LIMITS, Limits
from radiobject.formats.privacy import ALLOWED_KEYWORDS, BURNED_IN

AGREEING = (
    "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyDate", "FrameOfReferenceUID",
    "ConvolutionKernel", "SeriesDescription",
)  # fmt: skip
"""What images of one volume must not say differently; compared, and not kept."""

# Only these are parsed: a patient's name never gets into this process unless it is asked for.
_KEYWORDS = (
    "SOPClassUID", "SOPInstanceUID", "PatientID", "StudyInstanceUID", "SeriesInstanceUID",
    "SeriesNumber", "ImageType", "InstanceNumber", "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "PhotometricInterpretation", "PresentationLUTShape", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "PixelSpacing", "SliceThickness",
    "PixelPaddingValue", "PixelPaddingRangeLimit",
    "SpacingBetweenSlices", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "Units", "DoseUnits", "ModalityLUTSequence",
    "GridFrameOffsetVector", "DoseGridScaling", "DoseType", "DoseSummationType",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    *AGREEING, "TemporalPositionIdentifier", "TriggerTime", "AcquisitionNumber", "AcquisitionTime",
    "AcquisitionDate", "AcquisitionDateTime", "ContentTime", "ContentDate", "DiffusionBValue",
    "DiffusionGradientOrientation", "EchoNumbers", "InversionTime", "FlipAngle",
    "FrameReferenceTime", "ComplexImageComponent", "StudyTime", "CorrectedImage",
    *COUNTS, *MAKING, *REAL_WORLD_KEYWORDS, "ConcatenationUID", "InConcatenationNumber",
    "InConcatenationTotalNumber", "ConcatenationFrameOffsetNumber",
    # Functional groups (PS3.3 C.7.6.16.2) and what they hold.
    "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence",
    "FrameContentSequence", "PixelValueTransformationSequence", "MREchoSequence",
    "MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence",
    "MRDiffusionSequence", "DiffusionGradientDirectionSequence", "CardiacSynchronizationSequence",
    "MRTimingAndRelatedParametersSequence", "MRModifierSequence", "CTXRayDetailsSequence",
    "MRReceiveCoilSequence", "MRVelocityEncodingSequence",
    "CTReconstructionSequence", "CTExposureSequence", "ExposureInmAs",
    "EffectiveEchoTime", "FrameType", "StackID", "DimensionIndexValues", "InversionTimes",
    "TemporalPositionIndex", "FrameAcquisitionNumber", "FrameAcquisitionDateTime",
    "FrameReferenceDateTime", "NominalCardiacTriggerDelayTime", "NominalPercentageOfCardiacPhase",
    "DiffusionDirectionality", "InStackPositionNumber", "InPlanePhaseEncodingDirection",
    "Manufacturer", "ImageComments", BURNED_IN,
    # Nuclear medicine (PS3.3 C.8.4).
    "FrameIncrementPointer", "SliceVector", "DetectorInformationSequence",
)  # fmt: skip

_SCOUT_TYPES = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM"})
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)
EMPTY_FILE = "an empty file"
"""What is said of a file of no bytes: an interrupted copy leaves them."""
_WITHOUT_PREAMBLE = (b"\x08\x00", b"\x02\x00")
"""First group of a data set without preamble: identification, or file meta information."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice: a frame of a file and its place in the patient, LPS+ mm.

    ``slope`` and ``intercept`` are None where the file states none, which is not 1 and 0;
    ``units`` are those of the rescaled values. ``keys`` tells frames at one position apart.
    ``window`` is the slice's part of the frame, None for the whole of it. ``real_world`` is the
    mapping that ``slope`` and ``intercept`` come from, or one that was not applied.
    """

    file: DicomFile
    index: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, float]
    thickness_mm: float | None
    slope: float | None
    intercept: float | None
    units: str
    stack: str
    keys: FrameKeys
    window: Window | None = None
    real_world: RealWorld | None = None

    @property
    def rows(self) -> int:
        """Rows of the slice."""
        pixels, window = self.file.pixels, self.window
        return pixels.rows if window is None else window.bottom - window.top

    @property
    def columns(self) -> int:
        """Columns of the slice."""
        pixels, window = self.file.pixels, self.window
        return pixels.columns if window is None else window.right - window.left

    @property
    def scale(self) -> tuple[float, float]:
        """Slope and intercept; 1 and 0 where the file states none."""
        slope = 1.0 if self.slope is None else self.slope
        return slope, 0.0 if self.intercept is None else self.intercept


@lru_cache(maxsize=16)
def _wanted(keep: tuple[str, ...]) -> Wanted:
    private = PRIVATE_ELEMENTS | CSA_ELEMENT | UIH_ELEMENTS | PLACES_OF_MAKERS
    return Wanted.of((*_KEYWORDS, *ALLOWED_KEYWORDS, *keep), private)


def read_frames(
    path: Path, limits: Limits = DEFAULT_LIMITS, keep: Sequence[str] = ()
) -> list[Frame]:
    """Return the frames of a DICOM image file from its header.

    Parameters
    ----------
    path : Path
        Any file; what it is, is decided by its content.
    limits : Limits
        What the header may declare.
    keep : sequence of str
        DICOM keywords to keep besides the allowed ones.

    Raises
    ------
    NotDicomError
        If it is not a DICOM file, or a DICOMDIR.
    RefusedFileError
        If it is damaged, no image, or has no place in the patient; the message says which.
    """
    identity: SeriesIdentity | None = None
    description = ""
    named = path.name.lower().endswith((".dcm", ".ima"))
    try:
        with path.open("rb", buffering=0) as stream:
            head = stream.read(FIRST_READ)
            if not head:
                raise (RefusedFileError if named else NotDicomError)(EMPTY_FILE)
            sure = named or starts_like_dicom(head)
            if not sure and not _may_be_bare(head):
                raise NotDicomError("not a DICOM file")
            header = _header(stream, head, keep, sure=sure)
            fields = header.fields
            if sure and not fields and not header.media_class:
                raise IngestError("cut short: it ends before anything that says what it is")
            own = SeriesIdentity.of(fields)
            identity = own if own.series_uid else None
            description = describe(fields)
            size = os.fstat(stream.fileno()).st_size
            return _frames(header, own, path, size, limits, keep)
    except (NotDicomError, RefusedFileError):
        raise
    except IngestError as error:
        other = isinstance(error, OtherObjectError)
        sop_class = error.sop_class if isinstance(error, OtherObjectError) else ""
        raise RefusedFileError(str(error), identity, description, other, sop_class) from error
    except PermissionError as error:
        raise RefusedFileError(f"cannot be read ({error.strerror})", identity) from error
    except parse_errors() as error:
        raise RefusedFileError(f"damaged DICOM file ({error})", identity, description) from error


def _may_be_bare(head: bytes) -> bool:
    """Return whether a file may be a data set without preamble: an even, low first element."""
    return head[:2] in _WITHOUT_PREAMBLE and len(head) >= 12 and head[3] in (0, 1)


def _header(stream: Any, start: bytes, keep: Sequence[str], *, sure: bool) -> Header:
    try:
        return read_header(stream, _wanted(tuple(keep)), _is_no_image, start)
    except HeaderError as error:
        if not sure:
            raise NotDicomError("not a DICOM file") from error
        raise


def _is_no_image(fields: Mapping[str, Any]) -> bool:
    """Return whether an object need not be read to its end: raw data may be of gigabytes."""
    sop_class = text_of(fields, "SOPClassUID")
    return not is_image(sop_class) and "SeriesInstanceUID" in fields


def _frames(
    header: Header,
    identity: SeriesIdentity,
    path: Path,
    size: int,
    limits: Limits,
    keep: Sequence[str],
) -> list[Frame]:
    """Return the frames of a file of `size` bytes by its header."""
    fields = header.fields
    _refuse_other_objects(header)
    if header.pixel_tag in _FLOAT_PIXELS:
        raise IngestError("pixels that are floating-point numbers; convert the series first")
    pixels = pixel_format(fields)
    _refuse_captures(header)
    count = max(int(number_of(fields, "NumberOfFrames") or 1), 1)
    limits.check_volume(path.name, (pixels.columns, pixels.rows, count), pixels.dtype.itemsize)
    limits.check_frame(path.name, pixels.rows, pixels.columns, pixels.dtype.itemsize)
    if not header.pixel_tag:
        raise IngestError("no pixels: the header describes an image, and none is there")
    why = undecodable(header.syntax)
    if why:
        raise IngestError(why)
    needed = pixels.frame_bytes * count
    _check_coding(header, size, needed)
    surplus = (header.pixel_length or 0) - needed if header.syntax in NATIVE_SYNTAXES else 0
    shared = _flat((fields.get(_GROUPS[0]) or [{}])[0])
    base = {key: value for key, value in fields.items() if key not in _GROUPS} | shared
    file = DicomFile(
        path=path,
        identity=identity,
        syntax=header.syntax,
        pixels=pixels,
        frames=count,
        pixel_offset=header.pixel_offset,
        fields=header_fields(base, keep),
        image_type=_image_type(fields),
        sop_uid=text_of(fields, "SOPInstanceUID"),
        agreement={name: text_of(base, name) for name in AGREEING},
        study_time=moment(text_of(fields, "StudyDate"), text_of(fields, "StudyTime") or "00"),
        burned_in=text_of(base, BURNED_IN).upper() == "YES",
        surplus=max(surplus, 0),
        piece=_piece(fields),
        more_places=max(places_listed(fields) - count, 0),
    )
    return _placed(file, base, fields.get(_GROUPS[1]) or [])


def _piece(fields: Mapping[str, Any]) -> tuple[str, int, int, int] | None:
    """Return which piece of a concatenation a file is (PS3.3 C.7.6.16.2.2.4); None if of none."""
    uid = text_of(fields, "ConcatenationUID")
    number, total, offset = (
        int(number_of(fields, f"{name}Number") or 0)
        for name in ("InConcatenation", "InConcatenationTotal", "ConcatenationFrameOffset")
    )
    return (uid, number, total, offset) if uid else None


def _placed(file: DicomFile, base: Fields, own: Sequence[Fields]) -> list[Frame]:
    """Return the frames of a file, each where its own kind of object says."""
    if own:
        if len(own) < file.frames:
            raise IngestError(f"{file.frames} frames, but functional groups of {len(own)} only")
        return [
            _frame(base | _flat(own[index]), file, index, group.get("FrameContentSequence"))
            for index, group in enumerate(own[: file.frames])
        ]
    if "MOSAIC" in file.image_type:
        return _tiled(mosaic_tiles, base, file)
    if is_uih_grid(base):
        return _tiled(uih_tiles, base, file)
    if "DetectorInformationSequence" in base:
        return [_frame(view, file, index) for index, view in nuclear_frames(base, file.frames)]
    if file.frames == 1:
        return [_frame(base, file, 0)]
    if "GridFrameOffsetVector" not in base:
        raise IngestError(
            f"{file.frames} frames without a position of each; not a volume. If it is one, "
            "convert it with the maker's tool to enhanced multi-frame or to single images"
        )
    first = _frame(base, file, 0)
    places = dose_positions(base, file.frames, first.position, first.orientation)
    return [replace(first, index=i, position=place) for i, place in enumerate(places)]


def _tiled(tiles_of: Any, base: Fields, file: DicomFile) -> list[Frame]:
    frame = _frame(base, file, 0)
    step = _numbers(base, "SpacingBetweenSlices", 1)
    thickness = step[0] if step else frame.thickness_mm
    tiles = tiles_of(base, frame.position, frame.orientation, frame.spacing_mm, thickness)
    return [replace(frame, position=tile.position, window=tile.window) for tile in tiles]


def _refuse_other_objects(header: Header) -> None:
    """Refuse what is no image of a slice, before anything else is asked of it."""
    fields = header.fields
    sop_class = text_of(fields, "SOPClassUID") or header.media_class
    if sop_class == MEDIA_DIRECTORY:
        raise NotDicomError("a DICOMDIR")
    if not sop_class and "SeriesInstanceUID" not in fields:
        raise NotDicomError("not a DICOM file")
    if not is_image(sop_class):
        raise OtherObjectError(name_of_class(sop_class), sop_class)
    if not fields.get("SeriesInstanceUID"):
        raise IngestError("no SeriesInstanceUID: the series it belongs to cannot be known")
    if _SCOUT_TYPES & set(_image_type(fields)):
        raise OtherObjectError("a scout (localizer) image, not part of a volume", sop_class)


def _refuse_captures(header: Header) -> None:
    """Refuse a picture of a screen or of paper, which may lie in the series of a scan."""
    fields = header.fields
    sop_class = text_of(fields, "SOPClassUID") or header.media_class
    placed = fields.get("ImagePositionPatient") or any(fields.get(name) for name in _GROUPS)
    if is_secondary_capture(sop_class) and not placed:
        raise OtherObjectError(
            "a secondary capture (a screen, a scan of paper) without a place in the patient",
            sop_class,
        )


def _image_type(fields: Mapping[str, Any]) -> tuple[str, ...]:
    value = fields.get("ImageType") or ()
    return tuple(str(part).upper() for part in ([value] if isinstance(value, str) else value))


def _units(view: Mapping[str, Any]) -> str:
    """Return the unit of the rescaled values, as the header states it.

    A CT that states none is in HU (PS3.3 C.8.2.1: a type must be given where they are not HU); one
    that says "unspecified" is not taken for it.
    """
    stated = view.get("Units") or view.get("DoseUnits") or view.get("RescaleType") or ""
    if not stated and view.get("Modality") == "CT" and "RescaleIntercept" in view:
        return "HU"
    return str(stated)


def _check_coding(header: Header, size: int, needed: int) -> None:
    """Refuse pixels that are not coded, or not as many, as the header of a file of `size` says."""
    cut_up = header.pixel_length == UNDEFINED_LENGTH
    if header.syntax not in NATIVE_SYNTAXES:
        if header.pixel_length is not None and not cut_up:
            raise IngestError(
                f"its transfer syntax {header.syntax} is one of pixels in fragments, but they are "
                "not cut into any: how they are coded is not known; correct the transfer syntax"
            )
        return
    if cut_up:
        raise IngestError(
            f"its pixels are cut into fragments, which its transfer syntax {header.syntax} does "
            "not allow: how they are coded is not known; correct the transfer syntax"
        )
    there = needed if header.pixel_length is None else header.pixel_length
    if header.syntax != DEFLATED and header.pixel_offset is not None:
        behind = size - header.pixel_offset - element_header_bytes(header.syntax)
        there = min(there, max(behind, 0))
    if there < needed:
        raise IngestError(
            f"cut short: {needed:,} bytes of pixels are declared, at most {there:,} are there"
        )


def _flat(group: Fields) -> Fields:
    """Return what a functional group holds, without its sequences: their one item each."""
    found: Fields = {}
    for value in group.values():
        if type(value) is list and value:
            item = value[0]
            found.update(item)
            for inner in item.values():
                if type(inner) is list and inner:
                    found.update(inner[0])
    if REAL_WORLD in group:
        found[REAL_WORLD] = group[REAL_WORLD]  # of which there may be several
    return found


def _frame(
    view: Mapping[str, Any], file: DicomFile, index: int, content: list[Fields] | None = None
) -> Frame:
    position = _numbers(view, "ImagePositionPatient", 3)
    orientation = _numbers(view, "ImageOrientationPatient", 6)
    if position is None or orientation is None:
        names = {"ImagePositionPatient": position, "ImageOrientationPatient": orientation}
        absent = " and ".join(name for name, value in names.items() if value is None)
        raise IngestError(f"no {absent}: it has no place")
    spacing = _numbers(view, "PixelSpacing", 2)
    if spacing is None:
        raise IngestError("no PixelSpacing: the size of its pixels is not known")
    thickness = _numbers(view, "SliceThickness", 1)
    slope, intercept = _scale(view)
    units = _units(view)
    mapping = None
    if REAL_WORLD in view:
        scale = (1.0 if slope is None else slope, intercept or 0.0)
        mapping = real_world(view, file.pixels, scale, units)
    if mapping is not None and not mapping.unused:
        slope, intercept, units = mapping.slope, mapping.intercept, mapping.unit
    return Frame(
        file=file,
        index=index,
        position=position,
        orientation=orientation,
        spacing_mm=(spacing[0], spacing[1]),
        thickness_mm=thickness[0] if thickness else None,
        slope=slope,
        intercept=intercept,
        units=units,
        stack=text_of(content[0], "StackID") if content else "",
        keys=frame_keys(view, file.image_type),
        real_world=mapping,
    )


def _numbers(view: Mapping[str, Any], keyword: str, count: int) -> tuple[float, ...] | None:
    """Return `count` finite numbers, None if absent."""
    value = view.get(keyword)
    if value is None or value == "":
        return None
    numbers = value if type(value) is tuple else (value,)
    if len(numbers) == count:
        try:
            if all(map(math.isfinite, numbers)):
                return numbers
        except TypeError:
            pass
    raise IngestError(f"{keyword} must be {count} finite numbers, got {numbers}")


def _scale(view: Mapping[str, Any]) -> tuple[float | None, float | None]:
    slope = _numbers(view, "RescaleSlope", 1)
    intercept = _numbers(view, "RescaleIntercept", 1)
    if view.get("ModalityLUTSequence"):
        if slope not in (None, (1.0,)) or intercept not in (None, (0.0,)):
            raise IngestError(
                "both a modality lookup table and RescaleSlope or RescaleIntercept: which of them "
                "gives the values is not known; take away the one that does not"
            )
        return None, None
    if slope is None:
        slope = _numbers(view, "DoseGridScaling", 1)
    if slope is not None and slope[0] == 0:
        raise IngestError("RescaleSlope is 0: every voxel would have one value")
    return (slope[0] if slope else None), (intercept[0] if intercept else None)
