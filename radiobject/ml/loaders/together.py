"""Batches of which many are made at once, because a device decodes their tiles together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from radiobject.ml.datasets.base import StoredDataset
from radiobject.ml.datasets.plan import SamplePlan
from radiobject.ml.device.driver import HostMemory
from radiobject.ml.device.source import DeviceSource
from radiobject.ml.loaders.buffers import PrivateBuffers
from radiobject.ml.loaders.lookahead import LookAhead, Made, Part

_AHEAD = 2
"""Groups of batches in flight: one on the device, one on its way."""
_COMPRESSED_BYTES = 64 << 20
"""Memory for the tiles of a group as they are stored; taken when it is used."""


def compressed_buffers(host: HostMemory | None) -> PrivateBuffers:
    """Return memory from which tiles go to a device as they are stored."""
    return PrivateBuffers(_COMPRESSED_BYTES, _AHEAD + 1, host=host)


def decoded_there(
    dataset: StoredDataset,
    plans: Iterator[SamplePlan],
    source: DeviceSource,
    buffers: PrivateBuffers,
    look_ahead: int,
) -> Iterator[Made]:
    """Yield the batches of plans, made in groups, each with its plan.

    Parameters
    ----------
    dataset : StoredDataset
        What batches are made of.
    plans : iterator of SamplePlan
        The batches, in order.
    source : DeviceSource
        What makes the batches.
    buffers : PrivateBuffers
        Host memory for what the device cannot read.
    look_ahead : int
        Groups in flight, at most.
    """

    def groups() -> Iterator[list[SamplePlan]]:
        for first in plans:
            yield [first, *islice(plans, source.together(first) - 1)]

    def read(group: list[SamplePlan]) -> list[Part]:
        return [Part(group, source.read_together(group))]

    ahead = LookAhead(dataset, groups(), buffers, min(look_ahead, _AHEAD), read=read)
    for made, (group,) in ahead:
        for batch, plan in zip(made, group, strict=True):
            yield batch, [plan]
