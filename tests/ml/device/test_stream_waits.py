"""How long the consumer's stream stands still for its batches, told by a faked stream."""

from types import SimpleNamespace

from radiobject.ml import create_training_dataloader
from radiobject.ml.device import queue as queue_module
from radiobject.ml.device.queue import CudaWait, NoQueue, StreamWaits


class Stream(NoQueue):
    """A stream that passes a wait when it is told; the n-th takes a quarter of n seconds."""

    def __init__(self):
        self.passed, self.waits = 0, 0

    def hand_over(self, mark, tensors):
        self.waits += 1
        number = self.waits
        return SimpleNamespace(seconds=lambda: 0.25 * number if number <= self.passed else None)


def test_the_report_tells_how_long_the_consumers_stream_stood_still(shelf):
    loader = create_training_dataloader(
        shelf, batch_size=3, patch_size=(8, 8, 8), device="cpu", patches_per_volume=4, num_workers=0
    )
    stream = loader._on_device()._queue = Stream()
    for _ in loader:
        assert loader.report().device.stream_wait_s == 0.0  # nobody waits for what is to come
    batches = stream.waits
    assert batches == len(loader) > 4
    stream.passed = 2
    assert loader.report().device.stream_wait_s == 0.75
    stream.passed = batches
    report = loader.report()
    assert report.device.stream_wait_s == 0.25 * batches * (batches + 1) / 2
    assert f"the stream waited {report.device.stream_wait_s:.2f} s" in str(report)
    assert report.hint is not None  # the model starved, if not in the loop
    stream.waits = stream.passed = 0
    list(loader)
    assert loader.report().device.stream_wait_s == 0.0  # of this pass


def test_waits_that_the_stream_never_passes_take_no_memory():
    waits = StreamWaits()
    for _ in range(1000):
        waits.add(SimpleNamespace(seconds=lambda: None))
    assert len(waits._pending) == queue_module._MOST_PENDING


def test_a_wait_lies_between_two_events():
    first = SimpleNamespace(elapsed_time=lambda other: 12.5)
    assert CudaWait(first, SimpleNamespace(query=lambda: True)).seconds() == 0.0125
    assert CudaWait(first, SimpleNamespace(query=lambda: False)).seconds() is None
