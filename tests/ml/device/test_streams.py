"""On which stream, and in which mode of PyTorch, a device is given its work."""

import threading
from contextlib import contextmanager

import pytest
import torch
from device.fake_device import Reference

from radiobject.ml import DatasetConfig, VolumeCollectionDataset
from radiobject.ml.device.homes import Residence
from radiobject.ml.device.queue import NoQueue
from radiobject.ml.device.source import DeviceSource
from radiobject.ml.loaders.buffers import PrivateBuffers

CPU = torch.device("cpu")


class Watched(NoQueue):
    """A queue that counts the contexts it is running in."""

    depth = 0

    @contextmanager
    def running(self):
        self.depth += 1
        yield
        self.depth -= 1


@pytest.fixture
def dataset(shelf):
    return VolumeCollectionDataset(shelf, DatasetConfig("patch", (8, 8, 8), 2))


def source_of(dataset, **more):
    return DeviceSource(dataset, CPU, PrivateBuffers(1 << 20, 4), cache_bytes=1 << 24, **more)


@pytest.mark.parametrize("ask", ["has", "read", "read_together"])
def test_a_volume_goes_to_the_device_in_the_queue_whoever_asks_for_it(dataset, monkeypatch, ask):
    """Copied on another stream it would be gathered from before it is there."""
    queue, seen, put = Watched(), [], Residence.put
    source = source_of(dataset, queue=queue, decompress=Reference())

    def watched(*given):
        seen.append(queue.depth)
        return put(*given)

    monkeypatch.setattr(Residence, "put", watched)
    plan = dataset.plan([0, 2, 4], 0)
    getattr(source, ask)([plan] if ask == "read_together" else plan)
    assert seen
    assert all(seen)


def test_a_validation_loop_in_inference_mode_may_ask_for_the_first_volume(dataset):
    source = source_of(dataset)
    with torch.inference_mode():
        source.hand_over(source.read(dataset.plan([0], 0)))
    plan = dataset.plan([len(dataset) - 1], 0)
    got = source.hand_over(source.read(plan))
    assert torch.equal(got["image"], dataset.read(plan)["image"])
    assert source.counted["resident"] == 2


def test_a_batch_that_is_there_is_handed_over_while_another_is_made(dataset):
    source = source_of(dataset)
    made, got = source.read(dataset.plan([0], 0)), []
    with source._lock:  # as a thread holds it that reads a whole volume
        thread = threading.Thread(target=lambda: got.append(source.hand_over(made)), daemon=True)
        thread.start()
        thread.join(5.0)
        assert got
