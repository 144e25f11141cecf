"""Where a patch lies, as a function of random words.

Every function takes the words it uses up, from `radiobject.sampling.philox`, and works on a whole
batch at once. A start may be negative: a volume smaller than the patch is centred in it, and the
reader pads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.sampling.philox import below


def check_patch_size(patch_size: Sequence[int], ndim: int) -> tuple[int, ...]:
    """Return the patch's sides as integers, one per axis.

    Raises
    ------
    ConfigurationError
        If it does not have `ndim` sides, or one is not a positive whole number.
    """
    sides = tuple(patch_size) if isinstance(patch_size, Sequence | np.ndarray) else (patch_size,)
    whole = all(isinstance(s, int | np.integer) and s >= 1 for s in sides)
    if len(sides) != ndim or not whole:
        raise ConfigurationError(
            f"patch_size must be {ndim} whole numbers >= 1, got {patch_size!r}"
        )
    return tuple(int(s) for s in sides)


def uniform_starts(
    shapes: ArrayLike, patch_size: Sequence[int], words: NDArray[np.uint32]
) -> NDArray[np.int64]:
    """Return starts that are uniform over all positions inside the volume.

    Parameters
    ----------
    shapes : array_like of int, shape (n, d)
        The volumes' shapes in voxels.
    patch_size : sequence of int, length d
    words : ndarray of uint32, shape (n, at least d)

    Returns
    -------
    ndarray of int64, shape (n, d)
        Along an axis shorter than the patch, the start that centres the volume in the patch.
    """
    slack = np.asarray(shapes, dtype=np.int64) - np.asarray(patch_size, dtype=np.int64)
    free = below(words[:, : slack.shape[1]], np.maximum(slack + 1, 1))
    return np.where(slack >= 0, free, -(-slack // 2))


def starts_around(
    voxels: ArrayLike, shapes: ArrayLike, patch_size: Sequence[int], words: NDArray[np.uint32]
) -> NDArray[np.int64]:
    """Return starts that are uniform over the positions whose patch contains a given voxel.

    Centring the patch on the voxel and pushing it back into the volume would give a lesion in a
    corner one single position; here it has as many as fit.

    Parameters
    ----------
    voxels : array_like of int, shape (n, d)
        One voxel per sample, inside its volume.
    shapes, patch_size, words
        As in `uniform_starts`.
    """
    voxel = np.asarray(voxels, dtype=np.int64)
    side = np.asarray(patch_size, dtype=np.int64)
    slack = np.asarray(shapes, dtype=np.int64) - side
    low = np.maximum(voxel - side + 1, 0)
    high = np.minimum(voxel, np.maximum(slack, 0))
    free = low + below(words[:, : slack.shape[1]], np.maximum(high - low + 1, 1))
    return np.where(slack >= 0, free, -(-slack // 2))


def starts_centred(
    voxels: ArrayLike, shapes: ArrayLike, patch_size: Sequence[int]
) -> NDArray[np.int64]:
    """Return starts whose patch has a given voxel at its centre, as near as the volume allows.

    Of a patch of an even side voxel ``side // 2`` is the centre, as in nnU-Net. A patch that would
    leave the volume is moved back into it.

    Parameters
    ----------
    voxels, shapes, patch_size
        As in `starts_around`.
    """
    side = np.asarray(patch_size, dtype=np.int64)
    slack = np.asarray(shapes, dtype=np.int64) - side
    start = np.asarray(voxels, dtype=np.int64) - side // 2
    return np.where(slack >= 0, start.clip(0, np.maximum(slack, 0)), -(-slack // 2))


def padding_of(
    starts: NDArray[np.int64], shapes: NDArray[np.int64], patch_size: ArrayLike
) -> NDArray[np.int64]:
    """Return the voxels of padding before and after each axis.

    Returns
    -------
    ndarray of int64, shape (n, d, 2)
    """
    stops = starts + np.asarray(patch_size, dtype=np.int64)
    return np.stack((np.maximum(-starts, 0), np.maximum(stops - shapes, 0)), axis=-1)


def patch_affines(affines: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the affines (voxel index to RAS+ mm) of patches, from those of their volumes.

    Parameters
    ----------
    affines : ndarray of float64, shape (n, 4, 4)
    starts : ndarray of int64, shape (n, at least 3)
        First voxel of each patch; axes after the third (time) do not move it.
    """
    moved = affines.copy()
    moved[:, :3, 3] += np.einsum("nij,nj->ni", affines[:, :3, :3], starts[:, :3])
    return moved


def coarse_affines(
    affines: NDArray[np.float64], starts: NDArray[np.int64], factor: int
) -> NDArray[np.float64]:
    """Return the affines of patches of which `factor` voxels along each axis became one.

    Parameters
    ----------
    affines : ndarray of float64, shape (n, 4, 4)
        Of the volumes.
    starts : ndarray of int64, shape (n, at least 3)
        First voxel of each patch, in voxels of the volume.
    """
    moved = affines.copy()
    centres = starts[:, :3] + (factor - 1) / 2
    moved[:, :3, 3] += np.einsum("nij,nj->ni", affines[:, :3, :3], centres)
    moved[:, :3, :3] *= factor
    return moved


def grid_starts(
    shape: Sequence[int], patch_size: Sequence[int], overlap: Sequence[float] | float = 0.0
) -> NDArray[np.int64]:
    """Return the starts of patches that cover a volume, the first axis slowest.

    Steps are ``int(side * (1 - overlap))``, at least 1; the last patch of an axis is moved back
    inside. A volume shorter than the patch is centred in it. The positions are those of MONAI's
    `sliding_window_inference`.

    Parameters
    ----------
    overlap : float or sequence of float
        Share of the patch that neighbours have in common, in [0, 1), per axis or for all.

    Returns
    -------
    ndarray of int64, shape (n, d)
    """
    sides = check_patch_size(patch_size, len(shape))
    shares = (
        tuple(float(o) for o in overlap)
        if isinstance(overlap, Sequence | np.ndarray)
        else (float(overlap),) * len(sides)
    )
    if len(shares) != len(sides) or not all(0 <= o < 1 for o in shares):
        raise ConfigurationError(f"overlap must be in [0, 1), one or one per axis, got {overlap!r}")
    axes = [_axis_starts(n, p, o) for n, p, o in zip(shape, sides, shares, strict=True)]
    return np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=-1)


def _axis_starts(length: int, side: int, overlap: float) -> NDArray[np.int64]:
    if length < 1:
        raise ShapeError(f"a grid needs a volume with voxels along every axis, got side {length}")
    if length <= side:
        return np.array([-((side - length) // 2)], dtype=np.int64)
    step = max(int(side * (1 - overlap)), 1)
    starts = np.arange(0, length - side + step, step, dtype=np.int64)
    return np.minimum(starts, length - side)
