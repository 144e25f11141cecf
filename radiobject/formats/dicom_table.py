"""A row per DICOM volume: what a scan shows, what a selection asks for, what a plan lists."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from radiobject.formats.dicom_series import DicomSeries
from radiobject.formats.report import ReportLine, Verdict
from radiobject.geometry.orientation import spacing_mm

_TEXT, _WHOLE, _NUMBER = np.dtype("<U0"), np.dtype(np.int64), np.dtype(np.float64)

COLUMNS: dict[str, np.dtype] = {
    "volume": _TEXT, "patient": _TEXT, "study": _TEXT, "study_order": _WHOLE,
    "series_number": _WHOLE, "modality": _TEXT, "description": _TEXT, "kind": _TEXT,
    "image_type": _TEXT, "echo_time": _NUMBER, "repetition_time": _NUMBER,
    "inversion_time": _NUMBER, "flip_angle": _NUMBER, "b_values": _TEXT, "kvp": _NUMBER,
    "corrected_image": _TEXT, "variant": _TEXT, "kernel": _TEXT,
    "plane": _TEXT, "stack": _TEXT, "units": _TEXT, "columns": _WHOLE, "rows": _WHOLE,
    "slices": _WHOLE, "times": _WHOLE, "spacing_x": _NUMBER, "spacing_y": _NUMBER,
    "spacing_z": _NUMBER, "files": _WHOLE, "verdict": _TEXT, "reason": _TEXT, "source": _TEXT,
}  # fmt: skip
"""What can be asked of a volume before it is read, with its type; ``kind`` is "M", "P" or the like
where it is known, and the third value of the image type elsewhere."""

Row = dict[str, Any]


def volume_key(series: DicomSeries) -> str:
    """Return a name for a volume that stays the same while its files do: 16 hexadecimal digits."""
    first = series.frames[0]
    parts = (series.folder, first.file.path.name, first.index, series.shape, first.keys.kind)
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def series_row(
    series: DicomSeries, line: ReportLine, study_order: int, hashed: Callable[[str], str]
) -> Row:
    """Return the row of a volume; `hashed` replaces what identifies a patient or a study."""
    keys, fields, identity = series.keys, series.fields, series.identity
    first = series.frames[0]
    x, y, z = spacing_mm(series.affine)
    b_values = series.axis.b_values if series.axis is not None else ()
    if not b_values and keys.b_value is not None:
        b_values = (keys.b_value,)
    number = identity.number
    return {
        "volume": volume_key(series),
        "patient": hashed(identity.patient) if identity.patient else None,
        "study": hashed(identity.study_uid) if identity.study_uid else None,
        "study_order": study_order,
        "series_number": int(number) if number.removeprefix("-").isdecimal() else None,
        "modality": identity.modality,
        "description": str(fields["SeriesDescription"] or ""),
        "kind": series.kind,
        "image_type": keys.kind,
        "echo_time": keys.echo,
        "repetition_time": keys.repetition,
        "inversion_time": keys.inversion,
        "flip_angle": keys.flip,
        "b_values": " ".join(f"{value:g}" for value in dict.fromkeys(b_values)),
        "kvp": keys.kvp,
        "corrected_image": keys.corrected,
        "variant": keys.variant,
        "kernel": first.file.agreement["ConvolutionKernel"],
        "plane": series.acquisition_plane,
        "stack": first.stack,
        "units": first.units,
        "columns": series.shape[0],
        "rows": series.shape[1],
        "slices": series.shape[2],
        "times": series.shape[3] if len(series.shape) == 4 else 1,
        "spacing_x": x,
        "spacing_y": y,
        "spacing_z": z,
        "files": line.files,
        "verdict": line.verdict.value,
        "reason": "; ".join(line.reasons),
        "source": line.source,
    }


def refused_row(line: ReportLine) -> Row:
    """Return the row of what is no volume."""
    known = {
        "description": line.description,
        "files": line.files,
        "verdict": "left out" if line.harmless else Verdict.REFUSED.value,
        "reason": "; ".join(line.reasons),
        "source": line.source,
    }
    return dict.fromkeys(COLUMNS) | known


def study_orders(series: Sequence[DicomSeries], owners: Sequence[str]) -> list[int]:
    """Return which study of its owner each volume is from: 1 for the earliest.

    Studies are ordered by StudyDate and StudyTime, those without a date last.
    """
    studies: dict[str, dict[str, float]] = {}
    for one, owner in zip(series, owners, strict=True):
        started = one.frames[0].file.study_time
        own = studies.setdefault(owner, {})
        known = own.get(one.identity.study_uid, float("inf"))
        own[one.identity.study_uid] = min(known, float("inf") if started is None else started)
    ranks = {
        owner: {uid: rank for rank, uid in enumerate(sorted(own, key=lambda u: (own[u], u)), 1)}
        for owner, own in studies.items()
    }
    return [ranks[owner][one.identity.study_uid] for one, owner in zip(series, owners, strict=True)]
