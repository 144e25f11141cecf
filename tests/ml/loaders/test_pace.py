"""Threads read ahead of a loop where it gets on faster with them, and rest where it does not."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from radiobject.ml import create_training_dataloader
from radiobject.ml.config import DatasetConfig
from radiobject.ml.datasets.volumes import VolumeCollectionDataset
from radiobject.ml.loaders import lookahead, pace
from radiobject.ml.loaders.buffers import PrivateBuffers
from radiobject.ml.loaders.lookahead import LookAhead
from radiobject.ml.loaders.pace import Pace

BATCH = 3


class _Loop:
    """A loop on four processors, whose rates are stated: with threads that read ahead, and without.

    Parameters
    ----------
    cpu, reading : float
        Shares of the processors' time that are used, and of the loop's that reading takes.
    reading_alone : float, optional
        That share where the loop reads by itself; threads also wait for each other.
    """

    def __init__(
        self,
        ahead: float,
        alone: float,
        cpu: float,
        reading: float,
        group: int = 1,
        reading_alone: float | None = None,
    ) -> None:
        self.wall = self.used = 0.0
        self.rates = {False: ahead, True: alone}
        self.cpu = cpu
        self.reading = {False: reading, True: reading if reading_alone is None else reading_alone}
        self.pace = Pace(lambda: self.wall, lambda: self.used)
        self.pace.group.now = group

    def spend(self, seconds: float) -> None:
        self.wall += seconds
        self.used += 4 * self.cpu * seconds

    def run(self, batches: int, pause_each: int = 0) -> float:
        """Take batches; return the share of them that the loop read by itself.

        Each so many batches, it pauses for a tenth of a second.
        """
        rested = 0
        for number in range(batches):
            resting = self.pace.resting
            rested += resting
            seconds = 1 / self.rates[resting]
            self.spend(seconds + (0.1 if pause_each and number % pause_each == 0 else 0.0))
            self.pace.took(self.reading[resting] * seconds)
        return rested / batches


@pytest.fixture(autouse=True)
def four_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "processors", lambda: 4)


LOOPS = [
    (_Loop(20, 22, 0.95, 0.02), True),  # augmentation on every processor
    (_Loop(20, 22, 0.95, 0.09, reading_alone=0.12), True),
    (_Loop(20, 20.5, 0.95, 0.02), False),  # no clear difference
    (_Loop(22, 20, 0.95, 0.02), False),
    (_Loop(20, 22, 0.80, 0.02), False),  # a processor is free: it is not even tried
    (_Loop(20, 22, 0.95, 0.5), False),  # what keeps them busy is reading
    (_Loop(2700, 4000, 0.3, 1.5, group=8), True),  # small batches, and nothing done with them
    (_Loop(2700, 4000, 0.3, 0.9, group=8, reading_alone=0.4), True),
    (_Loop(4000, 2700, 0.3, 1.5, group=8), False),
    (_Loop(2700, 4000, 0.3, 1.5, group=1), False),  # large ones are copied side by side
    (_Loop(2700, 4000, 0.3, 0.2, group=8), False),  # a model computes meanwhile
]


@pytest.mark.parametrize(("loop", "rests"), LOOPS)
def test_threads_rest_where_a_loop_is_clearly_faster_without(loop: _Loop, rests: bool) -> None:
    loop.run(20_000)
    share = loop.run(20_000)
    assert share > 0.9 if rests else share < 0.1


@pytest.mark.parametrize("rested", [False, True])
def test_a_loop_that_changes_is_followed(rested: bool) -> None:
    loop = _Loop(20, 30, 0.95, 0.02)
    if not rested:
        loop.rates = {False: 30, True: 20}
    loop.run(3_000)
    assert loop.pace.resting is rested
    loop.rates = {not on: rate for on, rate in loop.rates.items()}
    loop.run(6_000)  # within 128 windows
    assert loop.pace.resting is not rested
    loop.cpu = 0.2  # the network is on a GPU now
    loop.run(200)
    assert not loop.pace.resting


def test_trying_costs_little() -> None:
    # Reading alone is half as fast: of so many batches few may be read so.
    loop = _Loop(4000, 2000, 0.3, 1.5, group=8)
    loop.pace.begin(32)
    loop.run(400_000)
    assert loop.wall / (400_000 / 4000) < 1.03


@pytest.mark.parametrize("steps", [1, 17, 100, 1000])
@pytest.mark.parametrize("rests", [False, True])
def test_epochs_of_any_length_are_one_loop_however_they_end(steps: int, rests: bool) -> None:
    loop = _Loop(2700, 4000 if rests else 2750, 0.3, 1.5, group=8)
    for _ in range(60_000 // steps):
        loop.pace.begin(4)
        loop.run(steps)
        loop.wall += 2.0  # validation; the pass may have been left by a break
    loop.pace.begin(4)
    share = loop.run(20_000)
    assert share > 0.9 if rests else share < 0.1
    loop.rates = {False: 2000, True: 1000}
    loop.reading = {False: 0.1, True: 0.1}  # a model computes now
    for _ in range(6_000 // steps):
        loop.pace.begin(4)
        loop.run(steps)
    assert not loop.pace.resting


def test_a_pause_of_a_loop_is_no_rate_of_it() -> None:
    loop = _Loop(2700, 2700, 0.3, 1.5, group=8)
    kept: list[float] = []
    decide = loop.pace._decide
    loop.pace._decide = lambda rate: (kept.append(rate), decide(rate))  # type: ignore[method-assign]
    loop.run(100_000, pause_each=1200)
    assert len(kept) > 100
    assert kept == pytest.approx([2700] * len(kept), rel=0.01)


def test_what_the_loop_reads_by_itself_is_no_pause() -> None:
    """Of sixteen batches one has to be decoded, which takes 0.2 s: threads would have done it."""
    loop, rested = _Loop(19, 20, 0.95, 0.0), 0
    for number in range(20_000):
        resting = loop.pace.resting
        rested += resting
        cold = 0.2 if resting and number % 16 == 0 else 0.0
        loop.spend(1 / loop.rates[resting] + cold)
        loop.pace.took(cold)
    assert rested / 20_000 < 0.1


def test_what_is_left_of_the_other_way_is_not_measured() -> None:
    # Fifty batches were read ahead: the loop reads none by itself before they are gone.
    loop, left = _Loop(20, 19, 0.95, 0.02), 50
    loop.pace.begin(50)
    rested = 0
    for _ in range(20_000):
        resting = loop.pace.resting
        rested += resting
        left = left - 1 if resting else 50
        loop.spend(1 / (22 if resting and left > 0 else loop.rates[resting]))
        loop.pace.took(0.001)
    assert rested / 20_000 < 0.15  # a trial takes some


class _Said(Pace):
    """Lets threads rest while it is said so."""

    said = False

    def took(self, reading: float) -> None:
        self.resting = self.said


def _dataset(shelf: Any) -> VolumeCollectionDataset:
    return VolumeCollectionDataset(
        shelf, DatasetConfig(patch_size=(16, 16, 16), patches_per_volume=20, seed=5)
    )


def _reading_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "radiobject-look-ahead"]


def test_threads_that_rest_go_on_and_batches_are_the_same(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookahead, "processors", lambda: 64)
    dataset, readers, paced = _dataset(shelf), [], _Said()
    plans = [
        dataset.plan(np.arange(n % 40 * BATCH, n % 40 * BATCH + BATCH), epoch=0) for n in range(130)
    ]
    expected = [dataset.read(plan)["image"] for plan in plans]

    class Watched(type(dataset)):  # type: ignore[misc]
        def fill_together(self, batches: Any) -> None:
            readers.append(threading.current_thread())
            super().fill_together(batches)

    dataset.__class__ = Watched
    ahead = LookAhead(dataset, iter(plans), PrivateBuffers(1 << 20, 6), 4, pace=paced)

    def take(batches: int) -> None:
        for _ in range(batches):
            batch, _plans = next(ahead)
            assert torch.equal(batch["image"], expected[taken[0]])
            taken[0] += 1

    def read_by_others() -> bool:
        return any(reader is not threading.main_thread() for reader in readers)

    taken = [0]
    take(5)
    paced.said = True
    take(10)  # what was read ahead, and what the consumer reads by itself
    readers.clear()
    time.sleep(0.05)
    take(100)
    assert len(readers) > 20
    assert not read_by_others()
    assert ahead.threads == 1  # late are all of them, and no other thread would help
    paced.said = False
    take(1)
    end = time.monotonic() + 20
    while not read_by_others() and time.monotonic() < end:
        time.sleep(0.001)
    assert read_by_others()
    take(14)
    with pytest.raises(StopIteration):
        next(ahead)


@pytest.mark.parametrize("resting", [False, True])
def test_a_loop_that_is_dropped_ends_threads_that_rest(shelf: Any, resting: bool) -> None:
    paced = _Said()
    paced.said, paced.resting = True, resting
    dataset = _dataset(shelf)
    plans = (dataset.plan(np.arange(BATCH), epoch=0) for _ in range(40))
    ahead = LookAhead(dataset, plans, PrivateBuffers(1 << 20, 6), 4, pace=paced)
    for _ in range(5):
        next(ahead)
    assert len(_reading_threads()) == (not resting)  # none is even started where all would rest
    del ahead
    assert not _reading_threads()


def test_the_next_epoch_begins_with_what_the_last_one_found(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = create_training_dataloader(
        shelf, batch_size=4, patch_size=(16, 16, 16), patches_per_volume=20, num_workers=0
    )
    monkeypatch.setattr(pace, "_WINDOW_S", 1e9)  # nothing is tried, however slow the machine
    started = []
    start = LookAhead._start_thread
    monkeypatch.setattr(LookAhead, "_start_thread", lambda a: (started.append(1), start(a)))
    first = [batch["image"].clone() for batch in loader]
    assert len(started) == 1
    loader._pace.resting = True
    loader.set_epoch(0)
    again = [batch["image"] for batch in loader]
    assert len(started) == 1
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_threads_that_rest_are_woken_by_no_batch(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, paced = _dataset(shelf), _Said()
    plans = (dataset.plan(np.arange(BATCH), epoch=0) for _ in range(110))
    ahead = LookAhead(dataset, plans, PrivateBuffers(1 << 20, 6), 4, pace=paced)
    next(ahead)
    paced.said = True
    for _ in range(9):
        next(ahead)
    time.sleep(0.05)
    woken: list[str] = []
    buffer = ahead._buffer
    for condition in (buffer._changed, buffer._rested):
        wait = condition.wait
        monkeypatch.setattr(
            condition,
            "wait",
            lambda *a, wait=wait: (woken.append(threading.current_thread().name), wait(*a)),
        )
    for _ in range(90):
        next(ahead)
    time.sleep(0.05)
    # One that waited for room finds that it is to rest; in `wait` since before, it is not counted.
    assert len(woken) <= 1
    paced.said = False
    next(ahead)
    assert len(list(ahead)) == 9


def test_after_the_reading_is_stopped_no_thread_is_started(shelf: Any) -> None:
    dataset, paced = _dataset(shelf), _Said()
    paced.said = paced.resting = True
    paced.group.now = 4
    plans = (dataset.plan(np.arange(BATCH), epoch=0) for _ in range(20))
    ahead = LookAhead(dataset, plans, PrivateBuffers(1 << 20, 18), 16, pace=paced)
    next(ahead)
    ahead.stop_reading()
    paced.said = paced.resting = False
    assert len(list(ahead)) == 3  # what was read with the first
    assert ahead.threads == 0
