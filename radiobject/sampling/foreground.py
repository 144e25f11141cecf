"""How labels steer patches: by ratio, by class, by share of foreground, by weight.

Each rule is a frozen value, and `place` is a pure function of it, of random words and of the
label summaries. A volume without foreground still yields patches: uniform ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import ConfigurationError
from radiobject.sampling.foreground_share import foreground_bounds, foreground_share
from radiobject.sampling.labels import LabelSummary
from radiobject.sampling.patches import starts_around, uniform_starts
from radiobject.sampling.philox import philox, unit

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
    share is that of `foreground_share`: exact for small structures, and for large ones an estimate
    within the bounds that the label index gives.

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
Key = tuple[int, int | NDArray[np.int64], NDArray[np.int64]]
"""(seed, epoch, index of each sample): what decides a batch's random numbers."""


def check_classes(rule: Placement, summaries: Sequence[LabelSummary]) -> None:
    """Refuse a rule that names only classes that no volume has: all its patches would be uniform.

    Raises
    ------
    ConfigurationError
        With the classes there are.
    """
    named: Iterable[int] | None = None
    if isinstance(rule, PercentForeground):
        named = rule.classes
    elif not isinstance(rule, Uniform):
        named = rule.class_weights
    there = {int(value) for summary in summaries for value in summary.values}
    if named is not None and there.isdisjoint(int(c) for c in named):
        raise ConfigurationError(
            f"no mask has a voxel of the classes {sorted(named)}; there are {sorted(there)[:20]}"
        )


def place(
    rule: Placement,
    shapes: NDArray[np.int64],
    patch_size: Sequence[int],
    key: Key,
    summaries: Sequence[LabelSummary] | None = None,
) -> NDArray[np.int64]:
    """Return where each patch of a batch begins.

    Parameters
    ----------
    rule : Uniform, Foreground, PercentForeground or Weighted
    shapes : ndarray of int64, shape (n, d)
    patch_size : sequence of int, length d
    key : (seed, epoch, index of each sample, shape (n,))
        The epoch is one for all, or one per sample.
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


def _enough_foreground(
    rule: PercentForeground,
    shapes: NDArray[np.int64],
    patch_size: Sequence[int],
    key: Key,
    summaries: Sequence[LabelSummary],
) -> NDArray[np.int64]:
    tries = range(rule.tries)
    free = np.stack([philox(*key, _CANDIDATE_STREAM + t) for t in tries], axis=1)
    near = np.stack([philox(*key, _CANDIDATE_STREAM + rule.tries + t) for t in tries], axis=1)
    choices = unit(np.stack([philox(*key, _AROUND_STREAM + t) for t in tries], axis=1))
    starts = uniform_starts(shapes, patch_size, free[:, 0])
    for i, summary in enumerate(summaries):
        around = _positions(rule, summary, choices[i])
        if around is None:
            continue
        shape = np.broadcast_to(shapes[i], (rule.tries, shapes.shape[1]))
        uniform = uniform_starts(shape, patch_size, free[i])
        found = _first_enough(rule, summary, uniform, patch_size)
        if found is None:
            labelled = starts_around(around, shape, patch_size, near[i])
            found = _first_enough(rule, summary, labelled, patch_size)
            if found is None:
                every = np.concatenate((uniform, labelled))
                share = foreground_share(summary, every, patch_size, rule.classes)
                found = every[int(np.argmax(share))]
        starts[i] = found
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
    classes = np.searchsorted(edges, choices[:, 0] * edges[-1], side="right").tolist()
    sampled = [summary.positions[chosen[c]] for c in classes]
    flat = [int(p[int(u * len(p))]) for p, u in zip(sampled, choices[:, 1], strict=True)]
    return np.stack(np.unravel_index(flat, summary.shape), axis=-1)


def _first_enough(
    rule: PercentForeground,
    summary: LabelSummary,
    starts: NDArray[np.int64],
    patch_size: Sequence[int],
) -> NDArray[np.int64] | None:
    """Return the first start that suffices; sampled positions settle what the tiles leave open."""
    low, high = foreground_bounds(summary, starts, patch_size, rule.classes)
    enough = low >= rule.minimum
    first_sure = int(np.argmax(enough)) if enough.any() else len(starts)
    unsettled = np.flatnonzero(high[:first_sure] >= rule.minimum)
    if unsettled.size:
        share = foreground_share(summary, starts[unsettled], patch_size, rule.classes)
        enough[unsettled] = share >= rule.minimum
    return starts[int(np.argmax(enough))] if enough.any() else None


def _check_weights(weights: Mapping[int, float] | None) -> None:
    if weights is None:
        return
    bad = {c: w for c, w in weights.items() if not (np.isfinite(w) and w >= 0)}
    if bad or not any(weights.values()):
        raise ConfigurationError(
            f"class_weights must be finite numbers >= 0, not all 0, got {dict(weights)}"
        )
