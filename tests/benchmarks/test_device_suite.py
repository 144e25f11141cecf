"""The ways of the device suite deliver batches; on a processor, for want of a device."""

import itertools
import os
import time

import pytest
import torch

import benchmarks.__main__ as main_module
from benchmarks import on_device
from benchmarks.data.boxes import Task
from benchmarks.on_device import Session
from benchmarks.process import ProcessError
from benchmarks.suites.device import NETWORKS, WAYS, Device, Fed, network, seconds_of_model

CPU = torch.device("cpu")


@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_delivers_batches_of_the_asked_shape(cohort, home, way, monkeypatch):
    monkeypatch.setenv("RADIOBJECT_CACHE", f"ways-{os.getpid()}")  # which a way changes for good
    task = Task(cohort, (24, 20, 16), batch_size=2, home=home)
    batches = list(itertools.islice(WAYS[way](task, CPU), 4))
    assert {batch.dtype for batch in batches} == {torch.float32}
    assert {tuple(batch.shape[1:]) for batch in batches} == {(1, 24, 20, 16)}
    assert any((batch != 0).any() for batch in batches)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_model_is_timed_fed_and_alone(kind):
    """A loader that is slow is seen; the arithmetic needs no device."""

    def slow():
        while True:
            time.sleep(0.02)
            yield torch.ones(1, 1, 16, 16, 16)

    fed, alone = seconds_of_model(slow(), network(kind, CPU), CPU, count=2)
    assert fed > 0.02
    assert alone > 0


def test_without_a_device_the_suite_is_skipped_with_its_reason():
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    with pytest.raises(NotImplementedError, match="no CUDA device"):
        Device().setup(None, "radiobject")
    with pytest.raises(NotImplementedError, match="no CUDA device"):
        Fed().setup(None, "radiobject", "light")


def test_ways_are_measured_interleaved(cohort, home, monkeypatch):
    """The processes of the comparison, here, on a processor."""

    class Here:
        def __init__(self, way, kind, *given):
            if way == "arrays":
                raise_later = ProcessError(way, "not installed: this")
                self.ask = lambda *_: (_ for _ in ()).throw(raise_later)
                return
            session = Session(*given)
            self.ask = lambda what, *more: getattr(session, what)(*more)

        def close(self):
            pass

    monkeypatch.setattr(on_device, "Process", Here)
    monkeypatch.setattr(on_device, "_WARM_UP_S", 0.0)
    monkeypatch.setattr(on_device, "begun", lambda task, way: (CPU, WAYS[way](task, CPU)))
    monkeypatch.setattr(on_device, "ROUND_S", 0.05)
    task = Task(cohort, (16, 16, 16), batch_size=2, home=home)
    table = on_device.compare(task, ("radiobject", "arrays"), ("light",), rounds=2, steps=1)
    title, _, ours, missing = (line.split(" | ") for line in table.splitlines())
    assert title[-1] == "share of the light network |"
    assert float(ours[1].replace(",", "")) > 0
    assert " of " in ours[3]
    assert missing[1] == "not measured: not installed: this"


def test_what_cannot_be_compared_is_refused_before_data_are_made(capsys, monkeypatch):
    monkeypatch.setattr(main_module, "benchmark_cohort", None)
    asked = [(["--networks", "fast"], "no 'fast'; choose of light, heavy")]
    if not torch.cuda.is_available():
        asked.append(([], "there is no CUDA device here"))
    for more, words in asked:
        assert main_module.main(["device", *more]) == 1
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main_module.main(["device", "--rounds", "0"])
    assert "'0' holds a number below 1" in capsys.readouterr().err
