"""How far a loader is, as a state that another loader can go on from."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Any, Protocol, cast

import numpy as np
import torch.distributed
from numpy.typing import NDArray

from radiobject.exceptions import ConfigurationError
from radiobject.ml.datasets.base import StoredDataset
from radiobject.ml.datasets.draws import epoch_of
from radiobject.ml.datasets.plan import SamplePlan, refuse_beyond
from radiobject.ml.loaders.samplers import EpochSampler, Run

_VERSION = 1
_PLANNED_AT_ONCE = 64
"""Batches whose patches are placed in one vectorised call."""


class Progress(Protocol):
    """Epoch and position of a loader, and what is still to be read."""

    @property
    def epoch(self) -> int:
        """The epoch that the next pass visits."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Visit `epoch` next, from its beginning unless a restored position is in it."""
        ...

    def batches(self) -> int:
        """Return the batches of a whole epoch on this rank."""
        ...

    def length(self) -> int | None:
        """Return the same, None where a sampler of somebody else has no end."""
        ...

    def begin(self) -> tuple[Run, Iterator[SamplePlan]]:
        """Start the next pass; return it, and the plan of each batch that is left of it."""
        ...

    def delivered(self, run: Run) -> None:
        """Note a batch that the consumer of a pass was given."""
        ...

    def state(self) -> dict[str, Any]:
        """Return the position, and what it is a position in."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Make the next pass go on from a state.

        Raises
        ------
        ConfigurationError
            If it is not a state, or of another data set or order.
        """
        ...


class _Position:
    """What both kinds of progress share: the last pass, a restored position, the state's form."""

    def __init__(self, dataset: StoredDataset) -> None:
        self._dataset = dataset
        self._run: Run | None = None
        self._restored = (0, 0)

    def _consumed_of(self, epoch: int) -> int:
        """Return the restored position, which holds for its own epoch only."""
        return self._restored[1] if self._restored[0] == epoch else 0

    def _state(self, epoch: int, consumed: int, order: str) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "epoch": epoch,
            "consumed": consumed,
            "seed": self._dataset.config.seed,
            "dataset": self._dataset.fingerprint,
            "order": order,
        }

    def _checked(self, state: dict[str, Any], here: dict[str, Any]) -> tuple[int, int]:
        """Return epoch and position of a state, and refuse that of something else."""
        needed = {"version", "epoch", "consumed", "dataset", "order", "seed"}
        if not isinstance(state, dict) or not needed <= set(state):
            raise ConfigurationError(f"a loader's state has {sorted(needed)}, got {state!r:.200}")
        if state["version"] != _VERSION:
            raise ConfigurationError(
                f"the state has version {state['version']}, expected {_VERSION}"
            )
        for key, what in (
            ("seed", "seed"),
            ("dataset", "data set (volumes, patches or types)"),
            ("order", "order of samples"),
        ):
            if state[key] != here[key]:
                raise ConfigurationError(
                    f"the state belongs to another {what}: {state[key]!r}, here {here[key]!r}"
                )
        return int(state["epoch"]), int(state["consumed"])


class SampleProgress(_Position):
    """Progress through the epochs of an `EpochSampler`; positions are samples of all ranks.

    Parameters
    ----------
    dataset : StoredDataset
        What is read.
    sampler : EpochSampler
        Over the same samples. It holds the epoch: who tells it another one tells the loader.
    batch_size : int
        Samples per batch and rank.
    drop_last : bool
        Whether an incomplete last batch is left out.
    """

    def __init__(
        self, dataset: StoredDataset, sampler: EpochSampler, batch_size: int, drop_last: bool
    ) -> None:
        super().__init__(dataset)
        self._sampler = sampler
        self._batch_size = batch_size
        self._drop_last = drop_last
        sampler.batch_size = batch_size

    @property
    def epoch(self) -> int:
        """The epoch that the next pass visits."""
        return self._sampler.epoch

    def set_epoch(self, epoch: int) -> None:
        """Visit `epoch` next, from its beginning unless a restored position is in it."""
        self._sampler.choose_epoch(epoch)

    def batches(self) -> int:
        """Return the batches of a whole epoch on this rank."""
        return self._batches_of(len(self._sampler))

    def length(self) -> int:
        """Return the same."""
        return self.batches()

    def _batches_of(self, samples: int) -> int:
        whole, rest = divmod(samples, self._batch_size)
        return whole + int(bool(rest) and not self._drop_last)

    def begin(self) -> tuple[Run, Iterator[SamplePlan]]:
        """Start the next pass; return it, and the plan of each batch that is left of it."""
        _warn_of_ranks_that_read_the_same(self._sampler)
        self._run = run = self._sampler.begin(self._consumed_of(self._sampler.epoch))
        self._restored = (0, 0)
        order = self._sampler.indices(run.epoch, run.consumed)
        kept = order[: self._batches_of(len(order)) * self._batch_size]
        if len(kept) == 0 and run.consumed == 0:
            warnings.warn("this epoch delivers nothing: drop_last leaves no batch", stacklevel=4)
        return run, self._plans(run.epoch, kept)

    def _plans(self, epoch: int, order: NDArray[np.int64]) -> Iterator[SamplePlan]:
        """Yield the plan of each batch, placed many at a time."""
        size = self._batch_size
        for first in range(0, len(order), size * _PLANNED_AT_ONCE):
            plan = self._dataset.plan(order[first : first + size * _PLANNED_AT_ONCE], epoch)
            rows = size * self._dataset.config.views
            for begin in range(0, len(plan), rows):
                yield plan.cut(begin, begin + rows)

    def delivered(self, run: Run) -> None:
        """Note one batch on every rank."""
        whole = self._sampler.total
        run.consumed = min(run.consumed + self._batch_size * self._sampler.world_size, whole)

    def _left_of(self, run: Run) -> int:
        """Return the samples that a pass has left for a rank."""
        even, extra = divmod(self._sampler.total - run.consumed, self._sampler.world_size)
        return even + int(extra > 0 and self._sampler.tail != "drop")

    def state(self) -> dict[str, Any]:
        """Return the position, and what it is a position in."""
        run = self._run
        if run is not None and not run.over and self._batches_of(self._left_of(run)):
            return self._state(run.epoch, run.consumed, self._order())
        return self._state(self.epoch, self._consumed_of(self.epoch), self._order())

    def restore(self, state: dict[str, Any]) -> None:
        """Make the next pass go on from a state."""
        epoch, consumed = self._checked(state, self.state())
        self._sampler.follow(epoch)
        self._restored = (epoch, consumed)
        self._run = None

    def _order(self) -> str:
        sampler = self._sampler
        if sampler.volume_weights is not None:
            weights = np.asarray(sampler.volume_weights, dtype="<f8")
            return f"weighted {hashlib.sha256(weights.tobytes()).hexdigest()[:16]}"
        if not sampler.shuffle:
            return "in order"
        return f"blocks of {sampler.volumes_per_block}" if sampler.volumes_per_block else "shuffled"


class BatchProgress(_Position):
    """Progress through the batches of somebody else's sampler; positions are its batches.

    Its indices may carry their epoch (`SampleIndex`). Those that do not are drawn for the loader's
    epoch: the first time that of its name, then its further draws; ranks have draws of their own.

    Parameters
    ----------
    dataset : StoredDataset
        What is sampled.
    sampler, batch_sampler : iterable
        As in `torch.utils.data.DataLoader`; the latter yields what is read, lists of indices. An
        ``epoch`` of the former, as `DistributedSampler` has, is followed when it changes.
    fixed_epoch : bool
        Every pass visits epoch 0.
    """

    def __init__(
        self, dataset: StoredDataset, sampler: Any, batch_sampler: Any, *, fixed_epoch: bool
    ) -> None:
        super().__init__(dataset)
        self._sampler = sampler
        self._batch_sampler: Iterable[Any] = batch_sampler
        self._fixed = fixed_epoch
        self._next = 0
        self._followed = self._epoch_of_sampler()
        dataset.tell(self)

    def _epoch_of_sampler(self) -> int | None:
        inner = getattr(self._batch_sampler, "sampler", self._sampler)
        given = getattr(inner, "epoch", None)
        return given if isinstance(given, int) else None

    @property
    def epoch(self) -> int:
        """The epoch that the next pass visits."""
        given = self._epoch_of_sampler()
        if given is not None and given != self._followed:
            self._followed = given
            self.follow(given)
        return self._next

    def follow(self, epoch: int) -> None:
        """Visit `epoch` next."""
        if not self._fixed:
            self._next, self._run = int(epoch), None

    def set_epoch(self, epoch: int) -> None:
        """Visit `epoch` next, from its beginning unless a restored position is in it."""
        for sampler in (
            self._batch_sampler,
            getattr(self._batch_sampler, "sampler", self._sampler),
        ):
            if callable(tell := getattr(sampler, "set_epoch", None)):
                tell(epoch)
        self._followed = self._epoch_of_sampler()
        self.follow(epoch)

    def batches(self) -> int:
        """Return the batches of a whole epoch on this rank."""
        return len(cast(Sized, self._batch_sampler))

    def length(self) -> int | None:
        """Return the same, None for a sampler without an end, which has no length."""
        try:
            return self.batches()
        except (TypeError, NotImplementedError):
            return None

    def begin(self) -> tuple[Run, Iterator[SamplePlan]]:
        """Start the next pass; return it, and the plan of each batch that is left of it."""
        epoch = self.epoch
        self._run = run = Run(epoch, self._consumed_of(epoch))
        self._restored = (0, 0)
        if not self._fixed:
            self._next = epoch + 1
        return run, islice(self._plans(epoch), run.consumed, None)

    def _plans(self, epoch: int) -> Iterator[SamplePlan]:
        rank, world = _process_group()
        size, seen = max(len(self._dataset), 1), Counter[int]()
        for batch in self._batch_sampler:
            index, epochs = [], []
            for number in batch:
                known = epoch_of(number, len(self._dataset))
                if known is None:
                    refuse_beyond(np.array([int(number)]), size)
                    extra = seen[int(number)] * world + rank
                    seen[int(number)] += 1
                    index.append(int(number) + extra * size)
                    epochs.append(epoch)
                else:
                    index.append(int(number))
                    epochs.append(0 if self._fixed else known)
            which = self._dataset.with_foreground(np.array(index, np.int64))
            yield self._dataset.plan(which, np.array(epochs, np.int64))

    def delivered(self, run: Run) -> None:
        """Note a batch."""
        run.consumed += 1

    def state(self) -> dict[str, Any]:
        """Return the position, and what it is a position in."""
        epoch, run, length = self.epoch, self._run, self.length()
        if run is not None and not run.over and (length is None or run.consumed < length):
            return self._state(run.epoch, run.consumed, self._order())
        return self._state(epoch, self._consumed_of(epoch), self._order())

    def restore(self, state: dict[str, Any]) -> None:
        """Make the next pass go on from a state."""
        epoch, consumed = self._checked(state, self.state())
        self.set_epoch(epoch)
        self._restored = (epoch, consumed)

    def _order(self) -> str:
        inner = getattr(self._batch_sampler, "sampler", self._sampler)
        length = self.length()
        return f"{'' if length is None else f'{length} '}batches of {type(inner).__name__}"


def _process_group() -> tuple[int, int]:
    """Return this process's rank and the number of ranks."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _warn_of_ranks_that_read_the_same(sampler: EpochSampler) -> None:
    ranks = _process_group()[1]
    if ranks > 1 and sampler.world_size == 1 and sampler.shuffle:
        warnings.warn(
            f"each of the {ranks} ranks of the process group reads the same batches: use "
            "radiobject.ml.distributed.create_distributed_dataloader",
            stacklevel=5,
        )
