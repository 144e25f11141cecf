"""Batches of which a device makes several at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import torch

from radiobject.ml.datasets.base import StoredDataset
from radiobject.ml.datasets.plan import SamplePlan
from radiobject.ml.device.decoding import STAGED_BYTES
from radiobject.ml.device.driver import HostMemory
from radiobject.ml.device.made import bytes_together
from radiobject.ml.device.source import DeviceSource
from radiobject.ml.loaders.buffers import PrivateBuffers
from radiobject.ml.loaders.lookahead import LookAhead, Made, Part

_AHEAD = 2
"""Groups in flight of batches whose tiles are decoded together: one on the device, one on its
way."""
_LOOKED_AFTER = 16
"""Groups after which it is seen whether a device has every volume by now."""
_LOOK_AHEAD = 4
_MOST_AHEAD = 32
_BYTES_AHEAD = 8 << 20
"""Of batches in host memory, four are made ahead, or more that are no larger than this."""
_LAUNCHED_AHEAD = 12
"""Batches ahead of their use by default: of those that a launch makes several of, more."""
_GROUPS = 3
"""Groups that `look_ahead` batches are: one that is given out, and two ahead of it."""


def compressed_buffers(host: HostMemory | None) -> PrivateBuffers:
    """Return memory from which tiles go to a device as they are stored."""
    return PrivateBuffers(STAGED_BYTES, _AHEAD + 1, host=host)


def batches_ahead(device: torch.device | None, batch_bytes: int) -> int:
    """Return how many batches are made ahead of their use by default."""
    if device is None:
        return min(max(_LOOK_AHEAD, _BYTES_AHEAD // max(batch_bytes, 1)), _MOST_AHEAD)
    if 2 * batch_bytes > bytes_together(device):
        return _LOOK_AHEAD
    return _LAUNCHED_AHEAD


class OnDeviceAhead:
    """Batches on a device with their plans, made ahead of their use and several at once.

    Where volumes are in memory, one launch gathers a few batches; where nothing holds them, the
    device decodes the tiles of many in one call.

    Parameters
    ----------
    dataset : StoredDataset
        What batches are made of.
    plans : iterator of SamplePlan
        The batches, in order.
    source : DeviceSource
        What makes them.
    buffers : PrivateBuffers
        Host memory for what the device cannot read.
    look_ahead : int
        Batches ahead of their use, at most; of groups that are decoded, so many of them.
    """

    def __init__(
        self,
        dataset: StoredDataset,
        plans: Iterator[SamplePlan],
        source: DeviceSource,
        buffers: PrivateBuffers,
        look_ahead: int,
    ) -> None:
        self._given: deque[tuple[Any, SamplePlan]] = deque()
        self._source, self._count = source, 0
        self._rest = plans, source, look_ahead
        self._launched: Iterator[Made] | None = None
        decode, most = source.decodes(), max(1, look_ahead // _GROUPS)
        wanted = look_ahead if decode else most
        # What the threads hold is not this object: they end when nobody holds it any more.
        self._ahead = LookAhead(
            dataset,
            _groups(plans, partial(source.together, most=wanted, decode=decode)),
            buffers,
            min(look_ahead, _AHEAD) if decode else look_ahead - most + 1,
            read=partial(_read, source, decode),
            weight=None if decode else len,
        )

    def __iter__(self) -> OnDeviceAhead:
        return self

    def __next__(self) -> Made:
        if not self._given:
            self._given.extend(self._next())
        batch, plan = self._given.popleft()
        return batch, [plan]

    def _next(self) -> Iterable[tuple[Any, SamplePlan]]:
        """Return what comes next; once the device has every volume, it is launched from here."""
        if self._launched is None:
            self._count += 1
            if self._count % _LOOKED_AFTER or not self._source.has_all():
                made, (group,) = next(self._ahead)
                return zip(made, group, strict=True)
            self._ahead.stop_reading()
            self._launched = chain(self._ahead_left(), LaunchedAhead(*self._rest))
        batch, (plan,) = next(self._launched)
        return [(batch, plan)]

    def _ahead_left(self) -> Iterator[Made]:
        for made, (group,) in self._ahead:
            yield from ((batch, [plan]) for batch, plan in zip(made, group, strict=True))

    @property
    def make_seconds(self) -> float:
        """Seconds that making batches took, of all threads together."""
        return self._ahead.make_seconds

    def stop_reading(self) -> None:
        """Take no plan any more: what is being made is still delivered, and nothing else."""
        self._ahead.stop_reading()


class LaunchedAhead:
    """Batches on a device that has every volume, with their plans, launched ahead of their use.

    A launch returns at once, so the thread that trains does it by itself: another thread would only
    take turns with it for the interpreter, which takes longer than the launches.

    Parameters
    ----------
    plans : iterator of SamplePlan
        The batches, in order.
    source : DeviceSource
        What makes them.
    look_ahead : int
        Batches ahead of their use, at most.
    """

    def __init__(self, plans: Iterator[SamplePlan], source: DeviceSource, look_ahead: int) -> None:
        most = max(1, look_ahead // _GROUPS)
        self._groups = _groups(plans, partial(source.together, most=most, decode=False))
        self._source, self._depth, self._size = source, look_ahead, 1
        self._ready: deque[tuple[Any, SamplePlan]] = deque()
        self._error: Exception | None = None
        self._ended = False

    def __iter__(self) -> LaunchedAhead:
        return self

    def __next__(self) -> Made:
        while not self._ended and len(self._ready) + self._size <= self._depth:
            self._launch()
        if self._ready:
            batch, plan = self._ready.popleft()
            return batch, [plan]
        error, self._error = self._error, None
        try:
            raise StopIteration if error is None else error
        finally:
            del error  # it holds this frame, and so the loader with its workers

    def _launch(self) -> None:
        """Start a group; an error of the plans is raised when what came before it is given out."""
        try:
            group = next(self._groups, None)
            made = [] if group is None else self._source.read_together(group, decode=False)
        except Exception as error:  # noqa: BLE001 - of a sampler, any
            self._error, group = error, None
        if group is None:
            self._ended = True
            return
        self._ready.extend(zip(made, group, strict=True))
        self._size = len(group)


def _groups(
    plans: Iterator[SamplePlan], together: Callable[[SamplePlan], int]
) -> Iterator[list[SamplePlan]]:
    """Yield plans by groups; an error of the plans comes after the group that it cut short."""
    wanted = 1
    while True:
        group: list[SamplePlan] = []
        failed: Exception | None = None
        try:
            for plan in plans:
                wanted = wanted if group else together(plan)
                group.append(plan)
                if len(group) >= wanted:
                    break
        except Exception as error:  # noqa: BLE001 - of a sampler, any
            failed = error
        if group:
            yield group
        if failed is not None:
            raise failed
        if not group:
            return


def _read(source: DeviceSource, decode: bool, groups: list[list[SamplePlan]]) -> list[list[Part]]:
    (group,) = groups  # what is read at once is a group already
    if len(group) == 1 and not decode:
        return [[Part(group, [source.read(group[0])])]]
    return [[Part(group, source.read_together(group, decode=decode))]]
