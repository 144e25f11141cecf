"""The linear map from stored to delivered intensities."""

from __future__ import annotations

from dataclasses import dataclass

RESCALE_KEYS = ("rescale_slope", "rescale_intercept")
"""What a volume's metadata calls slope and intercept."""


@dataclass(frozen=True, slots=True)
class Rescale:
    """Delivered intensity = stored intensity * `slope` + `intercept`.

    The arithmetic is done in float32 for stored types of up to 16 bits and float32, else in
    float64; a delivered integer type gets the nearest integer.
    """

    slope: float = 1.0
    intercept: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Return whether the map changes nothing."""
        return self.slope == 1.0 and self.intercept == 0.0
