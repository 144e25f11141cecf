"""What is asked of CUDA, on a machine of two devices that is imitated."""

from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest

from radiobject.exceptions import ConfigurationError
from radiobject.ml.device import choice, driver
from radiobject.storage.cache.registration import RegistrationRefusedError

ADDRESS = 1 << 20


class Machine:
    """PyTorch's `torch.cuda`, as far as the driver asks it; the current device is the first."""

    def __init__(self, *, begun=(0, 1), refuses=False, forked=False):
        self.begun, self.refuses, self.forked = begun, refuses, forked
        self.log, self.pending, self.running = [], None, set()
        self.here, self.registered_on, self.captured = 0, [], set()
        self.made, self.device_of, self.asked, self.mode = [], [], 0, 0
        self.Stream = partial(self.stream_of_pool)
        self.Stream.priority_range = lambda: (0, -5)
        self.Event = lambda: Event(self)

    def stream_of_pool(self, device=0, priority=0):
        assert not self.forked

        def query():
            assert device not in self.captured, "the user's capture of a graph ends with an error"
            assert self.mode == 2, "a capture by any thread ends with an error"
            return device not in self.running

        self.made.append(query)
        self.device_of.append(device)
        return SimpleNamespace(query=query, device=device, cuda_stream=len(self.made))

    def current_stream(self, device=0):
        return self.stream_of_pool(device)

    default_stream = current_stream

    def device_count(self):
        return 2

    def is_available(self):
        raise AssertionError("this begins CUDA, and no process that is forked later can use it")

    def current_device(self):
        return self.here

    @contextmanager
    def device(self, number):
        before, self.here = self.here, number
        yield
        self.here = before

    def _is_in_bad_fork(self):
        return self.forked

    def init(self):
        if self.forked:
            raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")

    def synchronize(self, device=None):
        self.log.append(("synchronize", 0 if device is None else device))

    def cudart(self):
        return self

    def cudaError(self, status):
        return status

    def cudaGetErrorString(self, status):
        return f"error {status}"

    def cudaHostRegister(self, address, nbytes, flags):
        self.registered_on.append(self.here)
        if self.refuses:
            self.pending = 801
            return 801
        return 0

    def cudaHostUnregister(self, address):
        self.registered_on.append(self.here)
        self.log.append(("unregister", address))
        self.pending = 713
        return 713

    def launch(self, *given, **more):
        """The next launch of anybody's reports the error that is pending."""
        pending, self.pending = self.pending, None
        if pending:
            raise RuntimeError(f"CUDA error: {pending}")


class Event:
    def __init__(self, machine):
        self.machine = machine

    def record(self, stream):
        self.device = stream.device

    def query(self):
        assert self.machine.mode == 2, "a capture by any thread ends with an error"
        return self.device not in self.machine.running


def is_capturing(machine, stream, status):
    status._obj.value = machine.device_of[stream.value - 1] in machine.captured
    return 201  # of a thread without a context; the status counts


def exchange_mode(machine, mode):
    machine.mode, mode._obj.value = mode._obj.value, machine.mode


def is_running(machine, stream):
    machine.asked += 1
    assert machine.mode == 2, "a capture by any thread ends with an error"
    return 0 if machine.made[stream.value - 1]() else 600


@pytest.fixture
def machine(monkeypatch):
    def use(**traits):
        made = Machine(**traits)
        fake = SimpleNamespace(
            cuda=made,
            ones=made.launch,
            _C=SimpleNamespace(_cuda_hasPrimaryContext=lambda device: device in made.begun),
        )
        monkeypatch.setattr(driver, "torch", fake)
        monkeypatch.setattr(driver, "_address_on_device", lambda address: address)
        library = SimpleNamespace(
            cuStreamIsCapturing=partial(is_capturing, made),
            cuStreamQuery=partial(is_running, made),
            cuThreadExchangeStreamCaptureMode=partial(exchange_mode, made),
        )
        monkeypatch.setattr(driver, "_libcuda", lambda *kind: library)
        return made

    return use


def test_a_copy_to_another_than_the_current_device_is_waited_for(machine):
    there = machine()
    there.running.add(1)
    passed = driver.CudaHost().fence()
    assert not passed()
    there.running.clear()
    assert passed()


def test_a_device_that_nobody_uses_is_left_alone(machine):
    there = machine(begun=(1,))
    host = driver.CudaHost()
    host.fence()
    assert list(host._streams) == [1]
    assert len(host._streams[1]) == 4 * 32
    host.unregister(ADDRESS)
    assert there.log == [("synchronize", 1), ("unregister", ADDRESS)]


def test_memory_is_unregistered_when_no_device_reads_it(machine):
    there = machine()
    driver.CudaHost().unregister(ADDRESS)
    assert there.log == [("synchronize", 0), ("synchronize", 1), ("unregister", ADDRESS)]


@pytest.mark.parametrize("call", ["register", "unregister"])
def test_a_refusal_is_not_reported_by_the_next_launch_of_the_training(machine, call):
    there = machine(refuses=True)
    if call == "register":
        with pytest.raises(RegistrationRefusedError, match="4096 bytes: error 801"):
            driver.CudaHost().register(ADDRESS, 4096)
    else:
        driver.CudaHost().unregister(ADDRESS)
    there.launch()


def test_a_child_forked_from_a_process_that_uses_cuda(machine, monkeypatch):
    there = machine(forked=True)
    assert driver.host_memory() is None
    with pytest.raises(RegistrationRefusedError, match="forked subprocess"):
        driver.CudaHost().register(ADDRESS, 4096)
    assert driver.CudaHost().fence()()
    monkeypatch.setattr(choice.torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(choice.torch.cuda, "is_available", lambda: True)
    for name in ("_is_in_bad_fork", "device_count"):
        monkeypatch.setattr(choice.torch.cuda, name, getattr(there, name))
    with pytest.raises(ConfigurationError, match="forked after CUDA had begun"):
        choice.chosen_device("cuda")


def test_memory_is_registered_from_a_device_that_the_process_uses(machine):
    """A thread that reads ahead is on the first device, whichever the rank's own is."""
    there = machine(begun=(1,))
    driver.CudaHost().register(ADDRESS, 4096)
    driver.CudaHost().unregister(ADDRESS)
    assert there.registered_on == [1, 1]
    assert there.here == 0
    there.begun, there.here = (0, 1), 1
    driver.CudaHost().register(ADDRESS, 4096)
    assert there.registered_on[2:] == [1]


def test_a_stream_that_is_captured_into_a_graph_is_left_alone(machine):
    there = machine()
    there.captured.add(0)
    there.running.add(1)
    passed = driver.CudaHost().fence()
    assert not passed()
    there.running.clear()
    assert passed()


def test_the_streams_of_the_pool_are_made_once_and_asked_of_the_driver(machine):
    there = machine(begun=(0,))
    host = driver.CudaHost()
    for _ in range(3):
        assert host.fence()()
    assert there.asked == 3 * 128
    assert there.mode == 0  # as it was
    assert len(there.made) == 128 + 3 * 2  # and the current and the default one, each time


def test_a_loader_that_is_only_made_does_not_begin_cuda(machine):
    machine()
    assert isinstance(driver.host_memory(), driver.CudaHost)
