"""After an error, an interrupt or a second iterator: the right voxels, and never a hang."""

import _thread
import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from ml_shelf import check_patch

from radiobject.exceptions import StorageError
from radiobject.ml import create_training_dataloader
from radiobject.ml.device.source import DeviceSource
from radiobject.ml.loaders.delivery import BatchRequest, Delivery, FillRequest, Ticket, received

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("forked")]
OPTIONS = {"batch_size": 2, "patch_size": (8, 8, 8), "patches_per_volume": 4}


def loader_of(shelf, workers=2, **more):
    return create_training_dataloader(shelf, num_workers=workers, **(OPTIONS | more))


def check(batches):
    """Assert that every sample has the voxels of the volume it is said to be of."""
    seen = 0
    for batch in batches:
        for k, image in enumerate(batch["image"]):
            start = [int(axis[k]) for axis in batch["patch_start"]]
            check_patch(image, batch["idx"][k], start)
            seen += 1
    return seen


class Fault:
    """A transform that does something once, in whichever process comes to it first."""

    def __init__(self, what, after=5):
        self.what, self.left = what, multiprocessing.Value("i", after)

    def __call__(self, sample):
        with self.left.get_lock():
            self.left.value -= 1
            struck = self.left.value == 0
        if struck:
            self.what()
        return sample


def fail():
    raise ValueError("once")


def test_two_iterators_at_once_over_persistent_workers(shelf):
    loader, alone = loader_of(shelf), loader_of(shelf, 0)
    first, second = list(alone), list(alone)
    pairs = list(zip(loader, loader, strict=True))
    assert len(pairs) == 12
    for (a, b), c, d in zip(pairs, first, second, strict=True):
        assert torch.equal(a["image"], c["image"])
        assert torch.equal(b["image"], d["image"])
    assert check(loader) == 24


def test_an_iterator_that_was_only_looked_into(shelf):
    loader = loader_of(shelf)
    peeked = iter(loader)
    assert check([next(peeked)]) == 2
    assert check(loader) == 24
    assert check(peeked) == 22


def same(sample):
    return sample


@pytest.mark.parametrize("workers", [1, 2])
def test_an_iterator_that_goes_on_takes_nothing_from_another(shelf, workers):
    """Deliveries were paired by their order: the first took one of the second and raised, and 0 of
    the second's other 10 batches had the voxels of their ids."""
    loader = loader_of(shelf, workers, transform=same)
    first = iter(loader)
    assert check([next(first)]) == 2
    second = iter(loader)
    assert check([next(second)]) == 2
    assert check(first) == check(second) == 22


@pytest.mark.parametrize("persistent", [True, False])
def test_after_an_error_in_a_worker(shelf, persistent):
    loader = loader_of(shelf, transform=Fault(fail), persistent_workers=persistent)
    with pytest.raises(ValueError, match="once"):
        check(loader)
    assert check(loader) == 24


def test_after_an_error_in_the_loop(shelf):
    loader = loader_of(shelf)
    kept = []

    def loop():
        for number, batch in enumerate(loader):
            kept.append(batch)
            if number == 2:
                raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        loop()
    assert check(loader) == 24
    assert check(kept) == 6


def test_after_a_timeout(shelf):
    """What a slow worker delivers late answers requests of a pass that is over."""
    loader = loader_of(shelf, 1, transform=Fault(lambda: time.sleep(3)), timeout=1)
    with pytest.raises(RuntimeError, match="timed out"):
        check(loader)
    assert check(loader) == 24


def test_after_a_killed_worker(shelf):
    loader = loader_of(shelf, transform=Fault(lambda: os.kill(os.getpid(), signal.SIGKILL)))
    with pytest.raises(RuntimeError, match=r"exited unexpectedly|killed by signal"):
        check(loader)
    assert check(loader) == 24
    loader = loader_of(shelf)
    assert check(loader) == 24
    process = loader._workers.processes[0]
    while process.is_alive():  # between two passes; PyTorch tells whatever code runs then
        with contextlib.suppress(RuntimeError):
            os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.05)
    assert check(loader) == 24


def test_a_worker_killed_while_it_hands_a_batch_over(shelf, monkeypatch):
    loader = loader_of(shelf)
    assert check(loader) == 24
    iterator = loader._workers._loader._iterator

    def reset(*_):
        with contextlib.suppress(RuntimeError):  # PyTorch's own, as the signal arrives
            iterator._workers[0].kill()
            iterator._workers[0].join()
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(iterator, "_next_data", reset)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        check(loader)
    assert check(loader) == 24


def test_after_ctrl_c(shelf):
    """The terminal sends it to the workers as well."""
    loader = loader_of(shelf, transform=Fault(lambda: time.sleep(2)))
    assert len(list(loader)) == 12
    loader.dataset.transform.left.value = 1  # the workers' own: shared memory
    workers = loader._workers.processes

    def press():
        for worker in workers:
            os.kill(worker.pid, signal.SIGINT)
        _thread.interrupt_main()

    timer = threading.Timer(0.7, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        check(loader)
    timer.join()
    assert check(loader) == 24


def test_a_delivery_for_another_request_is_refused(shelf):
    loader = loader_of(shelf, 0)
    dataset = loader.dataset
    request = BatchRequest(dataset.plan([0, 1], 0), Ticket(7, 3, None))
    for other in (Ticket(6, 3, None), Ticket(7, 4, None), Ticket(7, 3, 1)):
        late = Delivery(other, {"image": torch.zeros(1)}, {})
        with pytest.raises(StorageError, match=r"run=7, batch=3.*was due"):
            received(late, request, dataset, None, as_read=True)


@pytest.mark.parametrize(
    "other",
    [
        lambda ticket: replace(ticket, run=ticket.run - 1),
        lambda ticket: replace(ticket, batch=ticket.batch + 1),
        lambda ticket: replace(ticket, slot=ticket.slot + 1),
    ],
    ids=["run", "batch", "slot"],
)
@pytest.mark.parametrize("device", [None, "cpu"])
def test_a_worker_that_answers_another_request_is_found_out(shelf, monkeypatch, other, device):
    """Planted in a real worker: its third delivery says that it is another."""
    kind = BatchRequest if device is None else FillRequest
    plain = kind.execute

    def execute(request, dataset):
        delivery = plain(request, dataset)
        return replace(delivery, ticket=other(delivery.ticket)) if request.ticket.batch == 2 else (
            delivery
        )  # fmt: skip

    with monkeypatch.context() as planted:
        planted.setattr(kind, "execute", execute)
        for question in ("has", "has_all"):  # every batch asks a worker
            planted.setattr(DeviceSource, question, lambda *_: False)
        loader = loader_of(shelf, 1, device=device, persistent_workers=True)
        batches = iter(loader)
        assert check([next(batches)]) == 2
        with pytest.raises(StorageError, match="voxels and ids would not belong together"):
            check(batches)
    assert check(loader) == 24


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_that_was_used_travels(shelf, workers):
    loader = loader_of(shelf, workers, receipt=True)
    for number, _ in enumerate(loader):
        if number == 4:
            break
    copy = pickle.loads(pickle.dumps(loader))
    copy.load_state_dict(loader.state_dict())
    assert check(copy) == 14
    straight = loader_of(shelf, 0, receipt=True)
    assert check(straight) == 24
    assert copy.receipt() == straight.receipt()


def in_daemon(shelf, results):
    loader = create_training_dataloader(shelf, **OPTIONS)
    results.put((loader.num_workers, check(loader)))


def test_the_default_number_of_workers_gives_way_in_a_daemon(shelf):
    """Dask's workers and pools of processes are daemons, which may have no children."""
    results = multiprocessing.Queue()
    process = multiprocessing.Process(target=in_daemon, args=(shelf, results), daemon=True)
    process.start()
    assert results.get(timeout=60) == (0, 24)
    process.join()


def larger(sample):
    return {**sample, "image": sample["image"].repeat(1, 2, 2, 2)}


def test_larger_outputs_of_a_transform_lie_in_the_ring(shelf):
    """PyTorch's own transport would take /dev/shm, which is small in containers."""
    loader = loader_of(shelf, 1, transform=larger, patch_size=(24, 24, 24))
    ring = None
    for batch in loader:
        assert batch["image"].shape == (2, 1, 48, 48, 48)
        assert not batch["image"].is_shared()
        ring = loader._workers.ring
    assert ring.nbytes >= batch["image"].nbytes


def much_larger(sample):
    return {**sample, "image": sample["image"].repeat(1, 3, 3, 3)}


def test_the_ring_grows_to_what_a_transform_returns(shelf):
    loader = loader_of(shelf, 1, transform=much_larger, patch_size=(16, 16, 16))
    assert all(batch["image"].is_shared() for batch in loader)  # 27 times what was read
    assert not any(batch["image"].is_shared() for batch in loader)
    assert check(loader_of(shelf)) == 24


def test_volumes_that_a_transform_makes_equal(mixed):
    def cut(sample):
        return {**sample, "image": sample["image"][:, :8, :8, :8]}

    for workers in (0, 1):
        loader = create_training_dataloader(mixed, batch_size=3, num_workers=workers, transform=cut)
        (batch,) = loader
        assert batch["image"].shape == (3, 1, 8, 8, 8)
        for k in range(3):
            check_patch(batch["image"][k], batch["idx"][k], (0, 0, 0))


def test_numbers_of_numpy_and_weights_of_any_kind(shelf):
    weights = [1.0, 0, 0, 2.0, 0, 0]
    passes = []
    for given in (weights, np.array(weights), torch.tensor(weights)):
        loader = loader_of(shelf, 0, batch_size=np.int64(4), volume_weights=given, receipt=True)
        assert check(loader) == 24
        passes.append((loader.receipt(), loader.state_dict()["order"], loader.batch_size))
    assert passes[0] == passes[1] == passes[2]


def test_a_failing_transform_says_where(shelf):
    for workers in (0, 1):
        loader = loader_of(shelf, workers, transform=Fault(fail, 1))
        loader.set_epoch(3)
        with pytest.raises(ValueError, match="once") as caught:
            list(loader)
        said = "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
        assert "of epoch 3: volume 'sub-0" in said
        assert "in the transform of sample" in said
