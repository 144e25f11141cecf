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
_AROUND_STREAM = 0x10000


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

    The first of `tries` uniform positions that suffices is taken; where none does, the first of as
    many positions around labelled voxels, which finds small structures; else the best of all. The
    share is that of `foreground_share`: exact for small structures, an estimate for large ones.

    Parameters
    ----------
    minimum : float
        Share of labelled voxels in the patch, in (0, 1].
    classes : sequence of int, optional
        The classes that count; None means all but the background.
    tries : int
        Positions drawn of each kind.
    """

    minimum: float = 0.1
    classes: Sequence[int] | None = None
    tries: int = 16

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
    """Return the share of labelled voxels in patches, from the sampled positions.

    Exact for classes of which every position is kept; else the standard error of a patch that
    holds a share `p` of a class is about ``sqrt(p / kept)`` of that class.

    Parameters
    ----------
    starts : ndarray of int64, shape (m, d)

    Returns
    -------
    ndarray of float64, shape (m,)
    """
    held = np.zeros(len(starts))
    for value, count, flat in zip(summary.values, summary.counts, summary.positions, strict=True):
        if classes is not None and int(value) not in classes:
            continue
        inside: NDArray[np.bool_] = np.ones((len(starts), len(flat)), bool)
        voxels = np.unravel_index(flat.astype(np.int64), summary.shape)
        for axis, (where, side) in enumerate(zip(voxels, patch_size, strict=True)):
            apart = where[None] - starts[:, axis, None]
            inside &= (apart >= 0) & (apart < side)
        held += inside.mean(axis=1) * count
    return held / float(np.prod(patch_size, dtype=np.int64))


def _enough_foreground(
    rule: PercentForeground,
    shapes: NDArray[np.int64],
    patch_size: Sequence[int],
    key: tuple[int, int, NDArray[np.int64]],
    summaries: Sequence[LabelSummary],
) -> NDArray[np.int64]:
    seed, epoch, index = key
    words = [philox(seed, epoch, index, _CANDIDATE_STREAM + t) for t in range(2 * rule.tries)]
    choices = [unit(philox(seed, epoch, index, _AROUND_STREAM + t)) for t in range(rule.tries)]
    starts = uniform_starts(shapes, patch_size, words[0])
    for i, summary in enumerate(summaries):
        shape = np.broadcast_to(shapes[i], (rule.tries, shapes.shape[1]))
        drawn = np.stack([w[i] for w in words])
        free = uniform_starts(shape, patch_size, drawn[: rule.tries])
        around = _positions(rule, summary, np.stack([c[i] for c in choices]))
        if around is not None:
            near = starts_around(around, shape, patch_size, drawn[rule.tries :])
            starts[i] = _first_enough(rule, summary, (free, near), patch_size)
    return starts


def _positions(
    rule: PercentForeground, summary: LabelSummary, choices: NDArray[np.float64]
) -> NDArray[np.int64] | None:
    """Return one labelled voxel per row of `choices`, or None where there is none."""
    chosen = [
        number
        for number, value in enumerate(summary.values)
        if rule.classes is None or int(value) in rule.classes
    ]
    if not chosen:
        return None
    edges = np.cumsum(summary.counts[chosen])
    flat = []
    for choice in choices:
        number = chosen[int(np.searchsorted(edges, choice[0] * edges[-1], side="right"))]
        positions = summary.positions[number]
        flat.append(int(positions[int(choice[1] * len(positions))]))
    return np.stack(np.unravel_index(flat, summary.shape), axis=-1)


def _first_enough(
    rule: PercentForeground,
    summary: LabelSummary,
    candidates: Sequence[NDArray[np.int64]],
    patch_size: Sequence[int],
) -> NDArray[np.int64]:
    best, best_share = candidates[0][0], -1.0
    for starts in candidates:
        share = foreground_share(summary, starts, patch_size, rule.classes)
        enough = share >= rule.minimum
        if enough.any():
            return starts[int(np.argmax(enough))]
        if share.max() > best_share:
            best, best_share = starts[int(np.argmax(share))], float(share.max())
    return best


def _check_weights(weights: Mapping[int, float] | None) -> None:
    if weights is None:
        return
    bad = {c: w for c, w in weights.items() if not (np.isfinite(w) and w >= 0)}
    if bad or not any(weights.values()):
        raise ConfigurationError(
            f"class_weights must be finite numbers >= 0, not all 0, got {dict(weights)}"
        )
