"""Workers that nobody asked for: chosen by measuring, and the batches are the same."""

import hashlib
import multiprocessing
import threading
import time

import pytest
import torch

from radiobject.ml import create_training_dataloader, create_validation_dataloader
from radiobject.ml.device.source import DeviceSource
from radiobject.ml.loaders import loader as loader_module
from radiobject.ml.loaders import options as options_module
from radiobject.ml.loaders import worker_choice
from radiobject.ml.loaders.worker_choice import Choice, Measured, cannot_travel, choose
from radiobject.system.processes import processors as real_processors

# Three processors are imitated on machines that have two.
pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]

OPTIONS = {"batch_size": 2, "patch_size": (8, 8, 8), "receipt": True}


@pytest.mark.parametrize(
    ("measured", "at_most", "left", "workers", "words"),
    [
        # The model is what takes the time: no worker, however long a batch takes to make.
        (Measured(10, 0.50, 0.00, 1.00), 16, 999, 0, "waited for 0% of its time"),
        (Measured(10, 0.90, 0.09, 0.91), 16, 999, 0, "waited for 9% of its time"),
        # As many as keep up with the model.
        (Measured(10, 1.00, 0.70, 0.30), 16, 999, 4, "100.0 ms to make and 30.0 ms to use"),
        (Measured(10, 1.00, 1.00, 0.00), 16, 999, 16, "100.0 ms to make and 0.0 ms to use"),
        (Measured(10, 1.00, 1.00, 0.00), 2, 999, 2, "100.0 ms to make"),
        # Cached patches: a message would cost as much.
        (Measured(64, 0.05, 0.05, 0.00), 16, 9999, 0, "little more than asking a worker"),
        # Both threads are busy and so are both processors: two workers would do no more.
        (Measured(10, 0.20, 0.10, 0.00), 2, 9999, 0, "would not deliver it much faster"),
        # A model that computes on the same two processors: they have their hands full already.
        (Measured(10, 1.00, 1.00, 1.00, 3.60), 2, 9999, 0, "2 processors are busy for 180.0 ms"),
        # It leaves one of them alone, as a model on a device does.
        (Measured(10, 1.00, 1.00, 1.00, 2.00), 2, 9999, 1, "100.0 ms to make"),
        (Measured(10, 1.00, 1.00, 1.00, 3.60), 16, 9999, 1, "100.0 ms to make"),
        # Too short to start anything for.
        (Measured(10, 0.10, 0.10, 0.00), 16, 30, 0, "30 batches are too few"),
        (Measured(10, 0.10, 0.10, 0.00), 16, 3000, 16, "10.0 ms to make"),
    ],
)
def test_what_is_chosen(measured, at_most, left, workers, words):
    choice = choose(measured, at_most, left, at_most)
    assert (choice.workers, choice.lasts) == (workers, "too few" not in words)
    assert words in choice.why


def test_so_many_batches_are_measured():
    assert not Measured(8, 0, 0.1, 0.05).is_enough
    assert not Measured(7, 0, 5.0, 5.0).is_enough
    assert Measured(8, 0, 0.1, 0.1).is_enough
    assert Measured(64, 0, 0.0, 0.01).is_enough


def slow(sample):
    time.sleep(0.005)
    return sample | {"image": sample["image"] + torch.rand(1)}


def equal_passes(shelf, monkeypatch, processors, passes=2, **more):
    monkeypatch.setattr(options_module, "processors", lambda: processors)
    plain = create_training_dataloader(shelf, num_workers=0, **OPTIONS, **more)
    loader = create_training_dataloader(shelf, **OPTIONS, **more)
    assert loader.num_workers == 0
    for _ in range(passes):
        whole = list(plain)  # made first: what the loop does would be measured
        for got, want in zip(loader, whole, strict=True):
            assert torch.equal(got["image"], want["image"])
            assert got["obs_id"] == want["obs_id"]
    assert loader.receipt() == plain.receipt()
    assert loader.state_dict() == plain.state_dict()
    return loader


@pytest.mark.parametrize("device", [None, "cpu"])
def test_a_slow_transform_gets_workers_in_the_middle_of_a_pass(shelf, monkeypatch, device):
    loader = equal_passes(
        shelf, monkeypatch, 3, passes=1, transform=slow, patches_per_volume=40, device=device
    )
    assert loader.num_workers == len(loader._workers.processes) >= 2
    report = loader.report()
    assert report.workers == loader.num_workers
    assert "ms to make" in report.workers_why
    assert f"{report.workers} workers: a batch takes" in str(report)
    assert report.batches == 120
    assert loader.epoch == 1
    assert sum(1 for _ in loader) == 120  # the next pass: the same workers from its beginning


def test_cold_reads_get_workers_where_there_are_processors_for_them(shelf, monkeypatch):
    monkeypatch.setattr(worker_choice, "_MESSAGE_S", 1e-9)
    monkeypatch.setattr(worker_choice, "_START_S", 0.0)
    monkeypatch.setattr(worker_choice, "_START_EACH_S", 0.0)
    monkeypatch.setattr(worker_choice, "_WORTH", 0.0)
    monkeypatch.setattr(DeviceSource, "has_all", lambda source: False)
    for device in (None, "cpu"):
        loader = equal_passes(
            shelf, monkeypatch, 3, patches_per_volume=60, device=device, look_ahead=2
        )
        assert loader.num_workers >= 1
        assert loader.report().workers == loader.num_workers


def test_workers_rest_while_a_device_has_every_volume(shelf, monkeypatch):
    monkeypatch.setattr(options_module, "processors", lambda: 3)
    loader = create_training_dataloader(
        shelf, **OPTIONS, patches_per_volume=20, num_workers=2, device="cpu"
    )
    for _ in range(3):
        list(loader)
    assert loader.report().workers == 0
    assert "every volume is in memory" in loader.report().workers_why


def test_two_processors_read_by_threads(shelf, monkeypatch):
    monkeypatch.setattr(worker_choice, "choose", None)  # it is not even asked
    loader = equal_passes(shelf, monkeypatch, 2, patches_per_volume=40)
    assert loader.report().workers == 0
    assert loader.workers_at_most == 0


def test_a_loop_that_is_slower_than_its_batches_gets_none(shelf, monkeypatch):
    monkeypatch.setattr(options_module, "processors", lambda: 16)
    loader = create_training_dataloader(shelf, **OPTIONS, patches_per_volume=6)
    for _ in loader:
        time.sleep(0.03)
    assert loader.num_workers == 0
    assert "waited for" in loader.report().workers_why


def test_a_model_that_computes_on_the_same_processors_is_counted(shelf, monkeypatch):
    """What a loop of its own uses is measured, and no worker competes with it."""
    monkeypatch.setattr(options_module, "processors", lambda: 2)
    seen = []
    monkeypatch.setattr(
        loader_module, "choose", lambda *given: seen.append(given) or choose(*given)
    )
    loader = create_training_dataloader(
        shelf, **OPTIONS, transform=computing, patches_per_volume=16
    )
    for _ in loader:
        threads = [threading.Thread(target=compute, args=(0.01,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (measured, at_most, _, processors) = seen[0]
    assert (at_most, processors) == (2, real_processors())
    wall = measured.wait_s + measured.use_s
    assert measured.busy_s >= measured.batches * 2 * 0.008
    assert measured.busy_s <= processors * wall * 1.1


def compute(seconds):
    """Compute without the interpreter's lock until so much processor time is used."""
    begun, block = time.thread_time(), bytes(1 << 20)
    while time.thread_time() - begun < seconds:
        hashlib.sha256(block)


def computing(sample):
    compute(0.004)
    return sample


def test_a_pass_that_is_too_short_is_measured_again(shelf, monkeypatch):
    monkeypatch.setattr(options_module, "processors", lambda: 16)
    loader = create_validation_dataloader(shelf, **OPTIONS, transform=slow)
    assert [sum(1 for _ in loader) for _ in range(2)] == [3, 3]
    assert loader.num_workers == 0


@pytest.mark.parametrize("foreign", [True, False])
def test_where_no_worker_may_or_should_be_started_none_is_chosen(shelf, monkeypatch, foreign):
    monkeypatch.setattr(options_module, "processors", lambda: 16)
    if foreign:
        monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "loky")
    else:
        monkeypatch.setattr(options_module, "workers_start_cheaply", False)
    loader = create_training_dataloader(shelf, **OPTIONS, transform=slow)
    assert (loader.num_workers, loader.workers_at_most) == (0, 0)


def test_options_of_workers_ask_for_workers(shelf, monkeypatch):
    monkeypatch.setattr(options_module, "processors", lambda: 2)
    loader = create_training_dataloader(shelf, **OPTIONS, prefetch_factor=3)
    assert (loader.num_workers, loader.workers_at_most) == (2, 0)


def test_what_cannot_travel_stays(shelf):
    transform = {"image": lambda voxels: voxels}
    assert cannot_travel(transform, "fork") is None
    assert "cannot be sent to workers" in cannot_travel(transform, "spawn")
    assert cannot_travel(1, "spawn") is None
    assert Choice(0, "").lasts
