"""A volume as a file door delivers it: voxels, geometry, table columns and array metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.ctx import get_radiobject_config
from radiobject.geometry.orientation import affine_to_list, axis_codes, spacing_mm

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
        Values of the obs table, by column.
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


def geometry_columns(shape: tuple[int, ...], affine: NDArray[np.float64]) -> dict[str, Scalar]:
    """Return the obs columns that describe a grid.

    ``dim_t`` is 0 for a volume without a time axis, so that (X, Y, Z) and (X, Y, Z, 1) differ.
    """
    spacing = spacing_mm(affine)
    sides = (*shape, 0) if len(shape) == 3 else shape
    columns: dict[str, Scalar] = {
        "voxel_spacing": str(spacing),
        "dimensions": str(tuple(int(side) for side in shape)),
    }
    columns |= {f"spacing_{axis}": step for axis, step in zip("xyz", spacing, strict=True)}
    columns |= {f"dim_{axis}": int(side) for axis, side in zip("xyzt", sides, strict=True)}
    columns["axcodes"] = "".join(axis_codes(affine))
    columns["affine_json"] = json.dumps(affine_to_list(affine))
    return columns


def rescale_metadata(rescale: tuple[float, float] | None) -> dict[str, Scalar]:
    """Return the array metadata that makes a reader apply `rescale`; nothing for None."""
    if rescale is None:
        return {}
    return {"rescale_slope": float(rescale[0]), "rescale_intercept": float(rescale[1])}


def reorient_target(reorient: bool | None) -> str | None:
    """Return the axis codes to reorient to, or None to keep the file's; None asks the settings."""
    orientation = get_radiobject_config().write.orientation
    wanted = orientation.reorient_on_load if reorient is None else reorient
    return orientation.canonical_target if wanted else None
