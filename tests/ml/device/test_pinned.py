"""Memory that is page-locked once, and not written again while a copy of it is running."""

import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from device.fake_device import FakeHost

from radiobject.ml import create_training_dataloader
from radiobject.ml.loaders import loader as loader_module
from radiobject.ml.loaders.buffers import PrivateBuffers
from radiobject.ml.loaders.ring import SharedRing

PATCH = (16, 16, 16)


def test_a_buffer_is_registered_once_and_used_again():
    host = FakeHost()
    buffers = PrivateBuffers(10_000, keep=4, host=host)
    places = set()
    for _ in range(50):
        buffer = buffers.take(10_000)
        places.add(buffer.data_ptr())
        assert buffer.data_ptr() in host.live
        del buffer
    assert host.registered == len(places) <= 3
    assert set(host.live.values()) == {12288}
    del buffers
    gc.collect()
    assert host.live == {}


@pytest.mark.parametrize("kind", ["private", "ring"])
def test_a_buffer_is_not_written_while_a_copy_that_the_user_started_is_running(kind):
    """Fails without the fence: the batch is forgotten, and its memory would be taken at once."""
    host = FakeHost()
    if kind == "private":
        buffers = PrivateBuffers(4096, keep=4, host=host)

        def take():
            return buffers.take(4096)
    else:
        ring = SharedRing(4096, 3)
        ring.pin(host)

        def take():
            slot = ring.take()
            return None if slot is None else ring.lease(slot)

    batch = take()
    copy = host.copy(batch)
    del batch
    for _ in range(8):
        other = take()
        assert other is None or other.data_ptr() != copy
        del other
    host.running.remove(copy)
    kept = [take() for _ in range(3)]
    kept += [take() for _ in range(3)]
    assert copy in {buffer.data_ptr() for buffer in kept if buffer is not None}


def test_a_copy_that_began_after_the_fence_holds_the_next_one():
    host = FakeHost()
    buffers = PrivateBuffers(4096, keep=4, host=host)
    first = buffers.take(4096)
    place = first.data_ptr()
    del first
    kept = [buffers.take(4096)]  # the fence is passed here
    if kept[0].data_ptr() != place:
        kept.append(buffers.take(4096))
    again = next(buffer for buffer in kept if buffer.data_ptr() == place)
    copy = host.copy(again)
    del again, kept
    taken = [buffers.take(4096) for _ in range(5)]
    assert place not in {buffer.data_ptr() for buffer in taken}
    host.running.remove(copy)


def test_a_device_that_lags_is_waited_for_and_takes_no_more_memory(monkeypatch):
    from radiobject.ml.loaders import buffers as module

    host, polls = FakeHost(), []
    buffers = PrivateBuffers(4096, keep=2, host=host)

    def sleep(seconds):
        polls.append(seconds)
        if len(polls) == 3:
            host.running.clear()

    monkeypatch.setattr(module.time, "sleep", sleep)
    for _ in range(40):
        host.copy(buffers.take(4096))
        if len(polls) >= 3:
            break
    assert len(polls) == 3
    assert host.registered <= 6
    host.running.clear()


def test_a_slot_is_registered_when_it_is_first_taken():
    host = FakeHost()
    ring = SharedRing(5000, 60)
    ring.pin(host)
    assert host.registered == ring.pinned_bytes == 0
    for _ in range(100):
        slot = ring.take()
        assert ring.lease(slot).data_ptr() in host.live
    assert 1 <= host.registered <= 6
    assert ring.pinned_bytes == host.registered * 8192
    del ring
    gc.collect()
    assert host.live == {}


def test_a_driver_that_refuses_leaves_plain_memory_and_one_line(caplog):
    buffers = PrivateBuffers(4096, keep=2, host=FakeHost(refuse=True))
    for _ in range(4):
        assert buffers.take(4096).numel() == 4096
    ring = SharedRing(4096, 2)
    ring.pin(FakeHost(refuse=True))
    assert [ring.take(), ring.take()] == [0, 1]
    lines = [record.getMessage() for record in caplog.records]
    assert (
        lines
        == [
            "batches are not page-locked, copies of them will wait: "
            "cudaHostRegister: operation not supported"
        ]
        * 2
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_pins_nothing_per_batch(shelf, monkeypatch, workers):
    host = FakeHost()
    monkeypatch.setattr(loader_module, "host_memory", lambda: host)
    options = {"batch_size": 2, "patch_size": PATCH, "patches_per_volume": 20, "receipt": True}
    pinned = create_training_dataloader(shelf, num_workers=workers, pin_memory=True, **options)
    for _ in range(2):
        for batch in pinned:
            address = batch["image"].data_ptr()
            assert any(a <= address < a + n for a, n in host.live.items())
    assert host.registered <= (28 if workers else pinned._ahead + 4)  # of 120 batches
    plain = create_training_dataloader(shelf, num_workers=0, pin_memory=False, **options)
    for _ in range(2):
        list(plain)
    assert plain.receipt() == pinned.receipt()
    del pinned, batch
    gc.collect()
    assert host.live == {}


def test_a_forked_child_calls_no_driver():
    host = FakeHost()
    buffers = PrivateBuffers(4096, keep=2, host=host)
    buffers.take(4096)
    child = os.fork()
    if not child:
        before = dict(host.live)
        del buffers
        gc.collect()
        os._exit(0 if host.live == before else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(host.live) == 1


def test_the_end_of_the_process_unregisters_while_the_memory_is_there():
    program = """
import numpy as np
from radiobject.ml.loaders.buffers import PrivateBuffers

class Host:
    def register(self, address, nbytes): print("register", address)
    def unregister(self, address):
        import ctypes
        ctypes.string_at(address, 4096)
        print("unregister", address)
    def fence(self): return lambda: True

buffers = PrivateBuffers(4096, keep=2, host=Host())
kept = buffers.take(4096)
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    (first, a), (second, b) = (line.split() for line in out.stdout.splitlines())
    assert (first, second, a) == ("register", "unregister", b)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["global", "thread_local", "relaxed"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_graph_is_captured_while_buffers_go_round(mode, beside):
    import torch

    from radiobject.ml.device.driver import host_memory

    host = host_memory()
    buffers = PrivateBuffers(1 << 20, keep=2, host=host)
    total, number = torch.zeros(1, device="cuda"), torch.ones(1, device="cuda")
    side = torch.cuda.Stream()

    def go_round():
        for _ in range(12):
            batch = buffers.take(1 << 20)
            del batch

    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)  # an event is recorded, and asked for
    go_round()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode=mode):
        total += number
        if beside:
            thread = threading.Thread(target=go_round)
            thread.start()
            thread.join()
        else:
            go_round()
    for _ in range(3):
        graph.replay()
    assert total.item() == 3


@pytest.mark.gpu
def test_a_real_copy_is_never_overwritten():
    import torch

    from radiobject.ml.device.driver import host_memory

    host = host_memory()
    size = 64 << 20
    buffers = PrivateBuffers(size, keep=2, host=host)
    side, copies = torch.cuda.Stream(), []
    for number in range(24):
        batch = buffers.take(size)
        batch.fill_(number)
        assert batch.is_pinned()
        with torch.cuda.stream(side):
            torch.cuda._sleep(20_000_000)
            copies.append((number, batch[: 1 << 20].to("cuda", non_blocking=True)))
        del batch
    torch.cuda.synchronize()
    for number, copy in copies:
        assert np.array_equal(copy.unique().cpu().numpy(), [number])
