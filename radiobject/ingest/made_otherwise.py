"""Stored volumes that other options made of the same files: they stay as they are, and it is said.

What was made of a file is known by the file's digest, which says nothing of the options.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radiobject.exceptions import RadiObjectError
from radiobject.formats.dicom import only_series
from radiobject.formats.dicom_labels import DicomLabels
from radiobject.formats.dicom_options import DicomOptions
from radiobject.formats.dicom_series import DicomSeries
from radiobject.formats.discovery import ImageFormat
from radiobject.formats.nifti import extract_nifti_metadata
from radiobject.formats.readers import suffix_of
from radiobject.formats.report import ReportLine, Verdict
from radiobject.geometry.orientation import axis_codes
from radiobject.ingest.plan import PlannedImage
from radiobject.storage.schema.volume_rows import AXCODES, SIDES

_UNITS, _TIMES = "units", SIDES[3]
TELLING_OF_OPTIONS = (AXCODES, _TIMES, _UNITS)
"""Columns of the obs table that tell with which options a volume was made."""
_SUV, _SUV_IN_FILE, _PET = "g/ml", "GML", "PT"
_NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True)
class VoxelOptions:
    """What is asked for that changes the voxels made of a file.

    Parameters
    ----------
    reorient : str, optional
        Codes of the axes to reorient to; None keeps the file's.
    dicom : DicomOptions
        How DICOM is read.
    """

    reorient: str | None = None
    dicom: DicomOptions = field(default_factory=DicomOptions)

    def not_applied(self, image: PlannedImage, stored: Mapping[str, Any]) -> tuple[str, ...]:
        """Return in words how a stored volume differs from what would be made of its file now.

        Parameters
        ----------
        image : PlannedImage
            The file.
        stored : mapping
            The volume's values of `TELLING_OF_OPTIONS`.
        """
        try:
            return tuple(self._differences(image, stored))
        except (RadiObjectError, OSError):
            return ()  # It is the volume's file, unchanged, and now refused: nothing would be made.

    def _differences(self, image: PlannedImage, stored: Mapping[str, Any]) -> Iterator[str]:
        series = self._series_of(image)
        made = stored.get(AXCODES) or ""
        wanted = self._axes(image, series)
        if made and wanted and made != wanted:
            yield f"reorient: its axes are {made}, and would be {wanted} now"
        if series is None or isinstance(image.source, DicomLabels):
            return
        options = series.options | self.dicom
        units = stored.get(_UNITS) or ""
        if series.identity.modality == _PET and series.frames[0].units != _SUV_IN_FILE:
            if options.suv is not None and units != _SUV:
                yield f"suv={options.suv!r}: its values are in {units or 'the unit of its file'}"
            elif options.suv is None and units == _SUV:
                yield f"suv=None: its values are SUV, in {_SUV}"
        times = series.shape[3] if len(series.shape) == 4 else 0
        if int(stored.get(_TIMES) or 0) != times:
            yield (
                f"drop_aborted={options.drop_aborted}: it has {stored.get(_TIMES) or 0} time "
                f"points, and would have {times} now"
            )
        if options.clip_padding and any(f.file.pixels.padding is not None for f in series.frames):
            yield "clip_padding=True: no table says whether it was stored with that"

    def _series_of(self, image: PlannedImage) -> DicomSeries | None:
        source = image.source
        if isinstance(source, DicomLabels):
            return source.series
        if isinstance(source, Path):
            is_dicom = image.format is ImageFormat.DICOM
            return only_series(source, options=self.dicom) if is_dicom else None
        return source

    def _axes(self, image: PlannedImage, series: DicomSeries | None) -> str:
        """Return the codes that the axes would get; empty where only loading it would tell."""
        if self.reorient is not None:
            return self.reorient.upper()
        if series is not None:
            return "".join(axis_codes(series.affine))
        source = image.source
        if image.part is None and isinstance(source, Path) and suffix_of(source).lower() in _NIFTI:
            return extract_nifti_metadata(source).axcodes
        return ""


def remarks(lines: Iterable[ReportLine]) -> list[str]:
    """Return a remark for each way in which stored volumes are not as they would be made now."""
    found: dict[str, list[str]] = {}
    for line in lines:
        for why in line.reasons[1:] if line.verdict is Verdict.STORED else ():
            found.setdefault(why, []).append(line.source)
    return [
        f"{len(sources)} images stay as they were stored by then, such as {sources[0]}; not "
        f"applied is {why}; exists='replace' makes all anew"
        for why, sources in found.items()
    ]
