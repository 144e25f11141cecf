"""How labels steer patches: by ratio, by class, by share of foreground, by weight.

Each rule is a frozen value, and `place` is a pure function of it, of random words and of the
label summaries. A volume without foreground still yields patches: uniform ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import ConfigurationError
from radiobject.sampling.at import At
from radiobject.sampling.foreground_share import foreground_bounds, foreground_share
from radiobject.sampling.labels import LabelSummary
from radiobject.sampling.patches import starts_around, starts_centred, uniform_starts
from radiobject.sampling.philox import philox, unit

_POSITION_STREAM = 0
_CHOICE_STREAM = 1
_CANDIDATE_STREAM = 0x100
_AROUND_STREAM = 0x10000

BY_CHANCE, FORCED, FREE = 0, 1, 2
"""How a sample was marked by the one who makes batches: by nobody; to lie around a labelled voxel;
to lie anywhere."""

ADDED: Any = {"added": True}
"""Marks options that came later: at their defaults, data sets are what they were without them."""


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
    class_weights : mapping of int or str to float, optional
        With `per_class`: relative probability of each class (0 for those not named).
    classes : sequence of int or str, optional
        The classes that count, by value, or by name where the mask's collection has names; None
        means all but the background.
    centred : bool
        Whether the voxel is the patch's centre (of an even side, voxel ``side // 2``), as in
        nnU-Net; a patch that would leave its volume is moved back. Otherwise it lies anywhere in
        the patch.
    per_batch : bool
        Whether each batch holds at least `ratio` of such patches, and at least one, as nnU-Net
        guarantees it; those of volumes that have foreground are taken first. `VolumeLoader` keeps
        it with any sampler, PyTorch's `DataLoader` where it asks our data set for a batch;
        `EpochSampler` has to know the batch size. Where samples are asked for one by one, as
        through another's data set, it is a probability, and a warning says so.
    mask : str, optional
        Name of the mask that counts, where there are several; by default the first.
    """

    ratio: float = 1 / 3
    per_class: bool = True
    class_weights: Mapping[int, float] | None = None
    classes: Sequence[int] | None = field(default=None, metadata=ADDED)
    centred: bool = field(default=False, metadata=ADDED)
    per_batch: bool = field(default=False, metadata=ADDED)
    mask: str | None = field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ConfigurationError(f"foreground ratio must be in [0, 1], got {self.ratio}")
        if self.per_batch and self.ratio == 0:
            raise ConfigurationError("per_batch=True needs a ratio above 0")
        _check_weights(self.class_weights)
        _check_classes(self.classes)


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
    classes : sequence of int or str, optional
        The classes that count, by value or name; None means all but the background.
    tries : int
        Positions drawn of each kind.
    mask : str, optional
        Name of the mask that counts, where there are several; by default the first.
    """

    minimum: float = 0.1
    classes: Sequence[int] | None = None
    tries: int = 16
    mask: str | None = field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        if not 0 < self.minimum <= 1:
            raise ConfigurationError(f"minimum must be in (0, 1], got {self.minimum}")
        if self.tries < 1:
            raise ConfigurationError(f"tries must be at least 1, got {self.tries}")
        _check_classes(self.classes)


@dataclass(frozen=True)
class Weighted:
    """Patches lie where the weight is: a voxel of class `c` has weight ``class_weights[c]``.

    Parameters
    ----------
    class_weights : mapping of int or str to float
        Weight of one voxel of each class, by value or name; classes not named have weight 0.
    mask : str, optional
        Name of the mask that counts, where there are several; by default the first.
    """

    class_weights: Mapping[int, float]
    mask: str | None = field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        _check_weights(self.class_weights)


ByLabel = Foreground | PercentForeground | Weighted
Placement = Uniform | At | ByLabel
Key = tuple[int, int | NDArray[np.int64], NDArray[np.int64]]
"""(seed, epoch, index of each sample): what decides a batch's random numbers."""


def with_values(rule: ByLabel, values_of: Callable[[str], Sequence[int]]) -> ByLabel:
    """Return a rule whose classes are values, where it had names.

    Parameters
    ----------
    values_of : callable
        Returns the values that a name stands for; a KeyError says which names there are.

    Raises
    ------
    ConfigurationError
        If nothing is called so.
    """

    def values(key: Any) -> Sequence[int]:
        try:
            return values_of(key) if isinstance(key, str) else (int(key),)
        except KeyError as error:
            raise ConfigurationError(
                f"{error.args[0]}; name classes by value, or store names with set_label_names"
            ) from error

    named: dict[str, Any] = {}
    if not isinstance(rule, Weighted) and _has_names(rule.classes):
        named["classes"] = tuple(value for key in rule.classes or () for value in values(key))
    if not isinstance(rule, PercentForeground) and _has_names(rule.class_weights):
        weights = rule.class_weights or {}
        named["class_weights"] = {v: w for key, w in weights.items() for v in values(key)}
    return replace(rule, **named) if named else rule


def _has_names(classes: Iterable[Any] | None) -> bool:
    return any(isinstance(key, str) for key in classes or ())


def check_classes(rule: ByLabel, summaries: Sequence[LabelSummary]) -> None:
    """Refuse a rule that names only classes that no volume has: all its patches would be uniform.

    Raises
    ------
    ConfigurationError
        With the classes there are.
    """
    there = {int(value) for summary in summaries for value in summary.values}
    named: list[Iterable[int] | None] = []
    if not isinstance(rule, Weighted):
        named.append(rule.classes)
    if not isinstance(rule, PercentForeground):
        named.append(rule.class_weights)
    for classes in named:
        if classes is not None and there.isdisjoint(int(c) for c in classes):
            raise ConfigurationError(
                f"no mask has a voxel of the classes {sorted(classes)}; there are "
                f"{sorted(there)[:20]}"
            )


def can_be_placed(rule: ByLabel, summary: LabelSummary) -> bool:
    """Return whether a volume has voxels that a patch can be placed around."""
    if isinstance(rule, PercentForeground):
        return any(rule.classes is None or int(v) in rule.classes for v in summary.values)
    return bool(_chances(rule, summary).sum() > 0)


def place(
    rule: Uniform | ByLabel,
    shapes: NDArray[np.int64],
    patch_size: Sequence[int],
    key: Key,
    summaries: Sequence[LabelSummary] | None = None,
    *,
    elsewhere: NDArray[np.int64] | None = None,
    marks: NDArray[np.int64] | None = None,
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
    elsewhere : ndarray of int64, shape (n, d), optional
        Where patches lie that are not placed by label; by default uniform in the volume.
    marks : ndarray of int64, shape (n,), optional
        `BY_CHANCE`, `FORCED` or `FREE`, for `Foreground`.

    Returns
    -------
    ndarray of int64, shape (n, d)
    """
    words = philox(*key, _POSITION_STREAM)
    free = uniform_starts(shapes, patch_size, words) if elsewhere is None else elsewhere
    if isinstance(rule, Uniform):
        return free
    if summaries is None:
        raise ConfigurationError(f"{type(rule).__name__} sampling needs a label collection")
    if isinstance(rule, PercentForeground):
        return _enough_foreground(rule, shapes, patch_size, key, summaries, elsewhere)
    starts = free.copy()
    choices = unit(philox(*key, _CHOICE_STREAM))
    marked = np.full(len(starts), BY_CHANCE) if marks is None else marks
    voxels = [
        _voxel(rule, s, u, int(m)) for s, u, m in zip(summaries, choices, marked, strict=True)
    ]
    chosen = np.array([i for i, v in enumerate(voxels) if v is not None], dtype=np.intp)
    if chosen.size:
        around = np.array([v for v in voxels if v is not None])
        if isinstance(rule, Foreground) and rule.centred:
            starts[chosen] = starts_centred(around, shapes[chosen], patch_size)
        else:
            starts[chosen] = starts_around(around, shapes[chosen], patch_size, words[chosen])
    return starts


def _voxel(
    rule: Foreground | Weighted, summary: LabelSummary, choice: NDArray[np.float64], mark: int
) -> tuple[int, ...] | None:
    """Return the voxel a patch is placed around, or None for a patch that lies elsewhere."""
    by_chance = isinstance(rule, Foreground) and choice[0] >= rule.ratio
    if mark == FREE or (by_chance and mark != FORCED):
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
    counted = np.ones_like(counts)
    if isinstance(rule, Foreground):
        if rule.classes is not None:
            counted = np.isin(summary.values, [int(c) for c in rule.classes]).astype(np.float64)
        if not rule.per_class:
            return counts * counted
    if rule.class_weights is None:
        return counted
    weights = np.array([float(rule.class_weights.get(int(v), 0.0)) for v in summary.values])
    return weights * (counts if isinstance(rule, Weighted) else counted)


def _enough_foreground(
    rule: PercentForeground,
    shapes: NDArray[np.int64],
    patch_size: Sequence[int],
    key: Key,
    summaries: Sequence[LabelSummary],
    elsewhere: NDArray[np.int64] | None,
) -> NDArray[np.int64]:
    tries = range(rule.tries)
    free = np.stack([philox(*key, _CANDIDATE_STREAM + t) for t in tries], axis=1)
    near = np.stack([philox(*key, _CANDIDATE_STREAM + rule.tries + t) for t in tries], axis=1)
    choices = unit(np.stack([philox(*key, _AROUND_STREAM + t) for t in tries], axis=1))
    starts = uniform_starts(shapes, patch_size, free[:, 0])
    for i, summary in enumerate(summaries):
        around = _positions(rule, summary, choices[i])
        if around is None:
            if elsewhere is not None:
                starts[i] = elsewhere[i]
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


def _check_classes(classes: Sequence[int] | None) -> None:
    if classes is None:
        return
    listed = isinstance(classes, Sequence | np.ndarray) and not isinstance(classes, str)
    if not listed or len(classes) == 0:
        raise ConfigurationError(
            f"classes must be a list of label values or names, got {classes!r}"
        )


def _check_weights(weights: Mapping[int, float] | None) -> None:
    if weights is None:
        return
    bad = {c: w for c, w in weights.items() if not (np.isfinite(w) and w >= 0)}
    if bad or not any(weights.values()):
        raise ConfigurationError(
            f"class_weights must be finite numbers >= 0, not all 0, got {dict(weights)}"
        )
