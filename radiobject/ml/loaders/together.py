"""Batches of which a device makes several at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from radiobject.ml.datasets.base import StoredDataset
from radiobject.ml.datasets.plan import SamplePlan
from radiobject.ml.device.driver import HostMemory
from radiobject.ml.device.source import DeviceSource
from radiobject.ml.loaders.buffers import PrivateBuffers
from radiobject.ml.loaders.lookahead import LookAhead, Made, Part

_AHEAD = 2
"""Groups in flight of batches whose tiles are decoded together: one on the device, one on its
way."""
_COMPRESSED_BYTES = 64 << 20
"""Memory for the tiles of a group as they are stored; taken when it is used."""
_GROUPS = 3
"""Groups that `look_ahead` batches are: one that is given out, and two ahead of it."""


def compressed_buffers(host: HostMemory | None) -> PrivateBuffers:
    """Return memory from which tiles go to a device as they are stored."""
    return PrivateBuffers(_COMPRESSED_BYTES, _AHEAD + 1, host=host)


class AheadOnDevice:
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
        decode, most = source.decodes(), max(1, look_ahead // _GROUPS)
        # What the threads hold is not this object: they end when nobody holds it any more.
        self._ahead = LookAhead(
            dataset,
            _groups(plans, partial(source.together, most=most, decode=decode)),
            buffers,
            min(look_ahead, _AHEAD) if decode else look_ahead - most + 1,
            read=partial(_read, source, decode),
            weight=None if decode else len,
        )

    def __iter__(self) -> AheadOnDevice:
        return self

    def __next__(self) -> Made:
        if not self._given:
            made, (group,) = next(self._ahead)
            self._given.extend(zip(made, group, strict=True))
        batch, plan = self._given.popleft()
        return batch, [plan]

    @property
    def make_seconds(self) -> float:
        """Seconds that making batches took, of all threads together."""
        return self._ahead.make_seconds

    def stop_reading(self) -> None:
        """Take no plan any more: what is being made is still delivered, and nothing else."""
        self._ahead.stop_reading()


def _groups(
    plans: Iterator[SamplePlan], together: Callable[[SamplePlan], int]
) -> Iterator[list[SamplePlan]]:
    for first in plans:
        yield [first, *islice(plans, together(first) - 1)]


def _read(source: DeviceSource, decode: bool, group: list[SamplePlan]) -> list[Part]:
    if len(group) == 1 and not decode:
        return [Part(group, [source.read(group[0])])]
    return [Part(group, source.read_together(group, decode=decode))]
