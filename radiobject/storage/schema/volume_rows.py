"""What a collection's table says of its volumes: enough to plan any read without opening one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from radiobject.exceptions import IntegrityError
from radiobject.geometry.orientation import axis_codes, spacing_mm
from radiobject.storage.io import layout
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.tables.columns import TEXT, Column

ARRAY = "_array"
DTYPE = "_dtype"
SLOPE, INTERCEPT = "_rescale_slope", "_rescale_intercept"
SIDES = ("dim_x", "dim_y", "dim_z", "dim_t")
SPACING = ("spacing_x", "spacing_y", "spacing_z")
AXCODES = "axcodes"
AFFINE = tuple(f"_affine_{row}{column}" for row in range(3) for column in range(4))

SYSTEM_COLUMNS: Mapping[str, np.dtype] = {
    ARRAY: TEXT,
    DTYPE: TEXT,
    **dict.fromkeys(SIDES, np.dtype(np.int32)),
    **dict.fromkeys(SPACING, np.dtype(np.float64)),
    AXCODES: TEXT,
    **dict.fromkeys(AFFINE, np.dtype(np.float64)),
    SLOPE: np.dtype(np.float64),
    INTERCEPT: np.dtype(np.float64),
}
"""Columns that every volume's row has; those that begin with an underscore are not shown."""

COMPUTED_COLUMNS = ("voxel_spacing", "dimensions", "affine_json")
"""Text forms of the geometry, for programs that read them: made on reading, never stored."""

PLAN_COLUMNS = (ARRAY, DTYPE, *SIDES, *AFFINE, SLOPE, INTERCEPT)


@dataclass(frozen=True)
class VolumeRecord:
    """A written volume and the row that makes it part of its collection.

    Parameters
    ----------
    obs_subject_id, obs_id : str
        Its subject and its own id.
    array : str
        Name of its array below ``volumes/``.
    locator : VolumeLocator
        Shape, type and packed tile index.
    affine : ndarray, shape (4, 4), float64
        Voxel index to RAS+ mm.
    columns : dict
        Values of the obs table beside the system columns.
    """

    obs_subject_id: str
    obs_id: str
    array: str
    locator: VolumeLocator
    affine: npt.NDArray[np.float64]
    columns: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance in mm between neighbouring voxels along each voxel axis."""
        return spacing_mm(self.affine)

    def row(self) -> dict[str, Any]:
        """Return the whole row of the obs table."""
        shape = self.locator.shape
        sides = (*shape, 0) if len(shape) == 3 else shape
        slope, intercept = self.locator.rescale or (None, None)
        return {
            **self.columns,
            layout.SUBJECT_ID: self.obs_subject_id,
            layout.OBS_ID: self.obs_id,
            ARRAY: self.array,
            DTYPE: self.locator.dtype,
            **dict(zip(SIDES, sides, strict=True)),
            **dict(zip(SPACING, self.spacing_mm, strict=True)),
            AXCODES: "".join(axis_codes(self.affine)),
            **dict(zip(AFFINE, self.affine[:3].ravel().tolist(), strict=True)),
            SLOPE: slope,
            INTERCEPT: intercept,
        }


@dataclass(frozen=True)
class VolumeRows:
    """The volumes of a collection, in the order of (subject id, volume id).

    Parameters
    ----------
    folder : str
        What array names are relative to.
    subject_ids, obs_ids : ndarray of object, shape (n,)
        Whose volume it is, and which.
    arrays, dtypes : ndarray of object, shape (n,)
        Names of the arrays and of the stored types.
    shapes : ndarray of int64, shape (n, 4)
        (X, Y, Z, T) in voxels, T = 0 for a volume without a time axis.
    affines : ndarray of float64, shape (n, 4, 4)
        Voxel index to RAS+ mm.
    rescales : ndarray of float64, shape (n, 2)
        (slope, intercept), NaN where there is none.
    """

    folder: str
    subject_ids: np.ndarray
    obs_ids: np.ndarray
    arrays: np.ndarray
    dtypes: np.ndarray
    shapes: npt.NDArray[np.int64]
    affines: npt.NDArray[np.float64]
    rescales: npt.NDArray[np.float64]

    @classmethod
    def from_columns(cls, folder: str, table: Mapping[str, Column]) -> VolumeRows:
        """Return the rows that a read of `PLAN_COLUMNS` gave."""
        count = len(table[layout.OBS_ID].values)
        _check_names(folder, table)
        affines = np.zeros((count, 4, 4))
        affines[:, 3, 3] = 1.0
        affines[:, :3] = np.stack([table[n].values for n in AFFINE], axis=1).reshape(count, 3, 4)
        rescales = [table[name].filled(np.nan) for name in (SLOPE, INTERCEPT)]
        return cls(
            folder=folder,
            subject_ids=table[layout.SUBJECT_ID].values,
            obs_ids=table[layout.OBS_ID].values,
            arrays=table[ARRAY].values,
            dtypes=table[DTYPE].values,
            shapes=np.stack([table[name].values for name in SIDES], axis=1).astype(np.int64),
            affines=affines,
            rescales=np.stack(rescales, axis=1),
        )

    @property
    def keys(self) -> dict[str, np.ndarray]:
        """The key columns of the table, whole."""
        return {layout.SUBJECT_ID: self.subject_ids, layout.OBS_ID: self.obs_ids}

    def __len__(self) -> int:
        return len(self.obs_ids)

    def shape(self, row: int) -> tuple[int, ...]:
        """Return (X, Y, Z) or (X, Y, Z, T) of the volume in `row`."""
        sides = tuple(int(side) for side in self.shapes[row])
        return sides[:3] if sides[3] == 0 else sides

    def locator(self, row: int, index: bytes | None = None) -> VolumeLocator:
        """Return where the voxels of `row` are."""
        slope, intercept = self.rescales[row]
        return VolumeLocator(
            uri=layout.join(self.folder, str(self.arrays[row])),
            shape=self.shape(row),
            dtype=str(self.dtypes[row]),
            index=index,
            obs_id=str(self.obs_ids[row]),
            rescale=None if np.isnan(slope) else (float(slope), float(intercept)),
        )


def _check_names(folder: str, table: Mapping[str, Column]) -> None:
    """Refuse rows whose array has no name of ours: it would be a path to anywhere."""
    for obs_id, name in zip(table[layout.OBS_ID].values, table[ARRAY].values, strict=True):
        if not layout.is_array_name(str(name)):
            raise IntegrityError(
                f"the row of volume {obs_id!r} names the array {name!r}, which is no name of a "
                f"volume in {folder}; the table was altered, restore it from a copy"
            )


def columns_of(records: Sequence[VolumeRecord]) -> dict[str, list[Any]]:
    """Return the records' rows column by column, None where a record lacks one."""
    rows = [record.row() for record in records]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}
