"""Values of surfaces in the dress of a volume: CIFTI-2, and vectors of FreeSurfer.

Both are NIfTI by their first bytes. What they hold lies on the vertices of a surface that another
file describes: as a volume it would be a row of voxels that lie nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_INTENTS = range(3000, 3100)
"""Codes of NIfTI's intent that CIFTI has (nifti2.h: NIFTI_INTENT_CONNECTIVITY_...)."""

_DENSE = {3001: "dconn", 3002: "dtseries", 3006: "dscalar", 3007: "dlabel"}
"""Kinds whose rows are vertices and voxels."""

_ENDING = re.compile(
    r"\.(dconn|dtseries|dscalar|dlabel|dpconn|pdconn|pconn|ptseries|pscalar|plabel|pconnseries|"
    r"pconnscalar|dfan|fibertemp|dfibersamp)\.nii(\.gz)?$",
    re.IGNORECASE,
)
_FEWEST_VERTICES = 642
"""Those of the third icosahedron, the smallest surface that FreeSurfer makes averages on."""


def why_surface(name: str, header: Any, shape: Sequence[int]) -> str:
    """Return why a NIfTI header describes no volume but values of a surface; empty if it may.

    Parameters
    ----------
    name : str
        The file's name.
    header : nibabel.Nifti1Header
        As parsed.
    shape : sequence of int
        Sides that it states, of every axis.
    """
    intent = int(header["intent_code"])
    if intent in _INTENTS or (len(shape) > 5 and all(side == 1 for side in shape[:4])):
        return _cifti(name, intent in _DENSE or intent not in _INTENTS)
    sides = tuple(int(side) for side in header["dim"][1 : 1 + min(len(shape), 3)])
    if sides != tuple(shape[:3]):
        # nibabel knows the two ways in which FreeSurfer writes a row that is too long for NIfTI-1.
        return f"values of {shape[0]} vertices of a surface, as FreeSurfer writes them; no volume"
    return ""


def cifti_of_name(name: str) -> str:
    """Return what is said of a file whose name is that of CIFTI; empty for any other."""
    found = _ENDING.search(name)
    return _cifti(name, found[1].lower() in _DENSE.values()) if found else ""


def _cifti(name: str, dense: bool) -> str:
    if not dense:
        return "CIFTI-2: a row for each parcel of a surface; no volume"
    found = _ENDING.search(name)
    stem = name[: found.start()] if found else name.split(".nii")[0]
    return (
        "CIFTI-2: a row for each vertex and voxel; no volume. Its voxels, where it has any, become "
        f"one: wb_command -cifti-separate {name} COLUMN -volume-all {stem}_volume.nii.gz"
    )


def doubt_of_surface(shape: Sequence[int]) -> tuple[str, ...]:
    """Return a warning where a volume is one row of as many voxels as a surface has vertices."""
    if shape[0] >= _FEWEST_VERTICES and shape[1] == shape[2] == 1:
        return (f"a row of {shape[0]} voxels: values of a surface's vertices, and no volume?",)
    return ()
