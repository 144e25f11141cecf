"""Normalised intensities: one value that says how, and means the same wherever voxels are read.

It is applied to what is delivered: after the rescale to the volume's units and after padding, and
before any transform. A voxel ``x`` becomes ``(clip(x, low, high) - mean) / std``, in the type that
is delivered, the same numbers in a loader, on a device and in `infer_collection`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from radiobject.exceptions import ConfigurationError
from radiobject.indexing import shortened
from radiobject.ml.datasets.pairing import check_geometry, pair_rows, seen_in_grid_of
from radiobject.ml.datasets.source import VolumeSource, VolumeTable, as_sources, read_table
from radiobject.sampling.intensities import IntensitySummary, pooled
from radiobject.storage.schema.intensity_index import Region, ensure_intensities

SMALLEST_STD = 1e-8
"""A smaller standard deviation counts as this one, as in nnU-Net: a constant volume becomes 0."""

_AS_IT_IS = (-np.inf, np.inf, 0.0, 1.0)


@dataclass(frozen=True)
class Normalization:
    """How the intensities of one channel are normalised.

    With `mean` and `std` all volumes are treated alike (CT, whose numbers mean the same in each);
    without, each by its own statistics, which are worked out once and stored beside its collection.

    Parameters
    ----------
    mean, std : float, optional
        In the volumes' units. Both or neither.
    low, high : float, optional
        Values to clip to before, in the volumes' units.
    above : float, optional
        Only voxels above it count for a volume's own statistics (all are normalised).
    percentiles : tuple of float, optional
        Clip to these percentiles of the volume's own statistics before.

    Raises
    ------
    ConfigurationError
        If the numbers cannot be meant together.
    """

    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    above: float | None = None
    percentiles: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise ConfigurationError("mean and std go together: give both, or neither")
        if self.std is not None and not 0 < self.std < np.inf:
            raise ConfigurationError(f"std must be a finite number above 0, got {self.std}")
        if self.mean is not None and not np.isfinite(self.mean):
            raise ConfigurationError(f"mean must be a finite number, got {self.mean}")
        for name, end in (("low", self.low), ("high", self.high), ("above", self.above)):
            if end is not None and np.isnan(end):
                raise ConfigurationError(f"{name} must be a number, got {end}")
        if self.is_fixed and (self.above is not None or self.percentiles is not None):
            raise ConfigurationError(
                "above and percentiles are for statistics of each volume; mean and std are given"
            )
        if self.low is not None and self.high is not None and not self.low <= self.high:
            raise ConfigurationError(f"low must not be above high, got {self.low}, {self.high}")
        if self.percentiles is not None:
            first, last = (float(p) for p in self.percentiles)
            if not 0 <= first < last <= 100:
                raise ConfigurationError(f"percentiles must ascend in [0, 100], got {first, last}")
            object.__setattr__(self, "percentiles", (first, last))

    @property
    def is_fixed(self) -> bool:
        """Whether all volumes are treated alike."""
        return self.mean is not None

    @classmethod
    def zscore(
        cls, *, above: float | None = None, percentiles: tuple[float, float] | None = None
    ) -> Normalization:
        """Return the normalisation of each volume to mean 0 and standard deviation 1.

        Parameters
        ----------
        above : float, optional
            Only voxels above it count for the statistics: 0 leaves out the air of a stripped brain.
        percentiles : tuple of float, optional
            Clip to these percentiles of the volume before.
        """
        return cls(above=above, percentiles=percentiles)

    @classmethod
    def ct(
        cls,
        collection: VolumeSource,
        labels: VolumeSource | None = None,
        *,
        above: float | None = None,
        percentiles: tuple[float, float] = (0.5, 99.5),
        resample_masks: bool = False,
    ) -> Normalization:
        """Return nnU-Net's normalisation of CT, from the foreground of a training set.

        Voxels are clipped to two percentiles of all foreground voxels together, and mean and
        standard deviation of the foreground (as it is, not clipped) become 0 and 1 (Isensee et al.,
        Nature Methods 2021). Give the training part alone: what is tested on must not decide. What
        was worked out is stored per volume, so another selection costs nothing.

        Parameters
        ----------
        collection : VolumeCollection
            The volumes that decide.
        labels : VolumeCollection, optional
            Masks of the same volumes: a label other than 0 is foreground.
        above : float, optional
            Voxels above it are foreground, such as -500 for the body; with `labels` both must hold.
        percentiles : tuple of float
            (low, high), in percent, of the foreground's values: where they are clipped.
        resample_masks : bool
            Whether masks of another grid are put on that of their volume; refused otherwise.

        Raises
        ------
        AlignmentError, ShapeError
            If masks do not pair with volumes.
        ConfigurationError
            If there is no foreground at all.
        """
        statistics = intensity_statistics(
            collection, labels, above=above, resample_masks=resample_masks
        )
        together = pooled(statistics.values())
        if not together.count:
            raise ConfigurationError("no voxel of any volume is foreground; normalise by another")
        first, last = (together.percentile(p) for p in percentiles)
        return cls(together.mean, max(together.std, SMALLEST_STD), first, last)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain numbers, to be kept with a model; ``Normalization(**given)`` again."""
        stated = {name: value for name, value in asdict(self).items() if value is not None}
        if self.percentiles is not None:
            stated["percentiles"] = list(self.percentiles)
        return stated


Normalizations = Normalization | Sequence[Normalization | None] | Mapping[str, Normalization | None]
"""One for all channels, or one for each: in their order, or by the collection's name."""


def described(given: Normalizations) -> str:
    """Return a normalisation as text: equal for equal ones."""
    if isinstance(given, Normalization):
        return json.dumps(given.to_dict(), sort_keys=True)
    if isinstance(given, Mapping):
        pairs = {name: None if rule is None else rule.to_dict() for name, rule in given.items()}
        return json.dumps(pairs, sort_keys=True)
    return json.dumps([None if rule is None else rule.to_dict() for rule in given])


def intensity_statistics(
    collection: VolumeSource,
    labels: VolumeSource | None = None,
    *,
    above: float | None = None,
    resample_masks: bool = False,
) -> dict[str, IntensitySummary]:
    """Return the statistics of the foreground of each volume, by its id.

    They come from the store where they are; the others are worked out, one pass over the voxels,
    and stored beside the collection. Parameters are those of `Normalization.ct`.
    """
    (source,) = as_sources({"image": collection}).values()
    volumes = read_table(source, "image")
    regions = [Region(above)] * len(volumes)
    if labels is not None:
        (given,) = as_sources({"labels": labels}).values()
        masks = read_table(given, "labels")
        masks = masks.take(pair_rows(volumes, masks))
        if resample_masks:
            masks = seen_in_grid_of(volumes, masks)
        else:
            check_geometry(volumes, masks)
        regrids = masks.regrids or [None] * len(masks)
        regions = [
            Region(above, mask, regrid)
            for mask, regrid in zip(masks.locators, regrids, strict=True)
        ]
    return dict(zip(volumes.obs_ids, _summaries(source.uri, volumes, regions), strict=True))


class ChannelScales:
    """The numbers by which each volume of a data set is normalised, channel by channel.

    Parameters
    ----------
    numbers : ndarray of float64, shape (n, C, 4)
        Low, high, mean and standard deviation of each volume and channel.
    """

    def __init__(self, numbers: NDArray[np.float64]) -> None:
        self.numbers = numbers

    def repeated(self, times: int) -> ChannelScales:
        """Return those of as many slices of each channel, one after the other."""
        return self if times == 1 else ChannelScales(np.repeat(self.numbers, times, axis=1))

    def apply(self, voxels: NDArray[Any], rows: NDArray[np.int64]) -> None:
        """Normalise a batch in place.

        Parameters
        ----------
        voxels : ndarray of floats, shape (B, C, ...)
            The images of a batch, changed in place.
        rows : ndarray of int64, shape (B,)
            The volume that each sample is cut from.
        """
        kind = voxels.dtype.type
        for sample, row in zip(voxels, self.numbers[rows], strict=True):
            for channel, (low, high, mean, std) in zip(sample, row, strict=True):
                if low > -np.inf or high < np.inf:
                    np.clip(channel, kind(low), kind(high), out=channel)
                channel -= kind(mean)
                channel /= kind(std)

    def apply_on_device(self, voxels: torch.Tensor, rows: NDArray[np.int64]) -> None:
        """Normalise a batch in place where it lies; the same numbers as `apply`, bit by bit."""
        chosen = torch.from_numpy(self.numbers[rows]).to(voxels.dtype)
        shaped = chosen.view(*chosen.shape, *(1,) * (voxels.ndim - 2))
        shaped = shaped.to(voxels.device, non_blocking=True)  # nobody waits for the gather
        low, high, mean, std = shaped.unbind(2)
        torch.clamp(voxels, low, high, out=voxels)
        voxels.sub_(mean).div_(std)


def channel_scales(
    given: Normalizations | None,
    sources: Mapping[str, VolumeSource],
    channels: Sequence[VolumeTable],
    dtype: np.dtype,
) -> ChannelScales | None:
    """Return how the channels of a data set are normalised; None where they are not.

    Parameters
    ----------
    given : Normalization, sequence or mapping of them, optional
        One for all channels, or one for each, in their order or by the collection's name.
    sources : mapping of str to VolumeSource
        The channels' collections.
    channels : sequence of VolumeTable
        Their volumes, rows paired.
    dtype : dtype
        What is delivered.

    Raises
    ------
    ConfigurationError
        If there is not one for each channel, a volume has no voxel that counts, or integers or
        half precision are to be delivered.
    """
    if given is None:
        return None
    if dtype.kind != "f" or dtype.itemsize < 4:
        raise ConfigurationError(
            f"normalised intensities need a dtype of float32 or float64, got {dtype}"
        )
    rules = _of_channels(given, list(sources))
    numbers = np.empty((len(channels[0]), len(channels), 4))
    for place, (rule, source, table) in enumerate(
        zip(rules, sources.values(), channels, strict=True)
    ):
        numbers[:, place] = _AS_IT_IS  # also what stands for a volume that is missing
        there = np.arange(len(table)) if table.missing is None else np.flatnonzero(~table.missing)
        numbers[there, place] = _numbers(rule, source.uri, table.take(there))
    return ChannelScales(numbers)


def _of_channels(given: Normalizations, names: list[str]) -> list[Normalization | None]:
    if isinstance(given, Normalization):
        return [given] * len(names)
    if isinstance(given, Mapping):
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise ConfigurationError(f"no channel {unknown[0]!r} to normalise; there are {names}")
        return [given.get(name) for name in names]
    rules = list(given)
    if len(rules) != len(names):
        raise ConfigurationError(
            f"one normalization for each of the channels {names} is needed, got {len(rules)}"
        )
    return rules


def _numbers(
    rule: Normalization | None, uri: str | None, table: VolumeTable
) -> NDArray[np.float64] | list[tuple[float, ...]]:
    if rule is None:
        return [_AS_IT_IS] * len(table)
    low = -np.inf if rule.low is None else rule.low
    high = np.inf if rule.high is None else rule.high
    if rule.mean is not None and rule.std is not None:
        return [(low, high, rule.mean, rule.std)] * len(table)
    summaries = _summaries(uri, table, [Region(rule.above)] * len(table))
    empty = [i for i, s in zip(table.obs_ids, summaries, strict=True) if not s.count]
    if empty:
        raise ConfigurationError(
            f"volumes of {table.name!r} have no voxel above {rule.above} to take statistics of: "
            f"{shortened(empty)}; choose another threshold"
        )
    return [_own(rule, summary, low, high) for summary in summaries]


def _own(
    rule: Normalization, summary: IntensitySummary, low: float, high: float
) -> tuple[float, float, float, float]:
    if rule.percentiles is not None:
        first, last = (summary.percentile(p) for p in rule.percentiles)
        low, high = max(low, first), min(high, last)
    return low, high, summary.mean, max(summary.std, SMALLEST_STD)


def _summaries(
    uri: str | None, table: VolumeTable, regions: Sequence[Region]
) -> list[IntensitySummary]:
    named = [
        replace(locator, obs_id=obs_id)
        for locator, obs_id in zip(table.locators, table.obs_ids, strict=True)
    ]
    return ensure_intensities(uri, named, regions)
