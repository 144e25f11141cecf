"""Worker processes of a loader: PyTorch's, fed with requests instead of indices."""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from typing import Any, Protocol

from torch.utils.data import DataLoader

from radiobject.ml.datasets.base import StoredDataset
from radiobject.ml.datasets.plan import SamplePlan
from radiobject.ml.loaders.delivery import (
    AttachRing,
    BatchRequest,
    Collate,
    Delivery,
    FillRequest,
    RequestGroup,
    Ticket,
    check_answer,
    collate_or_send,
)
from radiobject.ml.loaders.ring import SharedRing
from radiobject.storage.read.locator import VolumeLocator

_SPARE_SLOTS = 8
_LOOKED_AT = 32
"""Batches at most that are looked at for a message, where only some need a worker."""

_END_S, _LOOK_S = 5.0, 0.005
"""How long the end of a process that broke its connection is waited for, and how often."""

_run_numbers = itertools.count()

Answer = tuple[BatchRequest, Delivery | None]


class Filled(Protocol):
    """Who reads batches out of the cache: `radiobject.ml.device.source.DeviceSource`."""

    def has(self, plan: SamplePlan) -> bool:
        """Return whether a batch needs nothing of a worker."""
        ...

    def wanted_whole(self) -> VolumeLocator | None:
        """Return a volume that is to be completed in the cache."""
        ...


class Workers:
    """Worker processes and the ring that they write into.

    Nothing here holds the loader: PyTorch's iterator keeps what it is made of, and in a cycle of
    garbage the queues of the workers would be closed before the workers are told to end, which
    then costs PyTorch's timeout of five seconds for each.

    Parameters
    ----------
    dataset : StoredDataset
        What they read.
    batch_bytes : int
        Capacity of one slot of the ring.
    together : int
        Batches that a message asks for, once the first messages are under way.
    collate : callable
        Makes a batch of samples.
    init : callable, optional
        The user's `worker_init_fn`.
    **options
        Of `torch.utils.data.DataLoader`: `num_workers`, `persistent_workers` and what else
        concerns processes.
    """

    def __init__(
        self,
        dataset: StoredDataset,
        batch_bytes: int,
        together: int,
        collate: Collate,
        init: Callable[[int], None] | None,
        **options: Any,
    ) -> None:
        self._messages = options["num_workers"] * (options["prefetch_factor"] or 1)
        self._together = together
        self.ring = SharedRing(batch_bytes, 2 * self._messages * together + _SPARE_SLOTS)
        self._requests = _Requests()
        self._made_with = (dataset.transform, collate)
        with _the_number_was_warned_of():
            self._loader: DataLoader = DataLoader(
                dataset,
                batch_sampler=self._requests,  # type: ignore[arg-type]
                collate_fn=collate_or_send,
                worker_init_fn=AttachRing(self.ring, collate, init),
                **options,
            )
        self._busy = False
        self._broken = False

    @property
    def is_busy(self) -> bool:
        """Whether a pass is under way."""
        return self._busy

    @property
    def can_start(self) -> bool:
        """Whether another pass may begin: none is under way, and every process lives."""
        if self._busy or self._broken:
            return False
        return all(process.is_alive() for process in self.processes)

    def would_do(self, dataset: StoredDataset, collate: Collate, slot_bytes: int) -> bool:
        """Return whether they would do what is wanted now: they have the data set as it was."""
        transform, made_with = self._made_with
        same = transform is dataset.transform and made_with is collate
        return same and self.ring.nbytes >= slot_bytes

    @property
    def processes(self) -> list[Any]:
        """The processes that wait for the next pass."""
        return list(getattr(self._loader._iterator, "_workers", []))

    def run(self, plans: Iterator[SamplePlan], filled: Filled | None = None) -> Iterator[Answer]:
        """Yield each batch's request and what was delivered for it.

        With `filled` they decode into the cache, for batches that need it; what is delivered for
        the others is None.

        After an error or an interrupt the processes are not used again: what they still deliver
        would answer requests that nobody remembers.
        """
        self._busy = True
        before = self._requests.run
        run = self._requests.run = _Run(plans, self.ring, self._messages, self._together, filled)
        deliveries: Any = None
        try:
            with _fork_is_safe_here():
                deliveries = iter(self._loader)
            if before is not None:
                # By now every request of a pass that was left early has been answered.
                before.abandon()
            yield from run.not_asked()
            for group in deliveries:
                for delivery in group.deliveries:
                    request = run.in_flight.popleft()
                    check_answer(delivery, request)  # here, so that who erred is not asked again
                    yield request, delivery
                    yield from run.not_asked()
                yield from run.not_asked()
        except GeneratorExit:
            raise
        except BaseException as error:
            self._broken = True
            gone = _gone(self.processes, error)
            _end(deliveries if deliveries is not None else self._loader._iterator)
            if gone and isinstance(error, (ConnectionError, EOFError)):
                # Killed while it handed a batch over: the same to the user as killed before.
                ids = ", ".join(map(str, gone))
                raise RuntimeError(
                    f"DataLoader worker (pid(s) {ids}) exited unexpectedly"
                ) from error
            raise
        finally:
            self._busy = False


def _gone(processes: Sequence[Any], error: BaseException) -> list[int]:
    """Return which processes have ended, those included that an error of a connection tells of."""
    if processes and isinstance(error, (ConnectionError, EOFError)):
        # The system closes what a process had open before it lets others know of its end.
        # Asked one by one: Windows waits for 63 processes at most.
        deadline = time.monotonic() + _END_S
        with contextlib.suppress(RuntimeError):  # PyTorch's word of it, as the signal arrives
            while all(process.is_alive() for process in processes):
                if time.monotonic() > deadline:
                    break
                time.sleep(_LOOK_S)
    return [process.pid for process in processes if not process.is_alive()]


def _end(deliveries: Any) -> None:
    """End the workers of PyTorch's iterator now.

    The error's traceback holds the iterator: as garbage it would be ended in the wrong order.
    """
    if hasattr(deliveries, "_shutdown_workers"):
        deliveries._shutdown_workers()


class _Run:
    """One pass: what is still to be asked for, and what was asked for.

    Parameters
    ----------
    plans : iterator of SamplePlan
        What is to be read.
    ring : SharedRing
        Where it goes.
    messages : int
        Messages that are under way at once. So many ask for one batch only at first: the first
        batch is not to wait for others.
    together : int
        Batches that a later message asks for.
    filled : Filled, optional
        For whom the cache is filled, instead of the ring.
    """

    def __init__(
        self,
        plans: Iterator[SamplePlan],
        ring: SharedRing,
        messages: int,
        together: int,
        filled: Filled | None,
    ) -> None:
        self._number = next(_run_numbers)
        self._batches = itertools.count()
        self._plans = plans
        self._ring = ring
        self._filled = filled
        self._ended = False
        self.in_flight: deque[BatchRequest] = deque()
        self._sizes = chain(repeat(1, messages), repeat(together))

    def requests(self) -> Iterator[RequestGroup]:
        """Yield requests, each with a slot of its own where one is free."""
        for size in self._sizes:
            group = tuple(self._asked(size))
            if not group and self._ended:
                return
            whole = None if self._filled is None else self._filled.wanted_whole()
            yield RequestGroup(group, whole)

    def _asked(self, size: int) -> Iterator[BatchRequest]:
        """Yield the next `size` requests that a worker has to answer, or fewer."""
        for _ in range(size if self._filled is None else _LOOKED_AT):
            plan = next(self._plans, None)
            if plan is None:
                self._ended = True
                return
            number = next(self._batches)
            if self._filled is not None and self._filled.has(plan):
                self.in_flight.append(BatchRequest(plan, Ticket(self._number, number, None)))
                continue
            kind = BatchRequest if self._filled is None else FillRequest
            request = kind(plan, Ticket(self._number, number, self._ring.take()))
            self.in_flight.append(request)
            yield request
            size -= 1
            if not size:
                return

    def not_asked(self) -> Iterator[Answer]:
        """Yield the batches whose turn it is and that no worker was asked for."""
        while self.in_flight and self._filled and not isinstance(self.in_flight[0], FillRequest):
            yield self.in_flight.popleft(), None

    def abandon(self) -> None:
        """Give back the slots of requests whose deliveries nobody will take."""
        while self.in_flight:
            slot = self.in_flight.popleft().ticket.slot
            if slot is not None:
                self._ring.give_back(slot)


class _Requests:
    """The requests of the current pass, as DataLoader expects of a batch sampler."""

    def __init__(self) -> None:
        self.run: _Run | None = None

    def __iter__(self) -> Iterator[RequestGroup]:
        return self.run.requests() if self.run is not None else iter(())


@contextmanager
def _fork_is_safe_here() -> Iterator[None]:
    """Silence TileDB's warning about fork: no worker uses, or frees, a context it inherited."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TileDB is a multithreading library", UserWarning)
        yield


@contextmanager
def _the_number_was_warned_of() -> Iterator[None]:
    """Silence PyTorch's warning of more workers than processors: the loader has passed it on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        yield
