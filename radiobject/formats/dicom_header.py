"""One DICOM file's header: its pixel format, its allowed fields, and where each frame lies."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_geometry import slice_normal
from radiobject.formats.discovery import has_dicom_preamble
from radiobject.formats.guards import DEFAULT_LIMITS, Limits
from radiobject.formats.privacy import ALLOWED_KEYWORDS, NUMBER_KEYWORDS

try:
    import pydicom
    from pydicom.errors import BytesLengthException, InvalidDicomError
except ImportError as error:
    raise ImportError("reading DICOM needs pydicom: pip install 'radiobject[dicom]'") from error

PARSE_ERRORS = (
    InvalidDicomError, BytesLengthException, EOFError, ValueError, KeyError, TypeError,
    AttributeError, IndexError, NotImplementedError, OverflowError, OSError, struct.error,
    zlib.error, RecursionError,
)  # fmt: skip
"""What pydicom raises for a file that is damaged."""

# Only these are parsed: a patient's name never gets into this process unless it is asked for.
_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "ImageType",
    "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "PhotometricInterpretation", "PresentationLUTShape", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "GridFrameOffsetVector",
    "DoseGridScaling", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "TemporalPositionIdentifier", "TriggerTime", "AcquisitionNumber", "AcquisitionTime",
    "AcquisitionDate", "AcquisitionDateTime", "ContentTime", "DiffusionBValue", "EchoNumbers",
    "FloatPixelData", "DoubleFloatPixelData",
)  # fmt: skip

_SCOUT_TYPES = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM"})
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
NATIVE_SYNTAXES = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG)
_DEFLATED = "1.2.840.10008.1.2.1.99"
_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"


class NotDicomError(IngestError):
    """The file is no DICOM object, so it is passed over rather than refused."""


class RefusedFileError(IngestError):
    """A DICOM file that cannot be part of a volume.

    ``series_uid`` and ``description`` say which series it belongs to, empty where unknown.
    """

    def __init__(self, reason: str, series_uid: str = "", description: str = "") -> None:
        super().__init__(reason)
        self.series_uid = series_uid
        self.description = description


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How one frame's voxels are coded.

    ``inverted`` is True for MONOCHROME1, or where the presentation shape says so: the smallest
    stored value is then the brightest.
    """

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    inverted: bool

    @property
    def dtype(self) -> np.dtype:
        """Native type of a stored value."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.bits_allocated // 8}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one decoded frame."""
        return self.rows * self.columns * self.bits_allocated // 8


@dataclass(frozen=True)
class DicomFile:
    """A DICOM image file, without its pixels.

    ``pixel_offset`` is where the Pixel Data element starts in the file, None where the file must
    be parsed anew (deflated). ``fields`` holds the allowed header fields by keyword.
    """

    path: Path
    series_uid: str
    instance_uid: str
    syntax: str
    pixels: PixelFormat
    frames: int
    pixel_offset: int | None
    fields: dict[str, Any]
    image_type: tuple[str, ...]


@dataclass(frozen=True)
class Frame:
    """One slice: a frame of a file and its place in the patient, LPS+ mm.

    ``keys`` tells frames at one position apart: echo, kind, temporal position and so on.
    """

    file: DicomFile
    index: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, float]
    thickness_mm: float | None
    slope: float
    intercept: float
    stack: str
    keys: dict[str, Any]


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
    if not has_dicom_preamble(path) and not path.name.lower().endswith((".dcm", ".ima")):
        raise NotDicomError("not a DICOM file")
    tags = [*_TAGS, *ALLOWED_KEYWORDS, *keep]
    series, description = "", ""
    try:
        with path.open("rb") as stream:
            dataset = pydicom.dcmread(
                stream, stop_before_pixels=True, specific_tags=tags, force=True
            )
            series = str(dataset.get("SeriesInstanceUID") or "")
            description = describe(dataset)
            return _frames(dataset, path, stream, limits, keep)
    except NotDicomError:
        raise
    except IngestError as error:
        raise RefusedFileError(str(error), series, description) from error
    except PARSE_ERRORS as error:
        raise RefusedFileError(f"damaged DICOM file ({error})", series, description) from error


def describe(fields: Any) -> str:
    """Return modality and series description of a data set or of its fields, for a report."""
    named = (fields.get(name) for name in ("Modality", "SeriesDescription"))
    return " ".join(str(value) for value in named if value)


def _frames(
    dataset: Any, path: Path, stream: BinaryIO, limits: Limits, keep: Sequence[str]
) -> list[Frame]:
    sop_class = str(dataset.get("SOPClassUID") or _meta(dataset, "MediaStorageSOPClassUID"))
    if sop_class == _MEDIA_DIRECTORY:
        raise NotDicomError("a DICOMDIR")
    if not sop_class and "SeriesInstanceUID" not in dataset:
        raise NotDicomError("not a DICOM file")
    if sop_class == _SEGMENTATION:
        raise IngestError("a segmentation object; read it with load_dicom_seg")
    pixels = _pixel_format(dataset)
    count = max(int(dataset.get("NumberOfFrames") or 1), 1)
    limits.check_volume(path.name, (pixels.columns, pixels.rows, count), pixels.dtype.itemsize)
    limits.check_frame(path.name, pixels.rows, pixels.columns, pixels.dtype.itemsize)
    series = str(dataset.get("SeriesInstanceUID") or "")
    if not series:
        raise IngestError("no SeriesInstanceUID: the series it belongs to cannot be known")
    syntax = _meta(dataset, "TransferSyntaxUID")
    offset = None if syntax == _DEFLATED else stream.tell()
    if syntax in NATIVE_SYNTAXES and offset is not None:
        there = path.stat().st_size - offset - element_header_bytes(syntax)
        if there < pixels.frame_bytes * count:
            raise IngestError(
                f"cut short: {pixels.frame_bytes * count:,} bytes of pixels are declared, at most "
                f"{max(there, 0):,} are there"
            )
    file = DicomFile(
        path=path,
        series_uid=series,
        instance_uid=str(dataset.get("SOPInstanceUID") or ""),
        syntax=syntax,
        pixels=pixels,
        frames=count,
        pixel_offset=offset,
        fields=_fields(dataset, keep),
        image_type=tuple(str(part).upper() for part in dataset.get("ImageType") or ()),
    )
    if "MOSAIC" in file.image_type:
        raise IngestError(
            "a Siemens mosaic, a whole volume tiled into one image; convert it with dcm2niix"
        )
    if _SCOUT_TYPES & set(file.image_type):
        raise IngestError("a scout (localizer) image, not part of a volume")
    return [_frame(dataset, file, index) for index in range(count)]


def element_header_bytes(syntax: str) -> int:
    """Return the bytes of tag, type and length in front of native pixels."""
    return 8 if syntax == IMPLICIT_LITTLE else 12


def _meta(dataset: Any, keyword: str) -> str:
    return str(getattr(dataset, "file_meta", {}).get(keyword, ""))


def _pixel_format(dataset: Any) -> PixelFormat:
    """Return the pixel format, or refuse what is no grey-scale image."""
    if "Rows" not in dataset or "Columns" not in dataset or "BitsAllocated" not in dataset:
        raise IngestError("not an image: it has no rows and columns")
    photometric = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2").strip()
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if samples != 1 or photometric not in _MONOCHROME:
        raise IngestError(f"a colour image ({photometric}); only grey values make a volume")
    if "ModalityLUTSequence" in dataset:
        raise IngestError("a modality lookup table instead of a slope; convert the series first")
    allocated = int(dataset.BitsAllocated)
    if allocated not in (8, 16, 32):
        raise IngestError(f"{allocated} bits per pixel; 8, 16 and 32 can be read")
    stored = int(dataset.get("BitsStored") or allocated)
    if not 0 < stored <= allocated:
        raise IngestError(f"BitsStored is {stored} but BitsAllocated {allocated}")
    shape = str(dataset.get("PresentationLUTShape") or "").strip()
    return PixelFormat(
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        bits_allocated=allocated,
        bits_stored=stored,
        signed=int(dataset.get("PixelRepresentation") or 0) == 1,
        inverted=shape == "INVERSE" if shape else photometric == "MONOCHROME1",
    )


def _frame(dataset: Any, file: DicomFile, index: int) -> Frame:
    groups = _functional_groups(dataset, index)
    if file.frames > 1 and not groups and "GridFrameOffsetVector" not in dataset:
        raise IngestError(f"{file.frames} frames without a position of each; not a volume")
    position = _numbers(groups, dataset, "PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = _numbers(
        groups, dataset, "PlaneOrientationSequence", "ImageOrientationPatient", 6
    )
    if position is None or orientation is None:
        raise IngestError("no ImagePositionPatient or ImageOrientationPatient: it has no place")
    spacing = _numbers(groups, dataset, "PixelMeasuresSequence", "PixelSpacing", 2)
    if spacing is None:
        raise IngestError("no PixelSpacing: the size of its pixels is not known")
    if "GridFrameOffsetVector" in dataset and not groups:
        position = _offset_position(dataset, index, position, orientation)
    thickness = _numbers(groups, dataset, "PixelMeasuresSequence", "SliceThickness", 1)
    slope, intercept = _scale(groups, dataset)
    content = _item(groups, "FrameContentSequence")
    return Frame(
        file=file,
        index=index,
        position=position,
        orientation=orientation,
        spacing_mm=(spacing[0], spacing[1]),
        thickness_mm=thickness[0] if thickness else None,
        slope=slope,
        intercept=intercept,
        stack=str(content.get("StackID") or "") if content is not None else "",
        keys=_keys(groups, dataset, file),
    )


def _functional_groups(dataset: Any, index: int) -> tuple[Any, ...]:
    """Return the functional groups of a frame: its own first, then those shared by all."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    return (*own[index : index + 1], *shared[:1])


def _item(groups: Sequence[Any], sequence: str) -> Any | None:
    for group in groups:
        items = group.get(sequence)
        if items:
            return items[0]
    return None


def _value(groups: Sequence[Any], dataset: Any, sequence: str, keyword: str) -> Any:
    item = _item(groups, sequence)
    found = item.get(keyword) if item is not None else None
    return found if found is not None else dataset.get(keyword)


def _numbers(
    groups: Sequence[Any], dataset: Any, sequence: str, keyword: str, count: int
) -> tuple[float, ...] | None:
    """Return `count` finite numbers from a functional group or the data set, None if absent."""
    value = _value(groups, dataset, sequence, keyword)
    if value is None or value == "":
        return None
    numbers = tuple(float(part) for part in (value if count > 1 else (value,)))
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise IngestError(f"{keyword} must be {count} finite numbers, got {numbers}")
    return numbers


def _scale(groups: Sequence[Any], dataset: Any) -> tuple[float, float]:
    name = "PixelValueTransformationSequence"
    slope = _numbers(groups, dataset, name, "RescaleSlope", 1)
    intercept = _numbers(groups, dataset, name, "RescaleIntercept", 1)
    dose = _numbers((), dataset, "", "DoseGridScaling", 1)
    if slope is None and dose is not None:
        slope = dose
    if slope is not None and slope[0] == 0:
        raise IngestError("RescaleSlope is 0: every voxel would have one value")
    return (slope[0] if slope else 1.0), (intercept[0] if intercept else 0.0)


def _offset_position(
    dataset: Any, index: int, position: Sequence[float], orientation: Sequence[float]
) -> tuple[float, ...]:
    """Return the position of a frame of a dose grid (PS3.3 C.8.8.3.2).

    Offsets count along the normal from the first frame, whether the vector starts at 0 or at the
    coordinate of the first plane.
    """
    offsets = [float(value) for value in dataset.GridFrameOffsetVector]
    if index >= len(offsets):
        raise IngestError(f"GridFrameOffsetVector has {len(offsets)} entries, too few")
    moved = np.asarray(position) + slice_normal(orientation) * (offsets[index] - offsets[0])
    return tuple(float(value) for value in moved)


def _keys(groups: Sequence[Any], dataset: Any, file: DicomFile) -> dict[str, Any]:
    """Return what may tell frames at one position apart."""

    def value(sequence: str, keyword: str, *others: str) -> str:
        found = _value(groups, dataset, sequence, keyword)
        for other in others:
            found = found if found not in (None, "") else dataset.get(other)
        return "" if found is None else str(found)

    frame_type = value("MRImageFrameTypeSequence", "FrameType") or str(file.image_type[2:])
    date = value("", "AcquisitionDate")
    return {
        "echo": value("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
        "kind": frame_type,
        "b_value": value("MRDiffusionSequence", "DiffusionBValue"),
        "temporal": value(
            "FrameContentSequence", "TemporalPositionIndex", "TemporalPositionIdentifier"
        ),
        "trigger": value(
            "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", "TriggerTime"
        ),
        "acquisition": value("FrameContentSequence", "FrameAcquisitionNumber", "AcquisitionNumber"),
        "time": value("FrameContentSequence", "FrameAcquisitionDateTime", "AcquisitionDateTime")
        or date + value("", "AcquisitionTime"),
        "content_time": value("", "ContentTime"),
    }


def _fields(dataset: Any, keep: Sequence[str]) -> dict[str, Any]:
    """Return the allowed and asked-for header fields, by keyword; None where absent.

    A number that cannot be read only describes the scan: it is left out, the scan is not refused.
    """
    fields = {name: _plain(dataset.get(name)) for name in (*ALLOWED_KEYWORDS, *keep)}
    for name in NUMBER_KEYWORDS:
        value = fields[name]
        try:
            fields[name] = None if value is None else float(value)
        except ValueError:
            fields[name] = None
    return fields


def _plain(value: Any) -> str | float | int | None:
    """Return a header value as a plain scalar; several values are joined as DICOM writes them."""
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Sequence):
        return "\\".join(str(part) for part in value)
    return str(value)
