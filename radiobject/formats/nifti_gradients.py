"""The fourth axis on its way out: time step and unit in the header, gradients beside the file.

Gradients are written as FSL reads them: directions along the voxel axes, the first one turned
over where the axes are right-handed in RAS+ ("FDT user guide", bvecs).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.formats.time_axis import TIME_AXIS, TimeAxis
from radiobject.geometry.orientation import ORIGINAL_AFFINE

SAME_COSINE = 1e-6
_SECONDS = 8
_SPACE = 7


def axis_of(metadata: Mapping[str, Any], shape: Sequence[int]) -> TimeAxis | None:
    """Return what the metadata say of the fourth axis, if it still has as many volumes."""
    text = metadata.get(TIME_AXIS)
    if not text or len(shape) != 4:
        return None
    axis = TimeAxis.from_json(str(text))
    return axis if len(axis.values) == shape[3] else None


def set_time_step(header: Any, axis: TimeAxis | None) -> None:
    """State the time from one volume to the next, in seconds, where it is known."""
    if axis is None or axis.step_s is None:
        return
    header["pixdim"][4] = axis.step_s
    header["xyzt_units"] = (int(header["xyzt_units"]) & _SPACE) | _SECONDS


def write_gradients(path: Path, axis: TimeAxis | None, affine: NDArray[np.floating]) -> list[Path]:
    """Write ``.bval`` beside a NIfTI file of a diffusion series, ``.bvec`` where it is known."""
    if axis is None or not axis.b_values:
        return []
    stem = path.name[: path.name.lower().rindex(".nii")]
    steps = np.asarray(affine, dtype=np.float64)[:3, :3]
    axes = steps / np.linalg.norm(steps, axis=0)
    vectors = np.array([one or (0.0, 0.0, 0.0) for one in axis.directions]).T
    along = np.linalg.solve(axes, vectors)
    if np.linalg.det(axes) > 0:
        along[0] *= -1
    b_values, directions = path.with_name(f"{stem}.bval"), path.with_name(f"{stem}.bvec")
    b_values.write_text(_line(axis.b_values), encoding="ascii", newline="\n")
    if all(one is None for one in axis.directions):
        return [b_values]
    directions.write_text("".join(map(_line, along)), encoding="ascii", newline="\n")
    return [b_values, directions]


def file_affine(metadata: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """Return the affine of the file that a volume was read from, before any axis was moved."""
    text = metadata.get(ORIGINAL_AFFINE) or metadata.get("orientation_affine")
    return None if not text else np.array(json.loads(str(text)), dtype=np.float64)


def same_directions(first: NDArray[np.floating], second: NDArray[np.floating]) -> bool:
    """Return whether the axes of two affines point the same way, however long their steps."""
    one, other = (
        matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (first, second)
    )
    return bool(np.allclose(one, other, rtol=0, atol=SAME_COSINE))


def gradient_text(
    text: str, original: NDArray[np.floating], affine: NDArray[np.floating]
) -> str | None:
    """Return the directions of a ``.bvec`` along the axes of another affine.

    Parameters
    ----------
    text : str
        Three lines, as FSL reads them, along the axes of `original`.
    original, affine : ndarray, shape (4, 4)
        Voxel index to RAS+ mm before and after the axes were turned.

    Returns
    -------
    str or None
        None if the text holds no directions.
    """
    try:
        along = np.array([[float(part) for part in line.split()] for line in text.splitlines()
                          if line.strip()])  # fmt: skip
    except ValueError:
        return None
    if along.ndim != 2 or along.shape[0] != 3:
        return None
    for matrix, out in ((original, True), (affine, False)):
        axes = np.asarray(matrix, dtype=np.float64)[:3, :3]
        axes = axes / np.linalg.norm(axes, axis=0)
        turned = np.diag([-1.0 if np.linalg.det(axes) > 0 else 1.0, 1.0, 1.0])
        along = axes @ turned @ along if out else turned @ np.linalg.solve(axes, along)
    return "".join(map(_line, along.tolist()))


def _line(values: Sequence[float]) -> str:
    return " ".join(f"{float(value) + 0.0:.9g}" for value in values) + "\n"
