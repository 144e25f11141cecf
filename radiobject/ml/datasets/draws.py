"""Which draw of a sample is meant, where the one who asks for it does not say.

Everything random about a sample is a function of (seed, epoch, index). Our own samplers hand out
indices that carry their epoch. Any other sampler hands out plain numbers, in a process that cannot
know which epoch it is in. So the processes that share a data set count together how often each
sample was asked for, and the k-th time is the k-th draw: new each time, and a function of the
sample and of k alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import context
from typing import Any

import numpy as np
import torch.distributed
from numpy.typing import NDArray

from radiobject.exceptions import ConfigurationError
from radiobject.sampling.foreground import FORCED, FREE
from radiobject.system.memory import SharedMemory

_HEADER = 4096
_EPOCH, _CHOSEN, _COUNTED = range(3)
"""What the header says of a row of counts: epoch, whether that was chosen, whether any was asked
for."""
_MOST_ROWS = 64
_MOST_BYTES = 16 << 20
"""Of the counts of all rows, where one row does not take more."""

_MARK_BITS = 61
_NUMBER = (1 << _MARK_BITS) - 1


def marked(index: NDArray[np.int64], forced: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the indices of samples that are to lie around a labelled voxel, or anywhere.

    What an index is marked with is part of it, as its draw is: the sample is the same in whatever
    loader and process.
    """
    return index | (np.where(forced, FORCED, FREE).astype(np.int64) << _MARK_BITS)


def numbers(
    index: NDArray[np.int64], samples: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return what indices are made of.

    Returns
    -------
    sample : ndarray of int64
        Number of the sample, below `samples`.
    draw : ndarray of int64
        The how-many-th extra draw of it.
    mark : ndarray of int64
        `BY_CHANCE`, `FORCED` or `FREE`.
    """
    draw, sample = np.divmod(index & _NUMBER, max(samples, 1))
    return sample, draw, index >> _MARK_BITS


def each_view(
    index: NDArray[np.int64], epoch: NDArray[np.int64], samples: int, views: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return index and epoch of every view of some samples, those of a sample together.

    The views of a draw are draws themselves, so that each has random numbers of its own.
    """
    if views == 1:
        return index, epoch
    sample, draw, mark = numbers(index, samples)
    apart = draw[:, None] * views + np.arange(views)
    every = sample[:, None] + apart * max(samples, 1) | (mark << _MARK_BITS)[:, None]
    return every.ravel(), np.repeat(epoch, views)


class SampleIndex(int):
    """The index of a sample that carries the epoch it is drawn for; otherwise a plain number.

    Parameters
    ----------
    value : int
        Number of the sample; ``i + k * len(dataset)`` is sample `i` drawn for the `k`-th extra
        time in an epoch.
    epoch : int
        The epoch that it is drawn for.
    samples : int, optional
        Samples of the data set that it was made for, so that another one does not take it.
    """

    epoch: int
    samples: int | None

    def __new__(cls, value: int, epoch: int, samples: int | None = None) -> SampleIndex:
        """Return `value`, with its epoch."""
        made = super().__new__(cls, value)
        made.epoch = epoch
        made.samples = samples
        return made

    def __getnewargs__(self) -> tuple[int, int, int | None]:  # type: ignore[override]
        return int(self), self.epoch, self.samples


def epoch_of(index: Any, samples: int) -> int | None:
    """Return the epoch that an index carries, None for a plain number.

    Raises
    ------
    ConfigurationError
        If it was made for a data set of another size than `samples`.
    """
    epoch: int | None = getattr(index, "epoch", None)
    made_for = getattr(index, "samples", None)
    if epoch is not None and made_for not in (None, samples):
        raise ConfigurationError(
            f"the sampler orders a data set of {made_for} samples, and this one has {samples}: "
            "give both the same"
        )
    return epoch


class Draws:
    """How often each sample was asked for by plain numbers, counted by all processes together.

    The counts lie in shared memory: forked workers inherit it, spawned ones are given it, and what
    one of them counts the others see. A pickle that travels otherwise (to another machine, to a
    file) takes the counts along as they are.

    Ranks of a process group count for themselves, each in a row of its own: they may have been
    started with a data set that was made before, and none of them is to depend on how far the
    others are.

    Parameters
    ----------
    samples : int
        Samples of the data set.
    """

    def __init__(self, samples: int) -> None:
        self._make(samples)
        self._group_given = (0, 1)

    def _make(self, samples: int) -> None:
        self._attach(SharedMemory("draws", _HEADER + 4 * samples * _rows_for(samples)), samples)

    def _attach(self, shared: SharedMemory, samples: int) -> None:
        rows = _rows_for(samples)
        self._shared = shared
        self._header: NDArray[np.int64] = np.frombuffer(shared.mapping, np.int64, 3 * rows)
        self._header = self._header.reshape(rows, 3)
        self._counts: NDArray[np.uint32] = np.frombuffer(
            shared.mapping, np.uint32, samples * rows, _HEADER
        ).reshape(rows, samples)
        self._samples = samples
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        state = {"samples": self._samples, "group": self._group()}
        if context.get_spawning_popen() is not None:
            return {**state, "shared": self._shared}
        row = self._row()  # of others it knows nothing: what is not touched takes no memory
        asked: NDArray[np.intp] = np.empty(0, np.intp)
        if self._header[row, _COUNTED]:
            asked = np.flatnonzero(self._counts[row])
        return {
            **state,
            "header": self._header[row].tolist(),
            "asked": asked,
            "counts": self._counts[row, asked],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._group_given = state["group"]
        if "shared" in state:
            self._attach(state["shared"], state["samples"])
            return
        self._make(state["samples"])
        epoch, chosen, _ = state["header"]
        self._header[:, [_EPOCH, _CHOSEN]] = epoch, chosen
        row = self._row()
        self._header[row] = state["header"]
        self._counts[row, state["asked"]] = state["counts"]

    @property
    def epoch(self) -> int:
        """The epoch that was chosen, or 0."""
        return int(self._header[self._row(), _EPOCH])

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that plain numbers are drawn for, in every process of a rank.

        Outside of a process group it holds for the ranks that are still to be started.
        """
        with self._alone():
            rows = [self._row()] if self._group()[1] > 1 else range(len(self._header))
            for row in rows:
                if self._header[row, _COUNTED]:
                    self._counts[row] = 0
                self._header[row] = epoch, 1, 0

    def take(self, sample: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return index and epoch of the next draw of each sample.

        Until an epoch is chosen, the k-th draw is that of epoch k; afterwards it is the k-th extra
        one of the epoch chosen. Ranks of a process group have draws of their own.

        Parameters
        ----------
        sample : ndarray of int64, shape (n,)
            Numbers from 0, below the number of samples.
        """
        rank, world = self._group()
        row, nth = self._row(), np.empty_like(sample)
        with self._alone():
            counts = self._counts[row]
            for place, number in enumerate(sample.tolist()):
                nth[place] = counts[number]
                counts[number] += 1
            self._header[row, _COUNTED] = 1
            epoch, chosen, _ = self._header[row].tolist()
        if chosen:
            return sample + (nth * world + rank) * self._samples, np.full_like(sample, epoch)
        return sample + rank * self._samples, nth + epoch

    def _row(self) -> int:
        """Return the row that this process's rank counts in."""
        return self._group()[0] % len(self._header)

    def _group(self) -> tuple[int, int]:
        """Return rank and size of the process group; a spawned worker has those of its parent."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return self._group_given

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the other threads and processes out."""
        if self._pid != os.getpid():  # a forked child may have inherited the lock held for ever
            self._lock, self._pid = threading.Lock(), os.getpid()
        with self._lock:
            self._shared.lock()
            try:
                yield
            finally:
                self._shared.unlock()


def _rows_for(samples: int) -> int:
    return max(1, min(_MOST_ROWS, _MOST_BYTES // max(4 * samples, 1)))
