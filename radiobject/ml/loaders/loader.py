"""The loader: a `torch.utils.data.DataLoader` that knows its future."""

from __future__ import annotations

import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice, repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from radiobject.exceptions import ConfigurationError
from radiobject.ml.compat import monai as monai_compat
from radiobject.ml.datasets.base import StoredDataset
from radiobject.ml.datasets.plan import SamplePlan
from radiobject.ml.loaders.buffers import PrivateBuffers, aligned
from radiobject.ml.loaders.delivery import (
    AttachRing,
    BatchRequest,
    RequestGroup,
    collate_or_send,
    received,
)
from radiobject.ml.loaders.lookahead import LookAhead
from radiobject.ml.loaders.progress import Progress
from radiobject.ml.loaders.receipt import Receipt
from radiobject.ml.loaders.report import LoaderReport, Meter
from radiobject.ml.loaders.ring import SharedRing
from radiobject.ml.loaders.samplers import EpochSampler
from radiobject.storage.io import stats

_log = logging.getLogger(__name__)

_PLANNED_AT_ONCE = 64
"""Batches whose patches are placed in one vectorised call."""
_SPARE_SLOTS = 8
_MESSAGE_BYTES = 8 << 20
_MESSAGE_BATCHES = 4
"""A message to a worker asks for several batches while these are small."""


class VolumeLoader(DataLoader):
    """Batches of stored volumes, reproducible, resumable and read ahead.

    Each ``iter(loader)`` visits the next epoch; `set_epoch` chooses it. The order and the patches
    are functions of (seed, epoch) alone, equal for any number of workers.

    Parameters
    ----------
    dataset : StoredDataset
    sampler : EpochSampler
    batch_size : int
        Samples per batch and rank.
    drop_last : bool
        Leave an incomplete last batch out.
    num_workers : int
        0 reads ahead in threads of this process, which is the fastest way unless a transform needs
        the processor. Worker processes write into a shared ring of batches.
    pin_memory : bool
        Deliver page-locked memory; without an accelerator it does nothing.
    fixed_epoch : bool
        Every iteration visits epoch 0, for validation on equal patches.
    meta_tensor : bool
        Deliver one MONAI MetaTensor per array.
    receipt : bool
        Keep a running SHA-256 over the delivered voxels; see `receipt`.
    look_ahead : int
        Batches in flight without workers.
    **loader_options
        What else `torch.utils.data.DataLoader` takes: `persistent_workers`, `prefetch_factor`,
        `multiprocessing_context`, `timeout`, `worker_init_fn`.
    """

    def __init__(
        self,
        dataset: StoredDataset,
        sampler: EpochSampler,
        *,
        batch_size: int = 4,
        drop_last: bool = False,
        num_workers: int = 0,
        pin_memory: bool = False,
        fixed_epoch: bool = False,
        meta_tensor: bool = False,
        receipt: bool = False,
        look_ahead: int = 4,
        worker_init_fn: Callable[[int], None] | None = None,
        **loader_options: Any,
    ) -> None:
        _check_counts(batch_size=batch_size, look_ahead=look_ahead)
        super().__init__(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=num_workers,
            pin_memory=False,
            collate_fn=collate_or_send,
            worker_init_fn=worker_init_fn,
            # Workers' seeds would otherwise be drawn from the generator of the training loop.
            generator=torch.Generator().manual_seed(dataset.config.seed % 2**63),
            **loader_options,
        )
        self._pin = pin_memory and torch.cuda.is_available()
        self._meta_tensor = meta_tensor
        self._look_ahead = look_ahead
        self._user_init = worker_init_fn
        self._progress = Progress(sampler, batch_size, drop_last, fixed_epoch=fixed_epoch)
        self._receipt = Receipt() if receipt else None
        self._meter = Meter()
        self._before = stats.totals()
        self._buffers = PrivateBuffers(self._batch_bytes(), look_ahead + 2, pinned=self._pin)
        self._requests = _Requests(len(self))
        if len(self) == 0:
            warnings.warn(
                f"the loader delivers nothing: {len(sampler)} samples a rank, batch_size "
                f"{batch_size} and drop_last={drop_last}",
                stacklevel=3,
            )

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration visits."""
        return self._progress.next_epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration visits."""
        self._progress.set_epoch(int(epoch))
        self.dataset.set_epoch(int(epoch))  # type: ignore[attr-defined]

    def __len__(self) -> int:
        """Return the batches of a whole epoch on this rank."""
        return self._progress.batches(len(self.sampler))  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """Return where the consumer is: after the last batch it was given."""
        state = self._progress.state()
        state["receipt"] = self._receipt.hexdigest() if self._receipt is not None else None
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken, also with other workers, ranks or batch size.

        Raises
        ------
        ConfigurationError
            If the state is of another data set, configuration or seed.
        """
        self._progress.restore(state)
        if self._receipt is not None:
            self._receipt = Receipt(state.get("receipt"))

    def receipt(self) -> str:
        """Return the SHA-256 chain over all voxels delivered so far.

        Raises
        ------
        ConfigurationError
            If the loader was not made with ``receipt=True``.
        """
        if self._receipt is None:
            raise ConfigurationError("no receipt is kept; make the loader with receipt=True")
        return self._receipt.hexdigest()

    def report(self) -> LoaderReport:
        """Return what the loader did since it was last started, and why it starved the model."""
        here = {} if self.num_workers else _grown(self._before)
        transform = self.dataset.transform is not None  # type: ignore[attr-defined]
        return self._meter.report(here, workers=self.num_workers, transform=transform)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._meter, self._before = Meter(), stats.totals()
        dataset: StoredDataset = self.dataset  # type: ignore[assignment]
        plans = _plans(dataset, *self._progress.begin(), self.batch_size or 1)
        if self.num_workers == 0:
            return self._counted(LookAhead(dataset, plans, self._buffers, self._look_ahead))
        return self._counted(self._from_workers(dataset, plans))

    @property
    def _index_sampler(self) -> Any:
        """What DataLoader's iterators send to workers: requests instead of lists of indices."""
        return self._requests

    def _from_workers(
        self, dataset: StoredDataset, plans: Iterator[SamplePlan]
    ) -> Iterator[tuple[Any, int]]:
        before = self._requests.run
        messages = self.num_workers * (self.prefetch_factor or 1)
        together = self._batches_together()
        if before is None or not self.persistent_workers:
            ring = SharedRing(self._batch_bytes(), 2 * messages * together + _SPARE_SLOTS)
            self.worker_init_fn = AttachRing(ring, self._user_init)
        else:
            ring = before.ring
        self._requests.run = run = _Run(plans, ring, messages, together)
        with _fork_is_safe_here():
            deliveries = super().__iter__()
        if before is not None and before.ring is ring:
            # Persistent workers have answered every request of an epoch that was left early by now.
            before.abandon()
        return self._unpacked(deliveries, dataset, run)

    def _unpacked(
        self, deliveries: Iterator[Any], dataset: StoredDataset, run: _Run
    ) -> Iterator[tuple[Any, int]]:
        for group in deliveries:
            for delivery in group.deliveries:
                request = run.in_flight.popleft()
                self._meter.count(delivery.counted)
                yield received(delivery, request, dataset, run.ring), len(request.plan)

    def _counted(self, batches: Iterator[tuple[Any, int]]) -> Iterator[Any]:
        """Deliver batches, and keep the books: time, progress, receipt."""
        while True:
            since = self._meter.begin()
            try:
                batch, samples = next(batches)
            except StopIteration:
                break
            if self._receipt is not None:
                self._receipt.add(batch)
            if self._meta_tensor and not monai_compat.holds_metatensor([batch]):
                batch = monai_compat.batch_metatensor(batch)
            if self._pin and self.num_workers:
                batch = _pinned(batch)
            self._progress.delivered()
            self._meter.delivered(samples, since)
            yield batch
        self._progress.finished()
        report = self.report()
        if report.hint:
            _log.info("%s", report)

    def _batches_together(self) -> int:
        """Return how many batches a message asks for; a transform takes longer than a message."""
        if self.dataset.transform is not None:  # type: ignore[attr-defined]
            return 1
        return max(1, min(_MESSAGE_BATCHES, _MESSAGE_BYTES // self._batch_bytes()))

    def _batch_bytes(self) -> int:
        dataset: StoredDataset = self.dataset  # type: ignore[assignment]
        size = dataset.largest_batch_bytes(self.batch_size or 1)
        return aligned(size) + aligned(1) * len(dataset.fields)


class _Run:
    """One iteration with workers: what is still to be asked for, and what was asked for.

    Parameters
    ----------
    plans : iterator of SamplePlan
    ring : SharedRing
    messages : int
        Messages that are under way at once. So many ask for one batch only at first: the first
        batch is not to wait for others.
    together : int
        Batches that a later message asks for.
    """

    def __init__(
        self, plans: Iterator[SamplePlan], ring: SharedRing, messages: int, together: int
    ) -> None:
        self.plans = plans
        self.ring = ring
        self.in_flight: deque[BatchRequest] = deque()
        self._sizes = chain(repeat(1, messages), repeat(together))

    def requests(self) -> Iterator[RequestGroup]:
        """Yield requests, each with a slot of its own where one is free."""
        for size in self._sizes:
            plans = islice(self.plans, size)
            group = tuple(BatchRequest(plan, self.ring.take()) for plan in plans)
            if not group:
                return
            self.in_flight.extend(group)
            yield RequestGroup(group)

    def abandon(self) -> None:
        """Give back the slots of requests whose deliveries nobody will take."""
        while self.in_flight:
            slot = self.in_flight.popleft().slot
            if slot is not None:
                self.ring.give_back(slot)


class _Requests:
    """The requests of the loader's current run, as DataLoader expects of a batch sampler.

    It does not hold the loader: DataLoader's iterator keeps it, and in a cycle of garbage the
    queues of the workers would be closed before the workers are told to end, which then costs
    PyTorch's timeout of five seconds for each.
    """

    def __init__(self, batches: int) -> None:
        self.run: _Run | None = None
        self._batches = batches

    def __iter__(self) -> Iterator[RequestGroup]:
        return self.run.requests() if self.run is not None else iter(())

    def __len__(self) -> int:
        return self._batches


def _plans(
    dataset: StoredDataset, epoch: int, order: NDArray[np.int64], batch_size: int
) -> Iterator[SamplePlan]:
    """Yield the plan of each batch, placed many at a time."""
    for first in range(0, len(order), batch_size * _PLANNED_AT_ONCE):
        plan = dataset.plan(order[first : first + batch_size * _PLANNED_AT_ONCE], epoch)
        for begin in range(0, len(plan), batch_size):
            yield plan.cut(begin, begin + batch_size)


@contextmanager
def _fork_is_safe_here() -> Iterator[None]:
    """Silence TileDB's warning about fork: no worker uses, or frees, a context it inherited."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TileDB is a multithreading library", UserWarning)
        yield


def _grown(before: stats.Counters) -> dict[str, int]:
    now = stats.totals()
    return {name: getattr(now, name) - getattr(before, name) for name in now.__slots__}


def _pinned(batch: Any) -> Any:
    if not isinstance(batch, dict):
        return batch
    return {k: v.pin_memory() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def _check_counts(**counts: object) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigurationError(f"{name} must be a whole number >= 1, got {value!r}")
