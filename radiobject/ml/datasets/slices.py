"""Slices by anatomy: the views of the volumes that they are cut from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from radiobject.ctx import SliceOrientation
from radiobject.exceptions import ShapeError
from radiobject.geometry.ras_view import OBLIQUE_DEGREES, RasView, is_beyond, tilt_degrees
from radiobject.indexing import shortened
from radiobject.ml.config import DatasetConfig, LoadingMode, slice_dim_index
from radiobject.ml.datasets.source import VolumeTable

_SHOWN = 5


def axis_of(orientation: SliceOrientation | int) -> int:
    """Return the axis that slices leave out: of the view by anatomy, or of the array."""
    return orientation if isinstance(orientation, int) else slice_dim_index(orientation)


def views_of(table: VolumeTable, config: DatasetConfig) -> list[RasView] | None:
    """Return the view that the slices of each volume are cut from.

    None where samples are no slices by anatomy, or where every volume is stored as it is seen.
    Volumes whose slices lie as much in another plane of the body are warned of.

    Raises
    ------
    ShapeError
        If a volume's affine does not say where its axes point.
    """
    by_anatomy = not isinstance(config.slice_orientation, int)
    if config.loading_mode != LoadingMode.SLICE_2D or not by_anatomy:
        return None
    kinds, kind = np.unique(table.affines[:, :3, :3], axis=0, return_inverse=True)
    kind = kind.ravel()
    found, tilts = [], []
    seen_axis = axis_of(config.slice_orientation)
    for number, turn in enumerate(kinds):
        affine = np.eye(4)
        affine[:3, :3] = turn
        try:
            view = RasView.of(affine)
        except ShapeError as error:
            row = int(np.flatnonzero(kind == number)[0])
            raise ShapeError(
                f"the affine of {table.obs_ids[row]!r} does not say where its axes point: {error}; "
                "ask for slices along an array axis: slice_orientation=0, 1 or 2"
            ) from error
        found.append(view)
        tilts.append(tilt_degrees(affine, view.order[seen_axis]))
    _tell_oblique(table, np.array(tilts)[kind], str(config.slice_orientation))
    if all(view.is_stored for view in found):
        return None
    return [found[number] for number in kind.tolist()]


def _tell_oblique(table: VolumeTable, tilts: NDArray[np.float64], plane: str) -> None:
    beyond = np.flatnonzero([is_beyond(tilt) for tilt in tilts.tolist()])
    if not beyond.size:
        return
    listed = shortened(
        (f"{table.obs_ids[row]!r} by {tilts[row]:.0f} degrees" for row in beyond.tolist()),
        _SHOWN,
        quoted=False,
    )
    warnings.warn(
        f"{beyond.size} of {len(table)} volumes of {table.name!r} are oblique by "
        f"{OBLIQUE_DEGREES:.0f} degrees or more: {listed}; what is delivered as {plane} is the "
        "nearest plane of their voxels: resample them for true planes",
        stacklevel=4,
    )


def seen(
    table: VolumeTable, views: Sequence[RasView] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return shapes and affines of the volumes, as they are seen."""
    if views is None:
        return table.shapes, table.affines
    pairs = list(zip(views, table.shapes.tolist(), strict=True))
    shapes = np.array([view.shape(shape) for view, shape in pairs], np.int64)
    affines = [
        view.affine(affine, shape)
        for (view, shape), affine in zip(pairs, table.affines, strict=True)
    ]
    return shapes, np.array(affines)
