"""Patches at places that somebody names: centres of lesions, or boxes around them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radiobject.exceptions import BoundsError, ConfigurationError
from radiobject.geometry.ras_view import RasView
from radiobject.indexing import shortened
from radiobject.sampling.philox import below, unit

_DECIMALS = 4
"""A place is known within a ten-thousandth of a voxel: what a change of coordinates leaves."""
_SHOWN = 5


@dataclass(frozen=True, eq=False, repr=False)
class At:
    """Patches lie at given points or boxes.

    Parameters
    ----------
    positions : mapping of str to sequence
        By volume id: points, three numbers each, or boxes, two corners each. Ids of other data
        sets are passed over; a volume without positions yields patches as without this rule.
    space : {"index", "ras"}
        What positions and `jitter` are in: voxel indices, where a whole number is a voxel's centre
        and a box goes from its first voxel to one past its last; or millimetres, RAS+, where a box
        is what lies between its corners.
    jitter : float or (float, float, float), optional
        How far the patch's centre may lie from the position's, at most, along each axis of
        `space`. By default a point is the centre of its patch, within half a voxel, and a box lies
        anywhere in its patch; where it is longer than that, the patch lies anywhere in the box.
        In either case a patch is moved back into its volume.
    ratio : float
        Probability, in (0, 1], that a patch lies at a position; the rest lies as without this
        rule.
    each : bool
        Whether an epoch visits every position, `patches_per_volume` times, and nothing else.
        Otherwise a volume yields `patches_per_volume` samples, which take its positions in turn,
        from epoch to epoch.

    Raises
    ------
    ConfigurationError
        If a position is not three finite numbers or two corners of them, or an option cannot work.
    """

    positions: Mapping[str, Any]
    space: Literal["index", "ras"] = "index"
    jitter: float | Sequence[float] | None = None
    ratio: float = 1.0
    each: bool = False

    def __post_init__(self) -> None:
        if self.space not in ("index", "ras"):
            raise ConfigurationError(f"space must be 'index' or 'ras', got {self.space!r}")
        if not 0 < self.ratio <= 1:
            raise ConfigurationError(f"ratio must be in (0, 1], got {self.ratio}")
        if self.each and self.ratio < 1:
            raise ConfigurationError("each=True visits positions and nothing else: leave ratio out")
        if not isinstance(self.positions, Mapping) or not self.positions:
            raise ConfigurationError(
                f"At needs positions by volume id, as {{'sub-1_CT': [(40, 52, 31)]}}, "
                f"got {self.positions!r:.80}"
            )
        checked = {str(key): _entries(key, found) for key, found in self.positions.items()}
        object.__setattr__(self, "positions", checked)
        if self.jitter is not None:
            object.__setattr__(self, "jitter", _jitter(self.jitter))

    def __repr__(self) -> str:
        return (
            f"At({sum(map(len, self.positions.values()))} positions of {len(self.positions)} "
            f"volumes, sha256={self._digest}, space={self.space!r}, jitter={self.jitter}, "
            f"ratio={self.ratio}, each={self.each})"
        )

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for key, entries in sorted(self.positions.items()):
            digest.update(f"{key}\x00{len(entries)}\x00".encode())
            for corners in entries:
                digest.update(f"{len(corners)}".encode() + corners.astype("<f8").tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Sites:
    """The positions in one volume, in its voxels.

    Parameters
    ----------
    low, high : ndarray of float64, shape (m, 3)
        Centres of the first and of the last voxel; equal for points, and then any number.
    is_box : ndarray of bool, shape (m,)
    jitter : ndarray of float64, shape (3,), optional
        Along the axes of these voxels, or in millimetres.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    is_box: NDArray[np.bool_]
    jitter: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.low)

    def seen(self, view: RasView, shape: NDArray[np.int64], *, space: str) -> Sites:
        """Return the positions counted along the axes of a view of the volume."""
        order, flipped = list(view.order), np.array(view.flipped)
        last = np.asarray(shape)[order] - 1
        low, high = self.low[:, order], self.high[:, order]
        turned = self.jitter if self.jitter is None or space == "ras" else self.jitter[order]
        return Sites(
            np.where(flipped, last - high, low),
            np.where(flipped, last - low, high),
            self.is_box,
            turned,
        )


def sites_of(rule: At, obs_id: str, affine: NDArray[np.float64], shape: Sequence[int]) -> Sites:
    """Return where the positions of a volume lie in it.

    Raises
    ------
    BoundsError
        If one lies outside the volume.
    """
    entries = rule.positions.get(obs_id, ())
    low, high, is_box = [], [], []
    sides = np.array(shape[:3])
    for given in entries:
        first, last = _in_voxels(given, rule.space, affine)
        if (last < -0.5).any() or (first > sides - 0.5).any():
            raise BoundsError(
                f"position {given.tolist()} ({rule.space}) lies outside volume {obs_id!r}: it is "
                f"voxel {first.tolist()} of shape {tuple(sides.tolist())}; is `space` right?"
            )
        low.append(first)
        high.append(last)
        is_box.append(len(given) == 2)
    return Sites(
        np.array(low, np.float64).reshape(-1, 3),
        np.array(high, np.float64).reshape(-1, 3),
        np.array(is_box, bool),
        None if rule.jitter is None else np.array(rule.jitter),
    )


def check_ids(rule: At, obs_ids: Sequence[str]) -> None:
    """Refuse positions of which none is of a volume of the data set.

    Raises
    ------
    ConfigurationError
    """
    if not set(obs_ids) & set(rule.positions):
        raise ConfigurationError(
            f"no position is of a volume of this data set: keys are volume ids, got "
            f"{shortened(list(rule.positions), _SHOWN)}, and the volumes are "
            f"{shortened(list(obs_ids), _SHOWN)}"
        )


def starts_at(
    rule: At,
    sites: Sequence[Sites],
    turn: NDArray[np.int64],
    affines: NDArray[np.float64],
    shapes: NDArray[np.int64],
    patch_size: Sequence[int],
    words: NDArray[np.uint32],
    elsewhere: NDArray[np.int64],
    choices: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Return where each patch of a batch begins.

    Parameters
    ----------
    rule : At
    sites : sequence of Sites, length n
        Of each sample's volume.
    turn : ndarray of int64, shape (n,)
        Which position is taken, beginning again after the last.
    affines : ndarray of float64, shape (n, 4, 4)
    shapes : ndarray of int64, shape (n, 3)
    patch_size : sequence of int, length 3
    words : ndarray of uint32, shape (n, at least 3)
        Decide how far from a position a patch lies.
    elsewhere : ndarray of int64, shape (n, 3)
        Where patches lie that are at no position.
    choices : ndarray of float64, shape (n,)
        In [0, 1): whether a patch is at a position.

    Returns
    -------
    ndarray of int64, shape (n, 3)
    """
    starts = elsewhere.copy()
    side = np.asarray(patch_size, np.int64)
    for i, here in enumerate(sites):
        if len(here) == 0 or choices[i] >= rule.ratio:
            continue
        number = int(turn[i]) % len(here)
        low, high = here.low[number], here.high[number]
        slack = shapes[i] - side
        if here.jitter is None and here.is_box[number]:
            start = _holding(low, high, side, slack, words[i])
        else:
            moved = (2 * unit(words[i, :3]) - 1) * (0.0 if here.jitter is None else here.jitter)
            if rule.space == "ras":
                moved = np.asarray(np.linalg.solve(affines[i, :3, :3], moved), np.float64)
            start = _centred((low + high) / 2 + moved, side)
        starts[i] = np.where(slack >= 0, start.clip(0, np.maximum(slack, 0)), -(-slack // 2))
    return starts


def _centred(centre: NDArray[np.float64], side: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the start of a patch about a centre: of an even side, voxel ``side // 2`` lies there,
    as in nnU-Net."""
    return np.ceil(np.round(centre, _DECIMALS) - side / 2).astype(np.int64)


def _holding(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    side: NDArray[np.int64],
    slack: NDArray[np.int64],
    words: NDArray[np.uint32],
) -> NDArray[np.int64]:
    """Return a start, uniform over those whose patch holds a box, or lies in it."""
    first, last = low.astype(np.int64), high.astype(np.int64)
    ends = np.sort(np.stack((last + 1 - side, first)), axis=0).clip(0, np.maximum(slack, 0))
    return ends[0] + below(words[:3], ends[1] - ends[0] + 1)


def _in_voxels(
    given: NDArray[np.float64], space: str, affine: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the centres of the first and the last voxel of a position."""
    if space == "index":
        if len(given) == 1:
            return given[0], given[0]
        return np.ceil(given.min(axis=0)), np.ceil(given.max(axis=0) - 1)
    corners = given if len(given) == 1 else _corners(given)
    inverse: Any = np.linalg.inv(affine[:3, :3])
    voxels = (corners - affine[:3, 3]) @ inverse.T
    if len(given) == 1:
        return voxels[0], voxels[0]
    faces = voxels + 0.5
    low = np.floor(np.round(faces.min(axis=0), _DECIMALS))
    high = np.ceil(np.round(faces.max(axis=0), _DECIMALS)) - 1
    return low, np.maximum(low, high)


def _corners(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the eight corners of a box."""
    unit_cube = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(8, 3)
    return np.take_along_axis(box, unit_cube, axis=0)


def _entries(obs_id: object, given: ArrayLike | Sequence[ArrayLike]) -> list[NDArray[np.float64]]:
    """Return the positions of a volume, each of shape (1, 3) or (2, 3)."""
    found = []
    for position in given:  # type: ignore[union-attr]
        try:
            corners = np.asarray(position, np.float64)
        except (TypeError, ValueError):
            corners = np.empty(0)
        if corners.shape not in ((3,), (2, 3)) or not np.isfinite(corners).all():
            raise ConfigurationError(
                f"a position is a point (x, y, z) or a box of two corners, finite numbers; got "
                f"{position!r:.80} for {obs_id!r} (a list of positions is needed, also of one)"
            )
        corners = np.atleast_2d(corners)
        if len(corners) == 2 and (corners[0] == corners[1]).any():
            raise ConfigurationError(f"the box {position!r:.80} of {obs_id!r} is empty")
        found.append(corners)
    return found


def _jitter(given: float | Sequence[float]) -> tuple[float, ...]:
    try:
        values = np.broadcast_to(np.asarray(given, np.float64), (3,))
    except (TypeError, ValueError):
        values = np.full(3, np.nan)
    if not np.isfinite(values).all() or (values < 0).any():
        raise ConfigurationError(
            f"jitter must be a finite number >= 0, or one for each of three axes, got {given!r}"
        )
    return tuple(float(v) for v in values)
