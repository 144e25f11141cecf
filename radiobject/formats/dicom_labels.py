"""Segmentations and contours as label volumes on the grid of the images they were drawn on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_classes import CONTOUR_CLASS, LABELMAP_CLASS, SEGMENTATION_CLASS
from radiobject.formats.dicom_elements import Fields, HeaderError, Wanted
from radiobject.formats.dicom_header import SeriesIdentity, text_of
from radiobject.formats.dicom_parse import read_header
from radiobject.formats.dicom_rtstruct import load_rtstruct
from radiobject.formats.dicom_seg import load_dicom_seg
from radiobject.formats.dicom_series import DicomSeries
from radiobject.formats.image import LoadedImage, Scalar
from radiobject.formats.pattern import compiled
from radiobject.geometry.orientation import (
    OrientationInfo,
    orientation_info_to_metadata,
    reorient_to_canonical,
)

STRUCTURES = "structures"
"""The obs column of the names of what is labelled."""

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

_NAMED_IN = {
    "seg": ("SegmentSequence", "SegmentNumber", "SegmentLabel"),
    "rtstruct": ("StructureSetROISequence", "ROINumber", "ROIName"),
}
"""Where each kind of object lists its labels: the sequence, the number and the name."""
_NAMES = tuple(keyword for one in _NAMED_IN.values() for keyword in one)


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
    values : mapping of int to int
        The value that each number of the object gets; its own where it is not there.
    """

    path: Path
    kind: str
    series: DicomSeries
    named: str | None = None
    folder: str = ""
    description: str = ""

    warnings: tuple[str, ...] = ()
    values: Mapping[int, int] = field(default_factory=dict)

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

    def names(self) -> dict[int, str]:
        """Return what the object calls the labels that are to be taken, by number."""
        fields = _header(self.path, _NAMES)
        sequence, number, name = _NAMED_IN[self.kind]
        pattern = None if self.named is None else compiled(self.named)
        found = {item.get(number): text_of(item, name) for item in fields.get(sequence) or ()}
        return {
            key: text or f"label {key}"
            for key, text in found.items()
            if isinstance(key, int) and (pattern is None or pattern.search(text))
        }

    def columns(self) -> dict[str, Scalar]:
        """Return the obs column that tells labels of one object apart: the names taken, as JSON.

        Raises
        ------
        IngestError
            If the object is damaged.
        """
        return {STRUCTURES: json.dumps(sorted(self.names().values()), ensure_ascii=False)}

    def load(self, reorient: str | None = None) -> LoadedImage:
        """Return the labels on the grid of the images; errors as the readers'."""
        load = load_dicom_seg if self.kind == "seg" else load_rtstruct
        loaded = load(self.path, reference=self.series, named=self.named)
        loaded = replace(loaded, columns=loaded.columns | self.columns())
        if self.values:
            loaded = _revalued(loaded, self.values)
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
    fields = _header(path, _REFERENCES)
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


def _header(path: Path, keywords: tuple[str, ...]) -> Fields:
    try:
        with path.open("rb") as stream:
            return read_header(stream, Wanted.of(keywords)).fields
    except HeaderError as error:
        raise IngestError(f"damaged DICOM file ({error})") from error


def _revalued(loaded: LoadedImage, values: Mapping[int, int]) -> LoadedImage:
    """Return labels with other values, and with what these mean."""
    highest = max(int(loaded.data.max(initial=0)), *values, *values.values())
    table = np.arange(highest + 1, dtype=np.uint8 if highest < 256 else np.uint16)
    table[list(values)] = list(values.values())
    meaning = json.loads(str(loaded.metadata["segments"]))
    renumbered = {str(values.get(int(n), int(n))): one for n, one in meaning.items()}
    metadata = loaded.metadata | {"segments": json.dumps(renumbered)}
    return replace(loaded, data=table[loaded.data], metadata=metadata)


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
