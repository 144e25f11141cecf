"""Where the boxes of samples lie: their sides, how many a volume has, and the start of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.geometry.ras_view import RasView
from radiobject.ml.config import DatasetConfig, LoadingMode
from radiobject.ml.datasets import slices
from radiobject.ml.datasets.draws import numbers
from radiobject.ml.datasets.source import VolumeTable
from radiobject.sampling.at import At, Sites, check_ids, sites_of, starts_at
from radiobject.sampling.foreground import (
    PercentForeground,
    Uniform,
    can_be_placed,
    place,
)
from radiobject.sampling.labels import LabelSummary, viewed_summary
from radiobject.sampling.patches import check_patch_size, uniform_starts
from radiobject.sampling.philox import philox, unit

_AT_STREAM = 0x2A7


class Positions:
    """Boxes of samples, each a function of (seed, epoch, index).

    Parameters
    ----------
    config : DatasetConfig
        What a sample is; its seed decides every position.
    table : VolumeTable
        The volumes that decide.
    views : sequence of RasView, length of the volumes, optional
        What slices are cut from; boxes are counted in these.
    summaries : sequence of LabelSummary, length of the volumes, optional
        What placement by label needs.
    """

    def __init__(
        self,
        config: DatasetConfig,
        table: VolumeTable,
        views: Sequence[RasView] | None,
        summaries: Sequence[LabelSummary] | None,
    ) -> None:
        self._config, self._table = config, table
        self.shapes, self.affines = slices.seen(table, views)
        self.slice_axis: int | None = None
        self._summaries = summaries
        self._label_axes = 3 if not summaries else len(summaries[0].shape)
        if summaries is not None and views is not None:
            self._summaries = [viewed_summary(s, v) for s, v in zip(summaries, views, strict=True)]
        self._sites: list[Sites] | None = None
        self.side = self._sample_side()
        _refuse_impossible(config)
        if isinstance(config.placement, At):
            self._sites = self._all_sites(config.placement, views)
        self.first = self._first_samples()
        if self.total == 0 and len(table):
            raise ConfigurationError(
                "At(each=True) names no position in a volume of this data set: nothing would be "
                "delivered"
            )

    def _sample_side(self) -> tuple[int, ...] | None:
        """Return the sides of every box, or None where a box is its whole volume."""
        config, ndim = self._config, self.shapes.shape[1]
        if config.loading_mode == LoadingMode.FULL_VOLUME:
            return None
        if config.loading_mode == LoadingMode.SLICE_2D:
            self.slice_axis = slices.axis_of(config.slice_orientation)
            return self._slice_side(self.slice_axis, ndim)
        wanted = config.patch_size or ()
        given = check_patch_size(wanted, 4 if ndim == 4 and len(wanted) == 4 else 3)
        side = given + tuple(self._common(axis, "patch_size") for axis in range(len(given), ndim))
        self._refuse_small(side)
        return side

    def _slice_side(self, across: int, ndim: int) -> tuple[int, ...]:
        plane = [axis for axis in range(3) if axis != across]
        side = [1] * ndim
        if self._config.patch_size is None:
            for axis in plane:
                side[axis] = self._common(axis, "a patch_size of two sides")
        else:
            for axis, length in zip(
                plane, check_patch_size(self._config.patch_size, 2), strict=True
            ):
                side[axis] = length
        for axis in range(3, ndim):
            side[axis] = self._common(axis, "volumes of one length")
        self._refuse_small(tuple(side))
        return tuple(side)

    def _common(self, axis: int, instead: str) -> int:
        sides = np.unique(self.shapes[:, axis])
        if len(sides) > 1:
            raise ShapeError(
                f"collection {self._table.name!r} has heterogeneous shapes: axis {axis} has sides "
                f"{sides[:5].tolist()}; give {instead}"
            )
        return int(sides[0])

    def _refuse_small(self, side: tuple[int, ...]) -> None:
        small = np.flatnonzero((self.shapes < side).any(axis=1))
        if small.size and not self._config.pad:
            row = int(small[0])
            raise ShapeError(
                f"{small.size} volumes are smaller than patch_size {side}, first "
                f"{self._table.obs_ids[row]!r} of shape {tuple(self.shapes[row].tolist())}; "
                "pass pad=True or a smaller patch_size"
            )

    def _all_sites(self, rule: At, views: Sequence[RasView] | None) -> list[Sites]:
        table = self._table
        check_ids(rule, table.obs_ids)
        found = []
        for row, obs_id in enumerate(table.obs_ids):
            sites = sites_of(rule, obs_id, table.affines[row], table.shapes[row].tolist())
            if views is not None:
                sites = sites.seen(views[row], table.shapes[row], space=rule.space)
            found.append(sites)
        return found

    def _first_samples(self) -> NDArray[np.int64]:
        """Return the first sample of each volume, and one past the last of all."""
        config, rule = self._config, self._config.placement
        per_volume: NDArray[np.int64]
        if isinstance(rule, At) and rule.each:
            counted = [len(sites) for sites in self._sites or ()]
            per_volume = np.array(counted) * config.patches_per_volume
        elif config.loading_mode == LoadingMode.SLICE_2D:
            per_volume = self.shapes[:, self.slice_axis]
        else:
            patches = config.loading_mode == LoadingMode.PATCH
            per_volume = np.full(len(self._table), config.patches_per_volume if patches else 1)
        return np.concatenate(([0], np.cumsum(per_volume, dtype=np.int64)))

    @property
    def total(self) -> int:
        """Samples of an epoch."""
        return int(self.first[-1])

    @property
    def are_drawn(self) -> bool:
        """Whether a sample lies elsewhere in each epoch."""
        rule = self._config.placement
        if self.side is None:
            return False
        if isinstance(rule, At) and rule.each:
            return rule.jitter is not None
        return self.slice_axis is None or not isinstance(rule, Uniform)

    def have_foreground(self) -> NDArray[np.bool_]:
        """Return which volumes have voxels that a patch can be placed around."""
        rule = self._config.placement
        if isinstance(rule, Uniform | At) or self._summaries is None:
            return np.zeros(len(self._table), bool)
        return np.array([can_be_placed(rule, summary) for summary in self._summaries], bool)

    def starts(
        self,
        index: NDArray[np.int64],
        volume: NDArray[np.int64],
        member: NDArray[np.int64],
        epoch: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Return the first voxel of each box of a batch, negative where it is padded.

        Parameters
        ----------
        index : ndarray of int64, shape (n,)
            With draws and marks; see `radiobject.ml.datasets.draws`.
        volume, member, epoch : ndarray of int64, shape (n,)
            Row of the volume, number within it, and epoch.
        """
        shapes, rule = self.shapes[volume], self._config.placement
        if self.side is None:
            return np.zeros_like(shapes)
        key = (self._config.seed, epoch, index)
        if self.slice_axis is None:
            starts, elsewhere = uniform_starts(shapes, self.side, philox(*key)), None
        else:
            starts = -((np.array(self.side) - shapes) // 2)
            starts[:, self.slice_axis] = np.minimum(member, shapes[:, self.slice_axis] - 1)
            elsewhere = starts[:, : self._label_axes]
        if isinstance(rule, At):
            starts[:, :3] = self._at(rule, key, volume, member, starts[:, :3])
        elif not isinstance(rule, Uniform):
            axes = self._label_axes
            chosen = None if self._summaries is None else [self._summaries[v] for v in volume]
            starts[:, :axes] = place(
                rule,
                shapes[:, :axes],
                self.side[:axes],
                key,
                chosen,
                elsewhere=elsewhere,
                marks=numbers(index, self.total)[2],
            )
        return starts

    def _at(
        self,
        rule: At,
        key: tuple[int, NDArray[np.int64], NDArray[np.int64]],
        volume: NDArray[np.int64],
        member: NDArray[np.int64],
        elsewhere: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Return boxes at positions: those of a volume in turn, from epoch to epoch."""
        _, epoch, index = key
        turn = member
        if not rule.each:
            draw = numbers(index, self.total)[1] // self._config.views
            turn = member + np.diff(self.first)[volume] * (epoch + draw)
        return starts_at(
            rule,
            [(self._sites or [])[v] for v in volume],
            turn,
            self.affines[volume],
            self.shapes[volume][:, :3],
            (self.side or ())[:3],
            philox(*key),
            elsewhere,
            unit(philox(*key, _AT_STREAM))[:, 0],
        )


def _refuse_impossible(config: DatasetConfig) -> None:
    """Refuse what places no samples of this kind."""
    rule, mode = config.placement, config.loading_mode
    name = type(rule).__name__
    if not isinstance(rule, Uniform) and mode == LoadingMode.FULL_VOLUME:
        raise ConfigurationError(
            f"{name} places patches or slices, and a sample is a whole volume: give patch_size or "
            "slice_orientation"
        )
    if isinstance(rule, PercentForeground) and mode == LoadingMode.SLICE_2D:
        raise ConfigurationError(
            "PercentForeground places patches, and a sample is a slice: leave slice_orientation "
            "out, or use Foreground, which takes slices through labelled voxels"
        )
