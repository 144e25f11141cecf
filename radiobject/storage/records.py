"""A volume on its way in, and the one way to store it in a collection."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from radiobject.ctx import WriteConfig
from radiobject.exceptions import ShapeError, StorageError, StoreExistsError
from radiobject.formats.image import LoadedImage
from radiobject.geometry.orientation import affine_to_list
from radiobject.geometry.rescale import RESCALE_KEYS
from radiobject.storage.io import layout
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.schema.description import AFFINE_KEY
from radiobject.storage.schema.volume_rows import COMPUTED_COLUMNS, SYSTEM_COLUMNS, VolumeRecord
from radiobject.storage.tables.writer import write_volume


@dataclass(frozen=True, eq=False)
class NewVolume:
    """A volume that is to become part of a collection: its voxels, or what reads them.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z) or (X, Y, Z, T), or callable
        Stored values; or a function without arguments that reads them, with their affine, rescale,
        columns and metadata, when the volume is written, wherever that is.
    obs_subject_id, obs_id : str
        Its subject and its own id, unique in the collection.
    affine : array_like, shape (4, 4), optional
        Voxel index to RAS+ mm; the identity by default.
    columns : mapping
        Values of the obs table, before those that `data` reads. Those that the store makes from
        the geometry are left out.
    metadata : mapping
        Kept beside the voxels, before what `data` reads.
    rescale : tuple of float, optional
        (slope, intercept) from stored values to the volume's units.
    warnings : tuple of str
        What was doubtful when it was read, one sentence each.
    """

    data: np.ndarray | Callable[[], LoadedImage]
    obs_subject_id: str
    obs_id: str
    affine: npt.ArrayLike | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rescale: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def voxels(self) -> np.ndarray:
        """The stored values of a volume that was read."""
        if not isinstance(self.data, np.ndarray):
            raise StorageError(f"the voxels of {self.obs_id!r} were not read yet")
        return self.data

    def read(self) -> NewVolume:
        """Return the volume with its voxels: itself, or as its source gives them."""
        if isinstance(self.data, np.ndarray):
            return self
        image = self.data()
        return replace(
            self,
            data=image.data,
            affine=image.affine,
            columns={**image.columns, **self.columns},
            metadata={**image.metadata, **self.metadata},
            rescale=image.rescale,
            warnings=image.warnings,
        )


def checked_affine(affine: npt.ArrayLike | None, whose: str) -> npt.NDArray[np.float64]:
    """Return an affine as a matrix (4, 4) of float64, the identity for None.

    Raises
    ------
    ShapeError
        If it is not a finite 4x4 matrix.
    """
    matrix = np.eye(4) if affine is None else np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ShapeError(f"the affine of {whose} must be a finite 4x4 matrix, got {matrix!r}")
    return matrix


def write_new_volume(
    uri: str,
    timestamp: int,
    volume: NewVolume,
    *,
    config: WriteConfig | None = None,
    patch_size: Sequence[int] | None = None,
) -> VolumeRecord:
    """Write a volume into the collection at `uri`; it appears when its record is committed.

    Parameters
    ----------
    uri : str
        The collection.
    timestamp : int
        A tick of the open commit's clock.
    volume : NewVolume
        What to write; it is read first where it was not yet.
    config, patch_size
        See `radiobject.storage.tables.writer.write_volume`.

    Raises
    ------
    SchemaError
        If an id cannot be one.
    ShapeError, TypeError
        If the voxels or the affine cannot be stored.
    """
    volume = volume.read()
    matrix = checked_affine(volume.affine, repr(volume.obs_id))
    layout.checked_id(volume.obs_subject_id, layout.SUBJECT_ID)
    layout.checked_id(volume.obs_id, layout.OBS_ID)

    def write(attempt: str = "") -> VolumeLocator:
        return write_volume(
            layout.join(uri, layout.VOLUMES, layout.array_name(volume.obs_id, timestamp, attempt)),
            volume.voxels,
            metadata={
                layout.OBS_ID: volume.obs_id,
                **volume.metadata,
                **geometry_metadata(matrix, volume.rescale),
            },
            config=config,
            patch_size=patch_size,
            timestamp=timestamp,
        )

    try:
        written = write()
    except StoreExistsError:
        # A worker that was lost had begun this volume, and may be at it yet: nobody else writes an
        # id at this tick of the clock. What it leaves belongs to no row, and `vacuum` removes it.
        written = write(uuid.uuid4().hex)
    array = layout.base_name(written.uri)
    located = VolumeLocator(
        written.uri, written.shape, written.dtype, written.index, volume.obs_id, volume.rescale
    )
    own = {n: v for n, v in volume.columns.items() if n not in _MADE_BY_THE_STORE}
    return VolumeRecord(volume.obs_subject_id, volume.obs_id, array, located, matrix, own)


_MADE_BY_THE_STORE = {*SYSTEM_COLUMNS, *COMPUTED_COLUMNS}


def geometry_metadata(
    affine: npt.NDArray[np.float64], rescale: tuple[float, float] | None
) -> dict[str, str | float]:
    """Return what an array's metadata says of its grid and of its units."""
    found: dict[str, str | float] = {AFFINE_KEY: json.dumps(affine_to_list(affine))}
    if rescale is not None:
        found |= {key: float(value) for key, value in zip(RESCALE_KEYS, rescale, strict=True)}
    return found
