"""What the fourth axis of a volume means: values, unit, gradient directions, step."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

TIME_AXIS = "time_axis"
"""Key of a volume's metadata under which its fourth axis is described, as JSON."""


@dataclass(frozen=True)
class TimeAxis:
    """The fourth axis of a volume, a value per volume along it.

    Parameters
    ----------
    kind : str
        What differs: "b_value", "time", "trigger", "frame_time", "inversion", "flip",
        "repetition", "phase", or "index" where only the order is known.
    unit : str
        Of `values`: "s/mm2", "s", "ms", "deg", "%", or empty for an index.
    values : tuple of float
        One per volume, in order.
    step_s : float, optional
        Time from one volume to the next in seconds, where it is even.
    b_values : tuple of float
        s/mm2, one per volume; empty where it is no diffusion series.
    directions : tuple
        Per volume the unit vector of the gradient in RAS+ coordinates of the patient, or None.
    """

    kind: str
    unit: str
    values: tuple[float, ...]
    step_s: float | None = None
    b_values: tuple[float, ...] = ()
    directions: tuple[tuple[float, float, float] | None, ...] = ()

    def to_json(self) -> str:
        """Return the axis as it is kept in a volume's metadata."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TimeAxis:
        """Return the axis from a volume's metadata."""
        read = json.loads(text)
        directions = tuple(None if one is None else tuple(one) for one in read["directions"])
        return cls(
            read["kind"], read["unit"], tuple(read["values"]), read["step_s"],
            tuple(read["b_values"]), directions,
        )  # fmt: skip
