"""Where each frame of a DICOM file lies in the patient, and what tells it from its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_geometry import slice_normal
from radiobject.formats.dicom_header import (
    DEFLATED,
    NATIVE_SYNTAXES,
    DicomFile,
    NotDicomError,
    OtherObjectError,
    RefusedFileError,
    describe,
    element_header_bytes,
    file_meta,
    header_fields,
    parse_errors,
    pixel_format,
)
from radiobject.formats.dicom_mosaic import CSA_TAGS, Window, mosaic_tiles
from radiobject.formats.discovery import DICOM_HEAD_BYTES, starts_like_dicom
from radiobject.formats.engines import pydicom
from radiobject.formats.guards import DEFAULT_LIMITS, Limits
from radiobject.formats.privacy import ALLOWED_KEYWORDS

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
)  # fmt: skip

_SCOUT_TYPES = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM"})
_FLOAT_PIXELS = (b"\xe0\x7f\x08\x00", b"\xe0\x7f\x09\x00")
"""Tags of Float and Double Float Pixel Data, which are little-endian in every syntax in use."""
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class Frame:
    """One slice: a frame of a file and its place in the patient, LPS+ mm.

    ``keys`` tells frames at one position apart: echo, kind, temporal position and so on.
    ``window`` is the slice's part of the frame, None for the whole of it.
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
    window: Window | None = None

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
    tags: list[Any] = [*_TAGS, *CSA_TAGS, *ALLOWED_KEYWORDS, *keep]
    series, description = "", ""
    try:
        with path.open("rb") as stream:
            preamble = starts_like_dicom(stream.read(DICOM_HEAD_BYTES))
            if not preamble and not path.name.lower().endswith((".dcm", ".ima")):
                raise NotDicomError("not a DICOM file")
            stream.seek(0)
            dataset = pydicom.dcmread(
                stream, stop_before_pixels=True, specific_tags=tags, force=True
            )
            series = str(dataset.get("SeriesInstanceUID") or "")
            description = describe(dataset)
            return _frames(dataset, path, stream, limits, keep)
    except NotDicomError:
        raise
    except IngestError as error:
        harmless = isinstance(error, OtherObjectError)
        raise RefusedFileError(str(error), series, description, harmless) from error
    except parse_errors() as error:
        raise RefusedFileError(f"damaged DICOM file ({error})", series, description) from error


def _frames(
    dataset: Any, path: Path, stream: BinaryIO, limits: Limits, keep: Sequence[str]
) -> list[Frame]:
    _refuse_other_objects(dataset)
    syntax = file_meta(dataset, "TransferSyntaxUID")
    offset = None if syntax == DEFLATED else stream.tell()
    if offset is not None and stream.read(4) in _FLOAT_PIXELS:
        raise IngestError("pixels that are floating-point numbers; convert the series first")
    pixels = pixel_format(dataset)
    count = max(int(dataset.get("NumberOfFrames") or 1), 1)
    limits.check_volume(path.name, (pixels.columns, pixels.rows, count), pixels.dtype.itemsize)
    limits.check_frame(path.name, pixels.rows, pixels.columns, pixels.dtype.itemsize)
    if syntax in NATIVE_SYNTAXES and offset is not None:
        _check_length(path, offset + element_header_bytes(syntax), pixels.frame_bytes * count)
    file = DicomFile(
        path=path,
        series_uid=str(dataset.SeriesInstanceUID),
        syntax=syntax,
        pixels=pixels,
        frames=count,
        pixel_offset=offset,
        fields=header_fields(dataset, keep),
        image_type=_image_type(dataset),
    )
    frames = [_frame(dataset, file, index) for index in range(count)]
    return _mosaic_slices(dataset, frames[0]) if "MOSAIC" in file.image_type else frames


def _mosaic_slices(dataset: Any, frame: Frame) -> list[Frame]:
    step = _numbers((), dataset, "", "SpacingBetweenSlices", 1)
    tiles = mosaic_tiles(
        dataset,
        frame.position,
        frame.orientation,
        frame.spacing_mm,
        step[0] if step else frame.thickness_mm,
    )
    return [replace(frame, position=tile.position, window=tile.window) for tile in tiles]


def _refuse_other_objects(dataset: Any) -> None:
    """Refuse what is no image of a slice, before anything else is asked of it."""
    sop_class = str(dataset.get("SOPClassUID") or file_meta(dataset, "MediaStorageSOPClassUID"))
    if sop_class == _MEDIA_DIRECTORY:
        raise NotDicomError("a DICOMDIR")
    if not sop_class and "SeriesInstanceUID" not in dataset:
        raise NotDicomError("not a DICOM file")
    if sop_class == _SEGMENTATION:
        raise OtherObjectError("a segmentation object; read it with load_dicom_seg")
    if not dataset.get("SeriesInstanceUID"):
        raise IngestError("no SeriesInstanceUID: the series it belongs to cannot be known")
    if _SCOUT_TYPES & set(_image_type(dataset)):
        raise OtherObjectError("a scout (localizer) image, not part of a volume")


def _image_type(dataset: Any) -> tuple[str, ...]:
    value = dataset.get("ImageType") or ()
    return tuple(str(part).upper() for part in ([value] if isinstance(value, str) else value))


def _check_length(path: Path, start: int, needed: int) -> None:
    there = max(path.stat().st_size - start, 0)
    if there < needed:
        raise IngestError(
            f"cut short: {needed:,} bytes of pixels are declared, at most {there:,} are there"
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
