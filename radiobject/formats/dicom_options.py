"""What may be asked for when DICOM is read."""

from __future__ import annotations

from dataclasses import dataclass

from radiobject.exceptions import ConfigurationError

SUV_KINDS = ("bw",)


@dataclass(frozen=True)
class DicomOptions:
    """What to accept, and how values are delivered.

    Parameters
    ----------
    allow_tilt : bool
        Accept a gantry tilt, with a sheared affine.
    drop_aborted : bool
        Leave out the last volume of a 4-D series that is not whole.
    suv : {"bw"}, optional
        Deliver PET as standardised uptake values by body weight (g/ml).
    clip_padding : bool
        Set pixels with PixelPaddingValue to the lowest value of the others.
    """

    allow_tilt: bool = False
    drop_aborted: bool = False
    suv: str | None = None
    clip_padding: bool = False

    def __or__(self, other: DicomOptions) -> DicomOptions:
        """Return what either asks for."""
        return DicomOptions(
            self.allow_tilt or other.allow_tilt,
            self.drop_aborted or other.drop_aborted,
            self.suv or other.suv,
            self.clip_padding or other.clip_padding,
        )

    def __post_init__(self) -> None:
        if self.suv is not None and self.suv not in SUV_KINDS:
            raise ConfigurationError(f"suv must be one of {SUV_KINDS} or None, got {self.suv!r}")
