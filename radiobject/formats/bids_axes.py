"""What a BIDS sidecar says of voxel axes and volumes, for a volume that is not as its file was.

Axes were turned, cropped or resampled since. What can be said of them as they are now is said so;
what cannot is left out, with a line that tells why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.formats.nifti_gradients import SAME_COSINE

_AXES = "ijk"
_DIRECTIONS = ("PhaseEncodingDirection", "SliceEncodingDirection")
_SLICES = "SliceEncodingDirection"
_TIMING = "SliceTiming"
_ALONG_PHASE = ("EffectiveEchoSpacing", "TotalReadoutTime")
"""Fields that say how far a field's error moves something, in voxels along the phase encoding."""
_PER_VOLUME = (
    "VolumeTiming", "FrameTimesStart", "FrameDuration", "DecayCorrectionFactor", "PromptRate",
    "SinglesRate", "RandomRate", "ScatterFraction", "RepetitionTimePreparation", "FlipAngle",
    "LabelingDuration", "PostLabelingDelay", "EchoTime",
)  # fmt: skip
"""Fields that hold a number, or one for each volume of a series."""
_SAME_STEP = 1e-3


def as_stored(
    sidecar: Mapping[str, Any],
    before: NDArray[np.float64] | None,
    after: NDArray[np.float64],
    shape: tuple[int, ...],
) -> tuple[dict[str, Any], list[str]]:
    """Return a sidecar for the axes and volumes that are there now, and what was left out of it.

    Parameters
    ----------
    sidecar : mapping
        As it stood beside the file.
    before : ndarray, shape (4, 4), optional
        Voxel index to RAS+ mm of the file; None where the axes are still its own.
    after : ndarray, shape (4, 4)
        The same now.
    shape : tuple of int
        (X, Y, Z[, T]) now.
    """
    fields, gone = dict(sidecar), list[str]()
    axes = _moved(after if before is None else before, after)
    steps = _steps(after) / _steps(after if before is None else before)[_order(axes)]

    def leave_out(name: str, why: str) -> None:
        if fields.pop(name, None) is not None:
            gone.append(f"{name} is left out: {why}")

    sliced = _axis(fields.get(_SLICES, "k" if _TIMING in fields else None))
    phase = _axis(fields.get("PhaseEncodingDirection"))
    as_it_was = before is None or np.allclose(before, after, rtol=0, atol=1e-4)
    if sliced is not None and _TIMING in fields and not as_it_was:
        now = axes[sliced[0]]
        times = fields[_TIMING]
        if now is None:
            leave_out(_TIMING, "the volume was resampled across its slices")
        elif not isinstance(times, list) or len(times) != shape[now[0]] or _moves(steps[now[0]]):
            leave_out(_TIMING, f"the slices are {shape[now[0]]} others now")
        elif now != (2, False) and _SLICES not in fields:
            fields[_SLICES] = "k"  # what it is without being said; turned below
    # Where nothing says which axis it is, it may be any of them.
    encoded = axes if phase is None else [axes[phase[0]]]
    for name in _ALONG_PHASE if any(a is None or _moves(steps[a[0]]) for a in encoded) else ():
        leave_out(name, "the volume was resampled along its phase encoding")
    for name in _DIRECTIONS:
        said = _axis(fields.get(name))
        if said is None:
            continue
        now = axes[said[0]]
        if now is None:
            leave_out(name, "the volume was resampled along other axes")
        else:
            fields[name] = _AXES[now[0]] + ("-" if now[1] != said[1] else "")
    volumes = shape[3] if len(shape) == 4 else 1
    for name in _PER_VOLUME:
        value = fields.get(name)
        if isinstance(value, list) and len(value) != volumes:
            leave_out(name, f"it is of {len(value)} volumes, and {volumes} are stored")
    return fields, gone


def of_so_many_volumes(texts: Mapping[str, str], shape: tuple[int, ...]) -> str | None:
    """Return why gradient files do not fit a series; None where they do."""
    volumes = shape[3] if len(shape) == 4 else 1
    for ending, text in texts.items():
        for line in filter(str.strip, text.splitlines()):
            if len(line.split()) != volumes:
                return f"{ending} is of {len(line.split())} volumes, and {volumes} are stored"
    return None


def _axis(said: Any) -> tuple[int, bool] | None:
    """Return the number of an axis that a field names, and whether it runs backwards."""
    if not isinstance(said, str) or not said or said[0] not in _AXES or said[1:] not in ("", "-"):
        return None
    return _AXES.index(said[0]), said.endswith("-")


def _moved(
    before: NDArray[np.float64], after: NDArray[np.float64]
) -> list[tuple[int, bool] | None]:
    """Return which axis each former one is now, and whether it was turned round."""
    cosines = (before[:3, :3] / _steps(before)).T @ (after[:3, :3] / _steps(after))
    found: list[tuple[int, bool] | None] = []
    for row in cosines:
        now = int(np.argmax(np.abs(row)))
        found.append((now, bool(row[now] < 0)) if abs(row[now]) > 1 - SAME_COSINE else None)
    return found


def _order(axes: list[tuple[int, bool] | None]) -> list[int]:
    """Return which former axis each one was; its own where none became it."""
    order = [0, 1, 2]
    for former, now in enumerate(axes):
        if now is not None:
            order[now[0]] = former
    return order


def _steps(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(affine[:3, :3], axis=0)
    return lengths


def _moves(ratio: float) -> bool:
    return bool(abs(ratio - 1) > _SAME_STEP)
