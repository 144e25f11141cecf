"""What a batch will hold, before a voxel is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class SamplePlan:
    """Which box of which volume each sample is.

    Parameters
    ----------
    epoch : ndarray of int64, shape (n,)
        The epoch that each sample is drawn for.
    index : ndarray of int64, shape (n,)
        Samples of the dataset; ``i + k * len(dataset)`` is the `k`-th extra draw of sample `i`.
        It may be marked; see `radiobject.ml.datasets.draws`.
    volume : ndarray of int64, shape (n,)
        Row of each sample's volume.
    member : ndarray of int64, shape (n,)
        Number of the patch or slice within its volume and epoch.
    start : ndarray of int64, shape (n, d)
        First voxel of each box; negative where the volume is padded.
    padding : ndarray of int64, shape (n, d, 2)
        Voxels of padding before and after each axis.
    affine : ndarray of float64, shape (n, 4, 4)
        Voxel index of the box to RAS+ mm.
    """

    epoch: NDArray[np.int64]
    index: NDArray[np.int64]
    volume: NDArray[np.int64]
    member: NDArray[np.int64]
    start: NDArray[np.int64]
    padding: NDArray[np.int64]
    affine: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.index)

    def cut(self, first: int, last: int) -> SamplePlan:
        """Return the plan of samples ``first <= i < last``."""
        return SamplePlan(
            self.epoch[first:last],
            self.index[first:last],
            self.volume[first:last],
            self.member[first:last],
            self.start[first:last],
            self.padding[first:last],
            self.affine[first:last],
        )

    @staticmethod
    def joined(plans: Sequence[SamplePlan]) -> SamplePlan:
        """Return the plan of the samples of several, one after the other."""
        if len(plans) == 1:
            return plans[0]
        return SamplePlan(*map(np.concatenate, zip(*map(_ARRAYS, plans), strict=True)))


_ARRAYS = attrgetter(*(field.name for field in fields(SamplePlan)))


def refuse_negative(which: NDArray[np.int64]) -> None:
    """Raise an `IndexError` for numbers of samples below 0."""
    if which.size and which.min() < 0:
        raise IndexError(f"samples are numbered from 0, got {which.tolist()}")


def refuse_beyond(which: NDArray[np.int64], samples: int) -> None:
    """Raise an `IndexError` for plain numbers of samples that a data set of `samples` lacks."""
    if which.size and which.max() >= samples:
        raise IndexError(f"sample {int(which.max())} is not in a dataset of {samples}")
