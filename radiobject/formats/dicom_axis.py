"""What the fourth axis of a DICOM series means, from the headers of its images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_frames import Frame
from radiobject.formats.dicom_keys import DAY_S
from radiobject.formats.time_axis import TimeAxis

_EVEN = 0.05
"""Largest relative deviation of a time step from their mean that is one step."""

_SHORTEST_VOLUME_MS = 250.0
"""A shorter repetition time is that between excitations, of which such a volume has many."""

_UNITS = {
    "b_value": "s/mm2", "time": "s", "frame_time": "s", "trigger": "ms", "inversion": "ms",
    "repetition": "ms", "flip": "deg", "phase": "%",
}  # fmt: skip


def time_axis(times: Sequence[Sequence[Frame]], key: str) -> TimeAxis:
    """Return what the fourth axis means.

    Parameters
    ----------
    times : sequence of sequence of Frame
        The slices of each volume.
    key : str
        The field of `FrameKeys` that told the volumes apart.
    """
    firsts = [volume[0].keys for volume in times]
    diffusion = [keys.b_value for keys in firsts]
    started = _starts(times)
    step = _step(started)
    repetition = firsts[0].repetition or 0.0
    if started is None and repetition >= _SHORTEST_VOLUME_MS and key not in (
        "repetition", "trigger", "phase",
    ):  # fmt: skip
        step = repetition / 1000
    if all(value is not None for value in diffusion) and len({k.diffusion for k in firsts}) > 1:
        values = tuple(float(value or 0.0) for value in diffusion)
        directions = tuple(_to_ras(keys.direction) for keys in firsts)
        return TimeAxis("b_value", "s/mm2", values, step, values, directions)
    if key in ("inversion", "flip", "repetition", "phase", "trigger", "frame_time"):
        stated = [[getattr(frame.keys, key) for frame in volume] for volume in times]
        if all(value is not None for volume in stated for value in volume):
            scale = 1e-3 if key == "frame_time" else 1.0
            means = tuple(scale * min(volume) for volume in stated)
            if key in ("trigger", "frame_time"):
                step = _step([value * (1e-3 if key == "trigger" else 1.0) for value in means])
            return TimeAxis(key, _UNITS[key], means, step)
    if started is not None:
        return TimeAxis("time", "s", tuple(value - started[0] for value in started), step)
    if step is not None:
        return TimeAxis("time", "s", tuple(step * index for index in range(len(times))), step)
    return TimeAxis("index", "", tuple(float(index) for index in range(len(times))))


def _starts(times: Sequence[Sequence[Frame]]) -> list[float] | None:
    """Return when each volume began, None unless every frame says so and each begins later."""
    stated = [[frame.keys.time for frame in volume] for volume in times]
    known = [value for volume in stated for value in volume if value is not None]
    if len(known) < sum(map(len, stated)) or len({value < DAY_S for value in known}) > 1:
        return None
    starts = [min(value for value in volume if value is not None) for volume in stated]
    return starts if all(np.diff(starts) > 0) else None


def check_one_day(frames: Sequence[Frame]) -> None:
    """Refuse images that were acquired more than a day apart: no series takes that long.

    Raises
    ------
    IngestError
        The message says how far they are apart, and of which files.
    """
    dated = [frame for frame in frames if frame.keys.time is not None and frame.keys.time >= DAY_S]
    if not dated:
        return
    first, last = (pick(dated, key=lambda frame: frame.keys.time or 0.0) for pick in (min, max))
    apart_s = (last.keys.time or 0.0) - (first.keys.time or 0.0)
    if apart_s > DAY_S:
        raise IngestError(
            f"{first.file.path.name} and {last.file.path.name} were acquired "
            f"{apart_s / DAY_S:.1f} days apart: they are no one series"
        )


def _step(starts: Sequence[float] | None) -> float | None:
    if starts is None or len(starts) < 2:
        return None
    gaps = np.diff(starts)
    mean = float(gaps.mean())
    return mean if mean > 0 and float(np.abs(gaps - mean).max()) <= _EVEN * mean else None


def _to_ras(
    direction: tuple[float, float, float] | None,
) -> tuple[float, float, float] | None:
    return None if direction is None else (-direction[0], -direction[1], direction[2])


def check_one_kind(volume: Sequence[Frame], number: int) -> None:
    """Refuse a volume of which not all slices have one b-value, direction, kind and echo.

    Raises
    ------
    IngestError
        The message says what differs, and in which files.
    """
    first = volume[0]
    for name in ("diffusion", "kind", "component", "echo", "temporal", "inversion", "flip"):
        expected = getattr(first.keys, name)
        for frame in volume:
            if getattr(frame.keys, name) != expected:
                raise IngestError(
                    f"volume {number} in the order of InstanceNumber would mix {name} "
                    f"{expected!r} ({first.file.path.name}) and {getattr(frame.keys, name)!r} "
                    f"({frame.file.path.name})"
                )
