"""What a header says about a scan, as values for the obs table.

Only the fields named here leave a file: no patient's name, no date of birth, no folder.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from radiobject._types import OBS_ID, SUBJECT_ID
from radiobject.geometry.orientation import OrientationSource

KNOWN_SERIES_TYPES: frozenset[str] = frozenset(
    {
        "T1w", "T2w", "T1rho", "T1map", "T2map", "T2star", "FLAIR", "FLASH", "PD", "PDmap", "PDT2",
        "inplaneT1", "inplaneT2", "angio", "T1gd", "bold", "cbv", "phase", "dwi", "CT", "HRCT",
        "CTA", "CTPA", "phasediff", "magnitude", "fieldmap", "epi",
    }
)  # fmt: skip
"""BIDS suffixes and common acquisition names that `infer_series_type` returns."""

_BY_LOWER_CASE = {name.lower(): name for name in KNOWN_SERIES_TYPES}

_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"t1 ?(ce|c|gd|post|contrast)|(ce|gd)t1", "T1gd"),
    (r"(t2 ?)?flair", "FLAIR"),
    (r"t2 ?(star|\*)", "T2star"),
    (r"t1( ?w| ?weighted)?|mp ?rage|bravo|spgr", "T1w"),
    (r"t2( ?w| ?weighted)?", "T2w"),
    (r"ct ?pa", "CTPA"),
    (r"ct ?a|ct angio(graphy)?", "CTA"),
    (r"hr ?ct", "HRCT"),
    (r"ct", "CT"),
    (r"dwi|dti|diffusion|b1000", "dwi"),
    (r"bold|fmri|rest(ing)?", "bold"),
    (r"pd( ?w)?|proton density", "PD"),
    (r"tof|mra|angio", "angio"),
)


@dataclass(frozen=True)
class NiftiMetadata:
    """The obs columns of a NIfTI file, as api names and types.

    ``voxel_spacing`` is "(x, y, z)" in mm, ``dimensions`` "(x, y, z[, t])" in voxels,
    ``affine_json`` the (4, 4) affine to RAS+ mm, ``source_path`` the file name without its folder.
    """

    voxel_spacing: str
    dimensions: str
    datatype: int
    bitpix: int
    scl_slope: float
    scl_inter: float
    xyzt_units: int
    spatial_units: str
    qform_code: int
    sform_code: int
    axcodes: str
    affine_json: str
    orientation_source: OrientationSource
    source_path: str

    @property
    def spatial_dimensions(self) -> tuple[int, int, int]:
        """(X, Y, Z) in voxels."""
        x, y, z = _integers(self.dimensions)[:3]
        return x, y, z

    @property
    def is_4d(self) -> bool:
        """True when there is a time axis."""
        return len(_integers(self.dimensions)) == 4

    def to_obs_dict(self, obs_id: str, obs_subject_id: str, series_type: str) -> dict[str, Any]:
        """Return one row of the obs table."""
        row: dict[str, Any] = {OBS_ID: obs_id, SUBJECT_ID: obs_subject_id}
        return row | {"series_type": series_type} | asdict(self)


@dataclass(frozen=True)
class DicomMetadata:
    """The obs columns of a DICOM series, as api names and types.

    ``voxel_spacing`` is (PixelSpacing[0], PixelSpacing[1], SliceThickness) in mm as the header
    states them, ``dimensions`` (rows, columns, number of files). The distance between slices that
    was measured from their positions is in the volume's affine, not here. A number that the
    header lacks is None.
    """

    voxel_spacing: str
    dimensions: str
    modality: str
    series_description: str
    kvp: float | None
    exposure: float | None
    repetition_time: float | None
    echo_time: float | None
    magnetic_field_strength: float | None
    axcodes: str
    affine_json: str
    orientation_source: OrientationSource
    source_path: str

    def to_obs_dict(self, obs_id: str, obs_subject_id: str) -> dict[str, Any]:
        """Return one row of the obs table; absent numbers are NaN."""
        row: dict[str, Any] = {OBS_ID: obs_id, SUBJECT_ID: obs_subject_id}
        return row | {
            name: float("nan") if value is None else value for name, value in asdict(self).items()
        }


def infer_series_type(path: str | Path, header: Any | None = None) -> str:
    """Return what kind of scan a file holds, by its name, or "unknown".

    The BIDS suffix (the last part after an underscore) wins, then words of the file name, then
    the NIfTI header's ``descrip`` when a header is given.
    """
    stem = re.sub(r"\.(nii|img|hdr|dcm)(\.gz)?$", "", Path(path).name, flags=re.IGNORECASE)
    suffix = _BY_LOWER_CASE.get(stem.rsplit("_", 1)[-1].lower())
    if suffix is not None:
        return suffix
    found = _by_words(stem)
    if found == "unknown" and header is not None:
        found = _by_words(_description(header))
    return found


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _by_words(text: str) -> str:
    words = " ".join(re.findall(r"[a-z0-9*]+", text.lower()))
    for pattern, kind in _PATTERNS:
        if re.search(rf"(?:^| )(?:{pattern})(?= |$)", words):
            return kind
    return "unknown"


def _description(header: Any) -> str:
    try:
        value = header["descrip"]
    except (KeyError, TypeError, ValueError):
        return ""
    content = value.item() if hasattr(value, "item") else value
    return content.decode("latin-1") if isinstance(content, bytes) else str(content)
