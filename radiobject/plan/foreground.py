"""How labels steer patches: by ratio, by class, by share of foreground, by weight.

Each rule is a frozen value, and `place` is a pure function of it, of random words and of the
label summaries. A volume without foreground still yields patches: uniform ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import ConfigurationError
from radiobject.plan.labels import LabelSummary
from radiobject.plan.patches import starts_around, uniform_starts
from radiobject.plan.philox import philox, unit

_POSITION_STREAM = 0
_CHOICE_STREAM = 1
_CANDIDATE_STREAM = 0x100


@dataclass(frozen=True)
class Uniform:
    """Every position inside the volume is equally likely."""


@dataclass(frozen=True)
class Foreground:
    """A share of the patches contains a labelled voxel; the rest is uniform.

    Parameters
    ----------
    ratio : float
        Probability, in [0, 1], that a patch is placed around a labelled voxel. nnU-Net uses 1/3.
    per_class : bool
        Choose the class first, each alike, and then a voxel of it, so that a small structure is
        seen as often as a large one. Otherwise every labelled voxel is equally likely.
    class_weights : mapping of int to float, optional
        With `per_class`: relative probability of each class (0 for those not named).
    """

    ratio: float = 1 / 3
    per_class: bool = True
    class_weights: Mapping[int, float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ConfigurationError(f"foreground ratio must be in [0, 1], got {self.ratio}")
        _check_weights(self.class_weights)


@dataclass(frozen=True)
class PercentForeground:
    """Each patch holds at least a share of labelled voxels, where the volume allows it.

    Up to `tries` uniform positions are drawn and the first that suffices is taken, else the best
    of them. The share is computed from the counts per tile of the label summary, taking the
    voxels of a tile as spread evenly in it: exact for whole tiles, an estimate at the rim.

    Parameters
    ----------
    minimum : float
        Share of labelled voxels in the patch, in (0, 1].
    classes : sequence of int, optional
        The classes that count; None means all but the background.
    tries : int
        Positions drawn at most.
    """

    minimum: float = 0.1
    classes: Sequence[int] | None = None
    tries: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.minimum <= 1:
            raise ConfigurationError(f"minimum must be in (0, 1], got {self.minimum}")
        if self.tries < 1:
            raise ConfigurationError(f"tries must be at least 1, got {self.tries}")


@dataclass(frozen=True)
class Weighted:
    """Patches lie where the weight is: a voxel of class `c` has weight ``class_weights[c]``.

    Parameters
    ----------
    class_weights : mapping of int to float
        Weight of one voxel of each class; classes not named have weight 0.
    """

    class_weights: Mapping[int, float]

    def __post_init__(self) -> None:
        _check_weights(self.class_weights)


Placement = Uniform | Foreground | PercentForeground | Weighted


def place(
    rule: Placement,
    shapes: NDArray[np.int64],
    patch_size: Sequence[int],
    key: tuple[int, int, NDArray[np.int64]],
    summaries: Sequence[LabelSummary] | None = None,
) -> NDArray[np.int64]:
    """Return where each patch of a batch begins.

    Parameters
    ----------
    rule : Uniform, Foreground, PercentForeground or Weighted
    shapes : ndarray of int64, shape (n, d)
    patch_size : sequence of int, length d
    key : (seed, epoch, index of each sample, shape (n,))
    summaries : sequence of LabelSummary, length n
        The label summary of each sample's volume; not needed for `Uniform`.

    Returns
    -------
    ndarray of int64, shape (n, d)
    """
    words = philox(*key, _POSITION_STREAM)
    if isinstance(rule, Uniform):
        return uniform_starts(shapes, patch_size, words)
    if summaries is None:
        raise ConfigurationError(f"{type(rule).__name__} sampling needs a label collection")
    if isinstance(rule, PercentForeground):
        return _enough_foreground(rule, shapes, patch_size, key, summaries)
    starts = uniform_starts(shapes, patch_size, words)
    choices = unit(philox(*key, _CHOICE_STREAM))
    voxels = [_voxel(rule, s, u) for s, u in zip(summaries, choices, strict=True)]
    chosen = np.array([i for i, v in enumerate(voxels) if v is not None], dtype=np.intp)
    if chosen.size:
        around = np.array([v for v in voxels if v is not None])
        starts[chosen] = starts_around(around, shapes[chosen], patch_size, words[chosen])
    return starts


def _voxel(
    rule: Foreground | Weighted, summary: LabelSummary, choice: NDArray[np.float64]
) -> tuple[int, ...] | None:
    """Return the voxel a patch is placed around, or None for a uniform patch."""
    if isinstance(rule, Foreground) and choice[0] >= rule.ratio:
        return None
    chances = _chances(rule, summary)
    edges = np.cumsum(chances)
    if edges.size == 0 or edges[-1] <= 0:
        return None
    number = int(np.searchsorted(edges, choice[1] * edges[-1], side="right"))
    positions = summary.positions[number]
    flat = int(positions[int(choice[2] * len(positions))])
    return tuple(int(i) for i in np.unravel_index(flat, summary.shape))


def _chances(rule: Foreground | Weighted, summary: LabelSummary) -> NDArray[np.float64]:
    """Return the relative probability of each class of a volume."""
    counts = summary.counts.astype(np.float64)
    if isinstance(rule, Foreground) and not rule.per_class:
        return counts
    if rule.class_weights is None:
        return np.ones_like(counts)
    weights = np.array([float(rule.class_weights.get(int(v), 0.0)) for v in summary.values])
    return weights * counts if isinstance(rule, Weighted) else weights


def foreground_share(
    summary: LabelSummary,
    starts: NDArray[np.int64],
    patch_size: Sequence[int],
    classes: Sequence[int] | None = None,
) -> NDArray[np.float64]:
    """Return the share of labelled voxels in patches, estimated from the counts per tile.

    Parameters
    ----------
    starts : ndarray of int64, shape (m, d)

    Returns
    -------
    ndarray of float64, shape (m,)
    """
    held: NDArray[np.float64] = summary.tile_counts(classes).astype(np.float64)
    held = np.broadcast_to(held, (len(starts), *held.shape))
    for axis in range(len(patch_size) - 1, -1, -1):
        cover = _cover(summary, axis, starts[:, axis], patch_size[axis])
        held = np.einsum("m...t,mt->m...", held, cover)
    return held / float(np.prod(patch_size, dtype=np.int64))


def _cover(
    summary: LabelSummary, axis: int, starts: NDArray[np.int64], side: int
) -> NDArray[np.float64]:
    """Return the share of each tile that lies in each patch along one axis, shape (m, tiles)."""
    first = np.arange(summary.grid[axis]) * summary.extent[axis]
    last = np.minimum(first + summary.extent[axis], summary.shape[axis])
    low = np.maximum(starts[:, None], first)
    high = np.minimum(starts[:, None] + side, last)
    return np.maximum(high - low, 0) / (last - first)


def _enough_foreground(
    rule: PercentForeground,
    shapes: NDArray[np.int64],
    patch_size: Sequence[int],
    key: tuple[int, int, NDArray[np.int64]],
    summaries: Sequence[LabelSummary],
) -> NDArray[np.int64]:
    seed, epoch, index = key
    candidates = np.stack(
        [
            uniform_starts(shapes, patch_size, philox(seed, epoch, index, _CANDIDATE_STREAM + t))
            for t in range(rule.tries)
        ],
        axis=1,
    )
    starts = np.empty_like(shapes)
    for i, summary in enumerate(summaries):
        share = foreground_share(summary, candidates[i], patch_size, rule.classes)
        enough = share >= rule.minimum
        starts[i] = candidates[i, int(np.argmax(enough) if enough.any() else np.argmax(share))]
    return starts


def _check_weights(weights: Mapping[int, float] | None) -> None:
    if weights is None:
        return
    bad = {c: w for c, w in weights.items() if not (np.isfinite(w) and w >= 0)}
    if bad or not any(weights.values()):
        raise ConfigurationError(
            f"class_weights must be finite numbers >= 0, not all 0, got {dict(weights)}"
        )
