"""A volume as it was read from files: voxels, affine, table columns and array metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.ctx import get_radiobject_config
from radiobject.geometry.rescale import RESCALE_KEYS

Scalar = str | int | float


@dataclass(frozen=True)
class LoadedImage:
    """One volume, read once, ready to be stored.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z) or (X, Y, Z, T)
        Voxels as they will be stored, in native byte order; any strides, possibly read-only.
    affine : ndarray, shape (4, 4), float64
        Voxel index of `data` to RAS+ mm.
    columns : dict
        Values of the obs table, by column, but those of the grid: the store makes them from the
        affine and the shape, once.
    metadata : dict
        What goes into the volume array's metadata.
    rescale : tuple of float, optional
        (slope, intercept) to apply on read; None when `data` is in its units already.
    warnings : tuple of str
        What was doubtful but not refused, one sentence each.
    """

    data: NDArray[Any]
    affine: NDArray[np.float64]
    columns: dict[str, Scalar]
    metadata: dict[str, Scalar]
    rescale: tuple[float, float] | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def shape(self) -> tuple[int, ...]:
        """(X, Y, Z) or (X, Y, Z, T) in voxels."""
        return self.data.shape

    def rescaled(self) -> NDArray[Any]:
        """Return the voxels in their units: `data`, or float32 where a rescale is kept."""
        if self.rescale is None:
            return self.data
        slope, intercept = self.rescale
        return (self.data * np.float64(slope) + np.float64(intercept)).astype(np.float32)


def rescale_metadata(rescale: tuple[float, float] | None) -> dict[str, Scalar]:
    """Return the array metadata that makes a reader apply `rescale`; nothing for None."""
    if rescale is None:
        return {}
    return {key: float(value) for key, value in zip(RESCALE_KEYS, rescale, strict=True)}


def reorient_target(reorient: bool | None) -> str | None:
    """Return the axis codes to reorient to, or None to keep the file's; None asks the settings."""
    orientation = get_radiobject_config().write.orientation
    wanted = orientation.reorient_on_load if reorient is None else reorient
    return orientation.canonical_target if wanted else None
