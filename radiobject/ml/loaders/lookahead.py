"""Reading ahead: the plan is known, so the next batches are read while the model computes."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from radiobject.ml.datasets.base import StoredDataset
from radiobject.ml.datasets.batch import batch_of, collate
from radiobject.ml.datasets.plan import SamplePlan
from radiobject.ml.loaders.buffers import PrivateBuffers
from radiobject.ml.loaders.delivery import Collate
from radiobject.ml.loaders.pace import GroupSize, Pace
from radiobject.storage.read import prefetch as storage_prefetch
from radiobject.storage.read.reader import ReadRequest
from radiobject.storage.read.thread_pool import one_thread
from radiobject.system.processes import processors

REMOTE_DEPTH = 8
"""Batches in flight towards an object store, beside those that are ready."""

_MOST_THREADS = 8
_WEIGHT = 8
"""Batches that must be ready for one that was not: of a loop that only loads, one batch in as many
as there are readers is late, and even the last of the threads is to be started."""
_LATE = 6 * _WEIGHT
"""What `_ReorderBuffer.late` has to reach before another thread reads; the first batches always
are late."""

_GROUPS = 4
"""Groups that batches ahead make up at most, so that one is read while another is taken."""

_Numbered = tuple[int, Any]


Made = tuple[Any, list[Any]]
"""A batch, and the plans that it was made from."""


class LookAhead:
    """Batches with their plans, read up to `depth` ahead.

    A thread reads ahead. A consumer that finds its batch not ready does not sleep: it reads the
    next one that nobody reads yet. So a model that computes finds its batches ready, and a loop
    that only loads uses two processors. Where batches are late again and again another thread is
    started, as long as there is a processor for it: voxels are copied and decoded without the
    interpreter. Small batches that are cached are read several at once. Where a loop gets on faster
    without threads beside it, they rest, and the consumer reads what it takes; see `Pace`. Towards
    an object store one thread alone reads, many batches at once: there the time goes by on the
    network.

    A transform runs in the consumer's thread: it is the consumer's processor time either way, and
    its random state must not change under the training loop.

    Parameters
    ----------
    dataset : StoredDataset
        What is read.
    plans : iterator of SamplePlan
        The batches to come, in order; each is taken when a place is free. What `read` takes may be
        something else.
    buffers : PrivateBuffers
        Where batches go.
    depth : int
        Batches in flight.
    collate : callable
        Makes a batch of samples.
    read : callable, optional
        Makes the batch of a plan, in a list, otherwise than in host memory, for local data that
        nothing transforms.
    weight : callable, optional
        Returns how many of `depth` what `plans` yields counts for; by default each is one.
    pace : Pace, optional
        What the epoch before found out about the loop.
    """

    def __init__(
        self,
        dataset: StoredDataset,
        plans: Iterator[Any],
        buffers: PrivateBuffers,
        depth: int,
        collate: Collate = collate,
        read: Read | None = None,
        weight: Callable[[Any], int] | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._dataset = dataset
        self._collate = collate
        self._read = read or partial(_read_into, dataset, buffers)
        self._helps = not dataset.is_remote
        depth_there = depth + (REMOTE_DEPTH if dataset.is_remote else 0)
        most = max(1, depth // _GROUPS) if self._helps and read is None else 1
        pace = pace or Pace()
        self._buffer = _ReorderBuffer(plans, depth_there, weight, most, pace.group)
        if dataset.is_remote:
            work = partial(_read_in_flight, dataset, buffers, self._buffer)
        else:
            work = partial(_read_claims, self._read, self._buffer)
        self._work = work
        self._pace = pace if self._helps and read is None else None
        self._most = min(depth, _MOST_THREADS, max(1, processors() - 1)) if self._helps else 1
        self._readers: list[threading.Thread] = []
        # At exit too: a daemon thread must not be copying while the interpreter comes apart.
        weakref.finalize(self, _stop, self._readers, self._buffer, os.getpid())
        self._read_seconds = 0.0
        if self._pace is not None:
            self._pace.begin(depth)
        self._follow_pace()

    @property
    def threads(self) -> int:
        """Threads that read ahead, beside the consumer's."""
        return len(self._readers)

    def _follow_pace(self) -> None:
        """Let threads rest or read."""
        resting = self._pace is not None and self._pace.resting
        self._buffer.rest(resting)
        if not resting and not self._readers:
            self._start_thread()

    def _start_thread(self) -> None:
        reader = threading.Thread(target=self._work, name="radiobject-look-ahead", daemon=True)
        self._readers.append(reader)
        reader.start()

    def __iter__(self) -> LookAhead:
        return self

    def __next__(self) -> Made:
        while True:
            found = self._buffer.take(or_claim=self._helps)
            if found is None:
                raise StopIteration
            if self._buffer.late >= _LATE and len(self._readers) < self._most:
                self._buffer.late = 0
                self._start_thread()
            if isinstance(found, _Ready):
                break
            _read_claimed(self._read, self._buffer, found)
        begun = time.perf_counter()
        batch = self._finished(found.parts)
        self._buffer.took(time.perf_counter() - begun)
        if self._pace is not None:
            before, self._read_seconds = self._read_seconds, self._buffer.read_seconds
            self._pace.took(self._read_seconds - before)
            self._follow_pace()
        return batch, [part.plan for part in found.parts]

    @property
    def make_seconds(self) -> float:
        """Seconds that making batches took, of all threads together."""
        return self._buffer.read_seconds + self._buffer.finish_seconds

    def stop_reading(self) -> None:
        """Take no plan any more: what is being read is still delivered, and nothing else."""
        self._pace = None
        self._buffer.close()
        for reader in self._readers:
            reader.join()

    def _finished(self, parts: list[Part]) -> Any:
        if len(parts) == 1 and self._dataset.transform is None and self._collate is collate:
            return parts[0].batch
        found = [self._dataset.transformed(part.batch, part.plan) for part in parts]
        samples = found[0] if len(found) == 1 else [s for some in found for s in some]
        return self._collate(samples)


def one_ahead(batches: Iterator[Made]) -> Iterator[Made]:
    """Yield batches, each when the next has been started; an error in its own turn."""
    last: Made | None = None
    while True:
        try:
            made = next(batches, None)
        except Exception:
            if last is not None:
                yield last
            raise
        if last is not None:
            yield last
        if made is None:
            return
        last = made


@dataclass(frozen=True, slots=True)
class Part:
    """A batch that was read, or one sample of it, where shapes differ."""

    plan: Any
    batch: Any


Read = Callable[[list[Any]], list[list[Part]]]
"""Makes batches of plans, each of one part or several."""


@dataclass(frozen=True, slots=True)
class _Ready:
    parts: list[Part]


class _ReorderBuffer:
    """Who reads which batch: claimed in the order of the plans, delivered, taken in that order.

    Parameters
    ----------
    plans : iterator of SamplePlan
        The batches to come, in order.
    depth : int
        Batches that may be claimed and not yet taken.
    weight : callable, optional
        How many of them a plan counts for.
    most_together : int
        Batches that are claimed at once, at most.
    group : GroupSize, optional
        How many of them at first; it is changed here.
    """

    def __init__(
        self,
        plans: Iterator[Any],
        depth: int,
        weight: Callable[[Any], int] | None = None,
        most_together: int = 1,
        group: GroupSize | None = None,
    ) -> None:
        self._plans = plans
        self._depth = depth
        self._weight = weight or (lambda plan: 1)
        self._weights: deque[int] = deque()
        self._most_together = most_together
        self._group = GroupSize() if group is None else group
        # Reentrant: a finalizer that stops the reading may run while its own thread is in here.
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._rested = threading.Condition(lock)
        """Where threads wait while they rest: each batch would wake them otherwise."""
        self._ready: dict[int, _Ready | Exception] = {}
        self._claimed = 0
        self._taken = 0
        self._asked = -1
        self._closed = False
        self._broken = False
        self._resting = False
        self.read_seconds = 0.0
        self.finish_seconds = 0.0
        self.late = 0
        """Grows while more than a ninth of the batches are not ready when first asked for."""

    def took(self, seconds: float) -> None:
        """Note what a part of making a batch took."""
        with self._changed:
            self.finish_seconds += seconds

    def rest(self, resting: bool) -> None:
        """Let threads that read ahead rest, or go on: the consumer reads by itself meanwhile."""
        if resting == self._resting:
            return
        with self._changed:
            self._resting = resting
            self._rested.notify_all()

    def claim(self) -> list[_Numbered]:
        """Return what to read next, waiting until it may be read; nothing when all is read."""
        with self._changed:
            while not self._closed and (self._resting or not self._has_room(self._at_once())):
                (self._rested if self._resting else self._changed).wait()
            return self._next_plans()

    def put(self, number: int, ready: _Ready | Exception) -> None:
        """Store a batch, or the error in its place: then nothing more is claimed."""
        with self._changed:
            self._ready[number] = ready
            self._changed.notify_all()
            if isinstance(ready, Exception):
                self.close()

    def put_all(self, claimed: list[_Numbered], made: list[list[Part]], seconds: float) -> None:
        """Store batches that were read together, which took so long."""
        with self._changed:
            for (number, _), parts in zip(claimed, made, strict=True):
                self._ready[number] = _Ready(parts)
            self.read_seconds += seconds
            self._group.learn(len(claimed), seconds, self._most_together)
            self._changed.notify_all()

    def take(self, *, or_claim: bool) -> _Ready | list[_Numbered] | None:
        """Return the batch whose turn it is, or None after the last.

        Parameters
        ----------
        or_claim : bool
            If it is not ready, return what to read instead, where there is something.
        """
        with self._changed:
            if self._broken:
                return None
            if self._asked < self._taken and not self._resting:
                self._asked = self._taken
                late = self._taken not in self._ready
                self.late = max(0, self.late + (_WEIGHT if late else -1))
            while self._taken not in self._ready:
                if or_claim and self._has_room():
                    claimed = self._next_plans()
                    if claimed:
                        return claimed
                    if self._taken in self._ready:  # the plan failed, here and in its turn
                        break
                if self._closed and self._taken == self._claimed:
                    return None
                self._changed.wait()
            ready = self._ready.pop(self._taken)
            self._weights.popleft()
            self._taken += 1
            self._broken = isinstance(ready, Exception)
            if self._has_room(self._at_once()):
                self._changed.notify_all()
        if isinstance(ready, Exception):
            raise ready
        return ready

    def close(self) -> None:
        """Let nobody claim another batch."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._rested.notify_all()

    def _at_once(self) -> int:
        return min(self._group.now, self._most_together)

    def _next_plans(self) -> list[_Numbered]:
        claimed: list[_Numbered] = []
        while len(claimed) < self._at_once() and (not claimed or self._has_room()):
            found = self._next_plan()
            if found is None:
                break
            claimed.append(found)
        return claimed

    def _next_plan(self) -> _Numbered | None:
        if self._closed:
            return None
        number = self._claimed
        try:
            plan = next(self._plans, None)
        except Exception as error:  # noqa: BLE001 - raised again where the batch is asked for
            self._claimed += 1
            self._weights.append(1)
            self.put(number, error)
            return None
        if plan is None:
            self.close()
            return None
        self._claimed += 1
        self._weights.append(self._weight(plan))
        return number, plan

    def _has_room(self, more: int = 1) -> bool:
        """Return whether `more` may be claimed, which weigh as much as the last one each."""
        waiting = self._weights
        return not waiting or sum(waiting) + more * waiting[-1] <= self._depth


def _read_claimed(read: Read, buffer: _ReorderBuffer, claimed: list[_Numbered]) -> None:
    """Read claimed batches and hand them over, or what went wrong."""
    begun = time.perf_counter()
    try:
        made = read([plan for _, plan in claimed])
    except Exception as error:  # noqa: BLE001 - raised again where the batch is asked for
        buffer.took(time.perf_counter() - begun)
        if len(claimed) == 1:
            buffer.put(claimed[0][0], error)
            return
        for one in claimed:  # the error belongs to one of them
            _read_claimed(read, buffer, [one])
        return
    buffer.put_all(claimed, made, time.perf_counter() - begun)


def _read_into(
    dataset: StoredDataset, buffers: PrivateBuffers, plans: Sequence[SamplePlan]
) -> list[list[Part]]:
    """Read batches into host memory."""
    parts = [dataset.parts(plan) for plan in plans]
    voxels = {part: buffers.batch(dataset.layout(part)) for some in parts for part in some}
    with one_thread():  # the other processors read other batches
        dataset.fill_together(
            [(part, {name: t.numpy() for name, t in of.items()}) for part, of in voxels.items()]
        )
    return [[Part(p, batch_of(voxels[p], dataset.describe(p))) for p in some] for some in parts]


def _read_claims(read: Read, buffer: _ReorderBuffer) -> None:
    while claimed := buffer.claim():
        _read_claimed(read, buffer, claimed)


def _read_in_flight(
    dataset: StoredDataset, buffers: PrivateBuffers, buffer: _ReorderBuffer
) -> None:
    """Keep as many reads in flight as an object store's latency needs."""
    started: deque[list[Part]] = deque()

    def starting() -> Iterator[list[ReadRequest]]:
        while claimed := buffer.claim():
            ((_, plan),) = claimed  # of those in flight at once, each is claimed by itself
            parts, requests = _prepared(dataset, plan, buffers)
            started.append(parts)
            yield requests

    delivered = 0
    try:
        with storage_prefetch.Prefetch(starting(), depth=REMOTE_DEPTH) as ahead:
            for _ in ahead:
                buffer.put(delivered, _Ready(_normalised(dataset, started.popleft())))
                delivered += 1
    except Exception as error:  # noqa: BLE001 - raised again where the batch is asked for
        buffer.put(delivered, error)


def _prepared(
    dataset: StoredDataset, plan: SamplePlan, buffers: PrivateBuffers
) -> tuple[list[Part], list[ReadRequest]]:
    """Return the parts of a batch in buffers of their own, and the reads that fill them."""
    parts: list[Part] = []
    requests: list[ReadRequest] = []
    for part in dataset.parts(plan):
        layout = dataset.layout(part)
        voxels = buffers.batch(layout)
        requests += dataset.requests(part, {name: t.numpy() for name, t in voxels.items()})
        parts.append(Part(part, batch_of(voxels, dataset.describe(part))))
    return parts, requests


def _normalised(dataset: StoredDataset, parts: list[Part]) -> list[Part]:
    """Normalise what was read, in place."""
    for part in parts if dataset.scales is not None else ():
        images = dataset.voxel_names.images
        dataset.normalise({name: part.batch[name].numpy() for name in images}, part.plan)
    return parts


def _stop(readers: list[threading.Thread], buffer: _ReorderBuffer, pid: int) -> None:
    """End the threads; each finishes the batch that it is reading."""
    if os.getpid() != pid:  # a forked child has no such thread, and its lock may be held for ever
        return
    buffer.close()
    for reader in readers:
        if reader is not threading.current_thread():
            reader.join()
