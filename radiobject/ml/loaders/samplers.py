"""The order in which a loader visits its samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from radiobject.exceptions import ConfigurationError
from radiobject.ml.datasets.base import StoredDataset
from radiobject.sampling.epoch import Tail, block_shuffled, shard, shuffled, weighted


class EpochSampler(Sampler[int]):
    """Indices of a dataset's samples, as a function of (seed, epoch, rank).

    Parameters
    ----------
    dataset : StoredDataset
        Its configuration gives the seed.
    shuffle : bool
        Whether epochs are permuted; otherwise samples come in order.
    rank, world_size : int
        Which share of the epoch this process takes.
    tail : {"drop", "repeat", "uneven"}
        What happens to samples that do not divide by `world_size`; see `radiobject.sampling.epoch`.
    volumes_per_block : int, optional
        Shuffle inside blocks of this many volumes; see `block_shuffled` for what that costs.
    volume_weights : sequence of float, length of the volumes, optional
        Draw volumes with replacement, in proportion to their weights.
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
        volume_weights: Sequence[float] | None = None,
    ) -> None:
        _refuse_impossible(rank, world_size, volumes_per_block, volume_weights)
        if volume_weights is not None and len(volume_weights) != dataset.n_volumes:
            raise ConfigurationError(
                f"volume_weights must have one number per volume: {dataset.n_volumes}, "
                f"got {len(volume_weights)}"
            )
        if volume_weights is not None and volumes_per_block is not None:
            raise ConfigurationError("volume_weights and volumes_per_block exclude each other")
        self.dataset = dataset
        self.shuffle = shuffle
        self.rank, self.world_size = rank, world_size
        self.tail: Tail = tail
        self.volumes_per_block = volumes_per_block
        self.volume_weights = volume_weights
        self.epoch = 0

    @property
    def total(self) -> int:
        """Samples of one epoch, over all ranks."""
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that iteration visits."""
        self.epoch = int(epoch)

    def indices(self, epoch: int, start: int = 0) -> NDArray[np.int64]:
        """Return this rank's samples of an epoch, after the first `start` of all ranks."""
        whole = self._global_order(epoch)
        return shard(whole, self.rank, self.world_size, start=start, tail=self.tail)

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
        volumes = weighted(self.volume_weights or [], self.total, seed, epoch)
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
        return iter(self.indices(self.epoch).tolist())


def _refuse_impossible(
    rank: int,
    world_size: int,
    volumes_per_block: int | None,
    volume_weights: Sequence[float] | None,
) -> None:
    """Order nothing: what cannot order an epoch is refused now, and not at its first batch."""
    shard(np.empty(0, np.int64), rank, world_size)
    if volumes_per_block is not None:
        block_shuffled(np.empty(0, np.int64), 0, 0, volumes_per_block)
    if volume_weights is not None:
        weighted(volume_weights, 0, 0, 0)
