"""The order in which a loader visits its samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from radiobject.exceptions import ConfigurationError
from radiobject.ml.datasets.base import StoredDataset
from radiobject.ml.datasets.draws import SampleIndex
from radiobject.sampling.epoch import (
    Tail,
    block_shuffled,
    shard,
    shuffled,
    weighted,
)
from radiobject.sampling.foreground import Foreground


class Run:
    """One pass over an epoch, under way or over.

    Parameters
    ----------
    epoch : int
        The epoch that it visits.
    consumed : int
        What the consumer was given of it, over all ranks: samples, or batches where somebody
        else's sampler makes them.
    """

    def __init__(self, epoch: int, consumed: int = 0) -> None:
        self.epoch = epoch
        self.consumed = consumed
        self.over = False
        """Whether its position counts no more: it came to its end, or another epoch was chosen."""
        self.under_way = True
        """Whether somebody may still ask for its next batch."""


class EpochSampler(Sampler[int]):
    """Indices of a dataset's samples, as a function of (seed, epoch, rank).

    Each iteration visits the next epoch, which is settled when its first index is taken, and every
    index carries its epoch (`SampleIndex`): it is the same sample in whatever loader and process.

    Parameters
    ----------
    dataset : StoredDataset
        What is sampled; its configuration gives the seed, and its `set_epoch` is followed.
    shuffle : bool
        Whether epochs are permuted; otherwise samples come in order.
    rank, world_size : int
        Which share of the epoch this process takes.
    tail : {"drop", "repeat", "uneven"}
        What happens to samples that do not divide by `world_size`; see `radiobject.sampling.epoch`.
    volumes_per_block : int, optional
        Shuffle inside blocks of this many volumes; see `block_shuffled` for what that costs.
    volume_weights : array_like of float, length of the volumes, optional
        Draw volumes with replacement, in proportion to their weights.
    fixed_epoch : bool
        Every iteration visits epoch 0, whatever is asked: for validation on equal patches.
    batch_size : int, optional
        Samples per batch and rank, which ``Foreground(per_batch=True)`` has to know; `VolumeLoader`
        says it.
    """

    def __init__(
        self,
        dataset: StoredDataset,
        *,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        tail: Tail = "drop",
        volumes_per_block: int | None = None,
        volume_weights: Sequence[float] | NDArray[Any] | None = None,
        fixed_epoch: bool = False,
        batch_size: int | None = None,
    ) -> None:
        if not isinstance(dataset, StoredDataset):
            raise ConfigurationError(
                f"EpochSampler orders data sets of stored volumes, got {type(dataset).__name__}; "
                "in one that wraps them samples are new in every epoch with any sampler"
            )
        weights = None if volume_weights is None else np.asarray(volume_weights, np.float64)
        _refuse_impossible(rank, world_size, volumes_per_block, weights)
        if weights is not None and len(weights) != dataset.n_volumes:
            raise ConfigurationError(
                f"volume_weights must have one number per volume: {dataset.n_volumes}, "
                f"got {len(weights)}"
            )
        if weights is not None and volumes_per_block is not None:
            raise ConfigurationError("volume_weights and volumes_per_block exclude each other")
        if not shuffle and (weights is not None or volumes_per_block is not None):
            raise ConfigurationError(
                "volume_weights and volumes_per_block order a shuffled epoch; with shuffle=False "
                "they would do nothing"
            )
        self.dataset = dataset
        self.shuffle = shuffle
        self.rank, self.world_size = rank, world_size
        self.tail: Tail = tail
        self.volumes_per_block = volumes_per_block
        self.volume_weights = weights
        self.fixed_epoch = fixed_epoch
        self.batch_size = batch_size
        self._epoch = 0
        self._runs: WeakSet[Run] = WeakSet()
        dataset.tell(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_runs": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _runs=WeakSet())
        self.dataset.tell(self)

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration visits."""
        return self._epoch

    def follow(self, epoch: int) -> None:
        """Visit `epoch` next; where a pass stands is then no longer where the loader stands."""
        if not self.fixed_epoch:
            self._epoch = int(epoch)
            for run in list(self._runs):
                run.over = True

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration visits.

        An epoch that is under way is not begun again: trainers name it before or after they have
        started it.
        """
        if not any(run.epoch == epoch and run.under_way for run in list(self._runs)):
            self.choose_epoch(epoch)

    def choose_epoch(self, epoch: int) -> None:
        """Visit `epoch` next, even if it is under way, and tell the data set."""
        if not self.fixed_epoch:
            self.follow(epoch)
            self.dataset.choose_epoch(epoch)

    def refuse_another(self, dataset: StoredDataset) -> None:
        """Refuse to order the samples of a data set that is not this sampler's, nor equal to it.

        Raises
        ------
        ConfigurationError
        """
        if dataset is not self.dataset and dataset.fingerprint != self.dataset.fingerprint:
            raise ConfigurationError(
                f"the sampler orders another data set, of {len(self.dataset)} samples of "
                f"{self.dataset.n_volumes} volumes, than the loader's, of {len(dataset)} of "
                f"{dataset.n_volumes}: give both the same"
            )

    def begin(self, consumed: int = 0) -> Run:
        """Start the next pass; the one after it visits the epoch after."""
        run = Run(self._epoch, consumed)
        self._runs.add(run)
        if not self.fixed_epoch:
            self._epoch += 1
        return run

    @property
    def total(self) -> int:
        """Samples of one epoch, over all ranks."""
        return len(self.dataset)

    def indices(self, epoch: int, start: int = 0) -> NDArray[np.int64]:
        """Return this rank's samples of an epoch, after the first `start` of all ranks."""
        whole = self._global_order(epoch)
        mine = shard(whole, self.rank, self.world_size, start=start, tail=self.tail)
        rule = self.dataset.config.placement
        if not isinstance(rule, Foreground) or not rule.per_batch:
            return mine
        if self.batch_size is None:
            raise ConfigurationError(
                "Foreground(per_batch=True) needs the batch size: give it to EpochSampler, too, or "
                "use VolumeLoader"
            )
        return self.dataset.with_foreground(mine, self.batch_size)

    def _global_order(self, epoch: int) -> NDArray[np.int64]:
        seed = self.dataset.config.seed
        if self.volume_weights is not None:
            return self._weighted_order(seed, epoch)
        if not self.shuffle:
            return np.arange(self.total)
        if self.volumes_per_block is not None:
            groups = self.dataset.volumes_of(np.arange(self.total))
            return block_shuffled(groups, seed, epoch, self.volumes_per_block)
        return shuffled(self.total, seed, epoch)

    def _weighted_order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Draw volumes, and give each draw of a volume its next sample, then further patches."""
        volumes = weighted(np.asarray(self.volume_weights), self.total, seed, epoch)
        first, count = self.dataset.sample_ranges()
        order = np.argsort(volumes, kind="stable")
        ordered = volumes[order]
        opens = np.concatenate(([0], np.flatnonzero(np.diff(ordered)) + 1)).astype(np.int64)
        run = np.repeat(opens, np.diff(np.append(opens, len(ordered))))
        occurrence = np.empty_like(volumes)
        occurrence[order] = np.arange(len(ordered)) - run
        extra, member = np.divmod(occurrence, count[volumes])
        return first[volumes] + member + extra * self.total

    def __len__(self) -> int:
        even, extra = divmod(self.total, self.world_size)
        if self.tail == "drop" or not extra:
            return even
        return even + int(self.tail == "repeat" or self.rank < extra)

    def __iter__(self) -> Iterator[int]:
        return EpochIndices(self)


class EpochIndices(Iterator[int]):
    """One pass of an `EpochSampler`, which can be stopped and gone on with.

    Its state is what torchdata's `StatefulDataLoader` keeps of it.

    Parameters
    ----------
    sampler : EpochSampler
        Whose indices are visited.
    """

    def __init__(self, sampler: EpochSampler) -> None:
        self._sampler = sampler
        self._run: Run | None = None
        self._indices: list[int] = []
        self._yielded = 0

    def __next__(self) -> int:
        run = self._run if self._run is not None else self._begin()
        if self._yielded >= len(self._indices):
            run.under_way = False
            raise StopIteration
        self._yielded += 1
        return SampleIndex(self._indices[self._yielded - 1], run.epoch, self._sampler.total)

    def _begin(self) -> Run:
        self._run = run = self._sampler.begin()
        self._indices = self._sampler.indices(run.epoch).tolist()
        return run

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its indices were taken."""
        epoch = self._sampler.epoch if self._run is None else self._run.epoch
        return {"epoch": epoch, "yielded": self._yielded}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where a state was taken."""
        self._sampler.follow(state["epoch"])
        self._begin()
        self._yielded = int(state["yielded"])


def _refuse_impossible(
    rank: int,
    world_size: int,
    volumes_per_block: int | None,
    volume_weights: NDArray[np.float64] | None,
) -> None:
    """Order nothing: what cannot order an epoch is refused now, and not at its first batch."""
    shard(np.empty(0, np.int64), rank, world_size)
    if volumes_per_block is not None:
        block_shuffled(np.empty(0, np.int64), 0, 0, volumes_per_block)
    if volume_weights is not None:
        weighted(volume_weights, 0, 0, 0)
