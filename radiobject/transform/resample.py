"""A volume in another grid: images between voxels, labels as they are.

SciPy interpolates images; labels are taken from the nearest voxel, or from the majority of a
voxel's space, and never mixed. Where a grid asks for what lies outside the volume by less than half
a voxel, the outermost voxel answers, as in ITK.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import ConfigurationError
from radiobject.geometry.box import Box
from radiobject.geometry.grids import Grid
from radiobject.geometry.regrid import BACKGROUND, Regrid
from radiobject.lazy import LazyModule

ndimage = LazyModule("scipy.ndimage", "resampling images", "ml")

ORDERS = {"linear": 1, "cubic": 3}
"""Spline orders of the interpolations of images."""
LABEL_RULES = ("nearest", "majority")

_EDGE = 1e-4  # Source voxels by which a place may leave a volume and still count as in it.
_SAME_GRID = 1e-9
_NO_SHARE = 1e-4  # Of a voxel in a place: rounding alone, and none of it is taken.
_PLANE_VOXELS = 1 << 22


def resample_image(
    voxels: NDArray,
    source: Grid,
    target: Grid,
    *,
    interpolation: str,
    outside: float | None,
    antialias: bool = False,
) -> NDArray:
    """Return an image in another grid, in its own type; integers are rounded.

    What is not finite has no value that could be mixed: a map has NaN where nothing was measured.
    A place is NaN where linear interpolation would take part of such a voxel, whatever the
    interpolation, so that no number is made up and the rest of the volume stays. A spline and a
    smoothing reach further; there the nearest finite voxel stands in.

    Parameters
    ----------
    voxels : ndarray, shape (X, Y, Z[, T])
        Time points are resampled one by one.
    source, target : Grid
    interpolation : {"linear", "cubic"}
    outside : float, optional
        What fills places outside the volume; None repeats its outermost voxels.
    antialias : bool
        Smooth along the axes that get coarser before; see `smoothing`.
    """
    matrix = target.index_to(source)
    if target.shape == source.shape and np.abs(matrix - np.eye(4)).max() < _SAME_GRID:
        return voxels
    out = np.empty((*target.shape, *voxels.shape[3:]), voxels.dtype)
    beyond = None if outside is None else _beyond(matrix, source.shape, target.shape)
    working = np.result_type(voxels.dtype, np.float32)
    sigmas = smoothing(source, target) if antialias else np.zeros(3)
    for time in np.ndindex(voxels.shape[3:]):
        volume, missing = _completed(voxels[(..., *time)])
        if sigmas.any():
            volume = ndimage.gaussian_filter(volume, sigmas, output=working, mode="nearest")
        made = _interpolated(volume, matrix, target.shape, working, ORDERS[interpolation])
        if missing is not None:
            share = _interpolated(missing, matrix, target.shape, np.dtype(np.float32), 1)
            made[share > _NO_SHARE] = np.nan
        if beyond is not None:
            made[beyond] = outside
        out[(..., *time)] = _as_stored(made, voxels.dtype)
    return out


def _interpolated(
    volume: NDArray,
    matrix: NDArray[np.float64],
    shape: tuple[int, ...],
    dtype: np.dtype,
    order: int,
) -> NDArray:
    made: NDArray = ndimage.affine_transform(
        volume, matrix[:3, :3], matrix[:3, 3], shape, dtype, order=order, mode="nearest"
    )
    return made


def _completed(volume: NDArray) -> tuple[NDArray, NDArray[np.float32] | None]:
    """Return a volume with the nearest finite voxel where one is not, and 1 there, else 0.

    None where all are finite, or none is.
    """
    if volume.dtype.kind != "f":
        return volume, None
    missing = ~np.isfinite(volume)
    if not missing.any():
        return volume, None
    if missing.all():
        return np.full_like(volume, np.nan), None
    nearest = ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True)
    return volume[tuple(nearest)], missing.astype(np.float32)


def smoothing(source: Grid, target: Grid) -> NDArray[np.float64]:
    """Return the standard deviations, in source voxels, that an image is smoothed by before.

    A source voxel that stands for a Gaussian of its own width at half height is widened to that of
    the target's (Cardoso et al., Scale factor point spread function matching, MICCAI 2015), as in
    TorchIO. An axis along which the target is not coarser is left alone: 0.
    """
    factors = np.linalg.norm(target.index_to(source)[:3, :3], axis=1)
    variance: NDArray[np.float64] = (factors**2 - 1).clip(0) / (8 * np.log(2))
    return np.where(factors > 1 + _SAME_GRID, np.sqrt(variance), 0.0)


def resample_labels(
    voxels: NDArray,
    source: Grid,
    target: Grid,
    *,
    rule: str,
    repeat_edges: bool,
    background: float = BACKGROUND,
) -> NDArray:
    """Return labels in another grid.

    Parameters
    ----------
    voxels : ndarray, shape (X, Y, Z[, T])
    source, target : Grid
    rule : {"nearest", "majority"}
        The label of the nearest voxel, or the one that most of a target voxel's space has; where
        two have as much, that of its centre, else the smallest.
    repeat_edges : bool
        Whether the outermost voxels answer for places outside; otherwise these are background.
    background : float
        The stored value of the label 0.
    """
    if repeat_edges:
        voxels, source = _extended(voxels, source, target)
    out = np.empty((*target.shape, *voxels.shape[3:]), voxels.dtype)
    centre = Regrid.between(target.affine, target.shape, source.affine, voxels.shape)
    if rule == "nearest":
        _gather(centre, Box.whole(centre.shape), voxels, out, background)
        return out
    points = _points(source, target)
    planes = max(1, _PLANE_VOXELS // (len(points) * int(np.prod(out.shape[1:]))))
    for first in range(0, out.shape[0], planes):
        box = Box(
            (first, *(0,) * (out.ndim - 1)),
            (min(first + planes, out.shape[0]), *out.shape[1:]),
        )
        samples = np.empty((len(points), *box.shape), voxels.dtype)
        for sample, point in zip(samples, points, strict=True):
            moved = target.affine.copy()
            moved[:3, 3] += target.affine[:3, :3] @ point
            there = Regrid.between(moved, target.shape, source.affine, voxels.shape)
            _gather(there, box, voxels, sample, background)
        middle = np.empty(box.shape, voxels.dtype)
        _gather(centre, box, voxels, middle, background)
        out[box.slices] = _majority(samples, middle)
    return out


def check_rules(interpolation: str, label_interpolation: str) -> None:
    """Raise a `ConfigurationError` unless both are known."""
    for name, given, known in (
        ("interpolation", interpolation, ORDERS),
        ("label_interpolation", label_interpolation, LABEL_RULES),
    ):
        if given not in known:
            raise ConfigurationError(f"{name} must be one of {tuple(known)}, got {given!r}")


def _as_stored(made: NDArray, dtype: np.dtype) -> NDArray:
    if dtype.kind == "f":
        return made
    # A spline overshoots beside edges: there it ends where the type does.
    return np.clip(np.rint(made), *integer_ends(dtype))


def integer_ends(dtype: np.dtype) -> tuple[int, int]:
    """Return the smallest and the largest value of a type of integers or truth values."""
    return (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)


def _beyond(
    matrix: NDArray[np.float64], source: tuple[int, ...], target: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Return which places of the target lie outside the source's voxels."""
    out = np.zeros(target, bool)
    for row, side in zip(matrix[:3], source, strict=True):
        x, y, z = (row[axis] * np.arange(n) for axis, n in enumerate(target))
        plane = y[:, None] + z + row[3]
        for first, along in enumerate(x):
            place = plane + along
            out[first] |= (place < -0.5 - _EDGE) | (place > side - 0.5 + _EDGE)
    return out


def _extended(voxels: NDArray, source: Grid, target: Grid) -> tuple[NDArray, Grid]:
    """Return labels with their outermost voxels repeated as far as the target reaches."""
    matrix = target.index_to(source)
    ends = np.array(list(itertools.product(*[(-0.5, n - 0.5) for n in target.shape])))
    places = ends @ matrix[:3, :3].T + matrix[:3, 3]
    before = [max(0, math.ceil(-p - 0.5)) for p in places.min(axis=0)]
    after = [
        max(0, math.ceil(p + 0.5 - n + _EDGE))
        for p, n in zip(places.max(axis=0), source.shape, strict=True)
    ]
    if not any(before) and not any(after):
        return voxels, source
    widths = [*zip(before, after, strict=True), *[(0, 0)] * (voxels.ndim - 3)]
    affine = source.affine.copy()
    affine[:3, 3] -= source.affine[:3, :3] @ np.array(before, np.float64)
    wider = np.pad(voxels, widths, mode="edge")
    return wider, Grid.of(wider.shape, affine)


def _points(source: Grid, target: Grid) -> list[NDArray[np.float64]]:
    """Return the places in a target voxel at which its labels are asked for, from its centre.

    At least one for each source voxel that it covers, along every axis.
    """
    crossed = np.abs(target.index_to(source)[:3, :3]).max(axis=0)
    counts = np.ceil(crossed - _EDGE).clip(1).astype(int)
    along = [(np.arange(n) + 0.5) / n - 0.5 for n in counts]
    return [np.array(point) for point in itertools.product(*along)]


def _gather(regrid: Regrid, box: Box, voxels: NDArray, out: NDArray, background: float) -> None:
    for part in regrid.parts(box):
        regrid.gather(part, voxels[part.source.slices], out, background)


def _majority(samples: NDArray, centre: NDArray) -> NDArray:
    """Return the most frequent of the samples, along the first axis."""
    ordered = np.sort(samples, axis=0)
    best = ordered[0].copy()
    count = np.ones(best.shape, np.int32)
    most = count.copy()
    for before, now in itertools.pairwise(ordered):
        count = np.where(now == before, count + 1, 1)
        more = count > most
        best[more], most[more] = now[more], count[more]
    as_many = (samples == centre).sum(axis=0) >= most
    best[as_many] = centre[as_many]
    return best
