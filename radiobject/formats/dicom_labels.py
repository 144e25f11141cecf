"""Segmentations and contours as label volumes on the grid of the images they were drawn on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_classes import CONTOUR_CLASS, LABELMAP_CLASS, SEGMENTATION_CLASS
from radiobject.formats.dicom_header import SeriesIdentity, text_of
from radiobject.formats.dicom_parse import Fields, HeaderError, Wanted, read_header
from radiobject.formats.dicom_rtstruct import load_rtstruct
from radiobject.formats.dicom_seg import load_dicom_seg
from radiobject.formats.dicom_series import DicomSeries
from radiobject.formats.image import LoadedImage
from radiobject.geometry.orientation import (
    OrientationInfo,
    orientation_info_to_metadata,
    reorient_to_canonical,
)

LABEL_KINDS: Mapping[str, tuple[str, ...]] = {
    "seg": (SEGMENTATION_CLASS, LABELMAP_CLASS),
    "rtstruct": (CONTOUR_CLASS,),
}
"""SOP classes of each kind of object that becomes labels."""

_REFERENCES = (
    "PatientID", "SeriesDescription", "ReferencedSeriesSequence", "SeriesInstanceUID",
    "ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence",
    "RTReferencedSeriesSequence", "ContourImageSequence", "ReferencedInstanceSequence",
    "ReferencedSOPInstanceUID",
)  # fmt: skip


@dataclass(frozen=True)
class DicomLabels:
    """An object with labels, and the series that it was drawn on.

    Parameters
    ----------
    path : Path
        The segmentation or structure set.
    kind : {"seg", "rtstruct"}
        What it is.
    series : DicomSeries
        The images whose grid the labels get.
    named : str, optional
        Pattern that the names of the segments to take must match; all by default.
    folder : str
        Where the object is, relative to what was scanned.
    description : str
        For a report.
    """

    path: Path
    kind: str
    series: DicomSeries
    named: str | None = None
    folder: str = ""
    description: str = ""

    warnings: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    @property
    def identity(self) -> SeriesIdentity:
        """Whose images the labels belong to."""
        return self.series.identity

    @property
    def shape(self) -> tuple[int, ...]:
        """(columns, rows, slices) of the images."""
        return self.series.shape[:3]

    def load(self, reorient: str | None = None) -> LoadedImage:
        """Return the labels on the grid of the images; errors as the readers'."""
        load = load_dicom_seg if self.kind == "seg" else load_rtstruct
        loaded = load(self.path, reference=self.series, named=self.named)
        if reorient is None:
            return loaded
        data, affine = reorient_to_canonical(loaded.data, loaded.affine, reorient)
        orientation = OrientationInfo.from_affine(affine, "dicom_iop", "header")
        metadata = loaded.metadata | orientation_info_to_metadata(orientation, loaded.affine)
        return replace(loaded, data=data, affine=affine, metadata=metadata)


def labels_of(
    path: Path, kind: str, series: Sequence[DicomSeries], named: str | None = None
) -> DicomLabels:
    """Return the labels of an object with the series that it refers to.

    Raises
    ------
    IngestError
        If that series is not among those given, or the object does not name it.
    """
    try:
        with path.open("rb") as stream:
            fields = read_header(stream, Wanted.of(_REFERENCES)).fields
    except HeaderError as error:
        raise IngestError(f"damaged DICOM file ({error})") from error
    wanted, instances = _references(fields)
    found = [one for one in series if one.identity.series_uid in wanted]
    if not found:
        raise IngestError(
            "the series that it was drawn on is not among those read"
            if wanted
            else "it does not say which series it was drawn on"
        )
    return DicomLabels(path, kind, _one_of(found, instances, text_of(fields, "PatientID")), named)


def _one_of(found: Sequence[DicomSeries], instances: set[str], patient: str) -> DicomSeries:
    """Return the series that holds the most of the images an object refers to.

    A SeriesInstanceUID may be that of several patients' series.
    """
    own = [one for one in found if not patient or one.identity.patient in (patient, "")]
    if not own:
        raise IngestError("the series that it was drawn on is of another patient")
    held = [sum(frame.file.sop_uid in instances for frame in one.frames) for one in own]
    best = [one for one, count in zip(own, held, strict=True) if count == max(held)]
    if len({(one.shape[:3], one.affine.tobytes(), one.identity) for one in best}) > 1:
        raise IngestError(
            f"it was drawn on one of {len(best)} series with one SeriesInstanceUID, and does not "
            "say on which"
        )
    return best[0]


def _references(fields: Fields) -> tuple[set[str], set[str]]:
    """Return the series and the instances that an object refers to."""
    series = {
        str(item.get("SeriesInstanceUID"))
        for item in (
            *fields.get("ReferencedSeriesSequence", ()),
            *_inside(fields, "ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence",
                     "RTReferencedSeriesSequence"),
        )
        if item.get("SeriesInstanceUID")
    }  # fmt: skip
    items = (
        *_inside(fields, "ReferencedSeriesSequence", "ReferencedInstanceSequence"),
        *_inside(fields, "ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence",
                 "RTReferencedSeriesSequence", "ContourImageSequence"),
    )  # fmt: skip
    return series, {str(item.get("ReferencedSOPInstanceUID")) for item in items}


def _inside(fields: Fields, *sequences: str) -> Iterable[Any]:
    items: list[Any] = [fields]
    for name in sequences:
        items = [inner for item in items for inner in item.get(name) or ()]
    return items
