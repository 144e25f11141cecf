"""What a collection's table says of its volumes: enough to plan any read without opening one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from radiobject.exceptions import IntegrityError
from radiobject.geometry.orientation import axis_codes, spacing_mm
from radiobject.storage.io import layout
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.tables.columns import TEXT, Column
from radiobject.texts import Texts

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
    subjects, ids : Texts, length n
        Whose volume it is, and which.
    names : Texts, length n
        Names of the arrays.
    dtypes : ndarray of object, shape (n,)
        Names of the stored types; few strings, shared by all rows.
    sides : ndarray of int32, shape (n, 4)
        (X, Y, Z, T) in voxels, T = 0 for a volume without a time axis.
    grids : ndarray of float64, shape (n, 3, 4)
        Voxel index to RAS+ mm, without the last row, which is (0, 0, 0, 1).
    rescales : ndarray of float64, shape (n, 2)
        (slope, intercept), NaN where there is none.
    """

    folder: str
    subjects: Texts
    ids: Texts
    names: Texts
    dtypes: np.ndarray
    sides: npt.NDArray[np.int32]
    grids: npt.NDArray[np.float64]
    rescales: npt.NDArray[np.float64]

    @classmethod
    def from_columns(cls, folder: str, table: Mapping[str, Column]) -> VolumeRows:
        """Return the rows that a read of `PLAN_COLUMNS` gave."""
        count = len(table[layout.OBS_ID].values)
        _check_names(folder, table)
        grids = np.stack([table[n].values for n in AFFINE], axis=1).reshape(count, 3, 4)
        rescales = [table[name].filled(np.nan) for name in (SLOPE, INTERCEPT)]
        return cls(
            folder=folder,
            subjects=Texts(table[layout.SUBJECT_ID].values),
            ids=Texts(table[layout.OBS_ID].values),
            names=Texts(table[ARRAY].values),
            dtypes=shared(table[DTYPE].values),
            sides=np.stack([table[name].values for name in SIDES], axis=1).astype(np.int32),
            grids=grids,
            rescales=np.stack(rescales, axis=1),
        )

    @property
    def subject_ids(self) -> np.ndarray:
        """Subject of each volume, an array of objects made anew; of one row, see `subjects`."""
        return self.subjects.to_array()

    @property
    def obs_ids(self) -> np.ndarray:
        """Id of each volume, an array of objects made anew; of one row, see `ids`."""
        return self.ids.to_array()

    @property
    def arrays(self) -> np.ndarray:
        """Name of each array, an array of objects made anew; of one row, see `names`."""
        return self.names.to_array()

    @property
    def shapes(self) -> npt.NDArray[np.int64]:
        """Sides of each volume as int64, shape (n, 4), made anew."""
        return self.sides.astype(np.int64)

    @property
    def affines(self) -> npt.NDArray[np.float64]:
        """Affine of each volume, shape (n, 4, 4), made anew; of some, see `affines_of`."""
        return self.affines_of(np.arange(len(self), dtype=np.intp))

    def affines_of(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Return the affines of some volumes, voxel index to RAS+ mm, shape (n, 4, 4)."""
        affines = np.zeros((len(rows), 4, 4))
        affines[:, :3], affines[:, 3, 3] = self.grids[rows], 1.0
        return affines

    @property
    def keys(self) -> dict[str, np.ndarray]:
        """The key columns of the table, whole."""
        return {layout.SUBJECT_ID: self.subject_ids, layout.OBS_ID: self.obs_ids}

    def __len__(self) -> int:
        return len(self.ids)

    def shape(self, row: int) -> tuple[int, ...]:
        """Return (X, Y, Z) or (X, Y, Z, T) of the volume in `row`."""
        sides = tuple(self.sides[row].tolist())
        return sides[:3] if sides[3] == 0 else sides

    def locator(self, row: int, index: bytes | None = None) -> VolumeLocator:
        """Return where the voxels of `row` are."""
        slope, intercept = self.rescales[row]
        return VolumeLocator(
            uri=layout.join(self.folder, self.names[row]),
            shape=self.shape(row),
            dtype=str(self.dtypes[row]),
            index=index,
            obs_id=self.ids[row],
            rescale=None if np.isnan(slope) else (float(slope), float(intercept)),
        )


class Locators(Sequence[VolumeLocator]):
    """Where the voxels of very many rows are, each told when it is asked for.

    Parameters
    ----------
    rows : VolumeRows
    chosen : ndarray of intp
        The rows meant, in order.
    """

    def __init__(self, rows: VolumeRows, chosen: npt.NDArray[np.intp]) -> None:
        self._rows, self._chosen = rows, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, place: int) -> VolumeLocator: ...

    @overload
    def __getitem__(self, place: slice) -> Locators: ...

    def __getitem__(self, place: int | slice) -> VolumeLocator | Locators:
        if isinstance(place, slice):
            return Locators(self._rows, self._chosen[place])
        return self._rows.locator(int(self._chosen[place]))

    @property
    def shapes(self) -> npt.NDArray[np.int64]:
        """Sides of each volume, shape (n, 4); T is 0 where there is no time axis."""
        return self._rows.sides[self._chosen].astype(np.int64)

    @property
    def rescales(self) -> npt.NDArray[np.float64]:
        """(slope, intercept) of each volume, shape (n, 2), NaN where there is none."""
        return self._rows.rescales[self._chosen]

    def take(self, places: npt.NDArray[np.intp]) -> Locators:
        """Return the ones at some places, in that order."""
        return Locators(self._rows, self._chosen[places])


def shared(values: np.ndarray) -> np.ndarray:
    """Return an array of few different strings in which equal ones are one object."""
    known: dict[str, str] = {}
    array = np.empty(len(values), dtype=object)
    array[:] = [known.setdefault(value, value) for value in values]
    return array


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
