"""What a placement rule promises of a whole batch, and who is told that it cannot be kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.ml.datasets.draws import marked, numbers
from radiobject.sampling.epoch import in_each_batch
from radiobject.sampling.foreground import Foreground


class BatchGuarantee:
    """The share of foreground in each batch that ``Foreground(per_batch=True)`` guarantees.

    Parameters
    ----------
    rule : object
        The placement rule, of whatever kind.
    samples : int
        Samples of the data set.
    """

    def __init__(self, rule: Any, samples: int) -> None:
        self._ratio = rule.ratio if isinstance(rule, Foreground) and rule.per_batch else None
        self._samples = samples
        self._warned = False

    def keep(
        self,
        index: NDArray[np.int64],
        lacking: Callable[[NDArray[np.int64]], NDArray[np.bool_]],
        batch_size: int | None = None,
    ) -> NDArray[np.int64]:
        """Return samples marked so that each batch holds its share.

        Parameters
        ----------
        index : ndarray of int64, shape (n,)
            Samples in their order; those that are marked already are left alone.
        lacking : callable
            Returns of which samples the volume has no foreground.
        batch_size : int, optional
            Samples of a batch; by default they are one.
        """
        if self._ratio is None or not len(index) or numbers(index, self._samples)[2].any():
            return index
        return marked(index, in_each_batch(lacking(index), batch_size or len(index), self._ratio))

    def warn_of_single_samples(self) -> None:
        """Say, once, that nothing can be guaranteed where nobody tells what a batch is."""
        if self._ratio is None or self._warned:
            return
        self._warned = True
        warnings.warn(
            "samples are asked for one by one, so Foreground(per_batch=True) can guarantee nothing "
            "of their batches: use VolumeLoader, a DataLoader over the data set itself, or "
            "EpochSampler(batch_size=...)",
            stacklevel=5,
        )
