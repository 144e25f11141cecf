from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable

import numpy as np

from benchmarks.infrastructure.resources import CPUSampler, cpu_seconds, resident_mib


def test_a_busy_process_is_seen_busy_and_an_idle_one_idle() -> None:
    """In processor seconds: what others leave of a machine is no matter of the sampler's."""

    def sampled(act: Callable[[], None]) -> tuple[float, float]:
        sampler = CPUSampler(interval_s=0.05)
        sampler.start()
        begin = time.perf_counter()
        act()
        mean, peak = sampler.stop()
        assert peak >= mean
        return mean / 100 * (time.perf_counter() - begin), peak

    busy, _ = sampled(_burn)
    idle, _ = sampled(lambda: time.sleep(0.3))
    assert busy >= 0.28
    assert idle < busy / 2


def test_stopping_what_never_started_is_nought() -> None:
    assert CPUSampler().stop() == (0.0, 0.0)


def _hold(mib: int, ready, leave) -> None:
    block = np.ones(mib << 20, np.uint8)
    ready.set()
    leave.wait(30)
    del block


def test_memory_of_children_counts() -> None:
    context = multiprocessing.get_context("spawn")
    before = resident_mib()
    ready, leave = context.Event(), context.Event()
    child = context.Process(target=_hold, args=(100, ready, leave))
    child.start()
    try:
        assert ready.wait(30)
        assert resident_mib() - before > 90
    finally:
        leave.set()
        child.join()


def test_processor_time_of_finished_children_counts() -> None:
    before = cpu_seconds()
    child = multiprocessing.get_context("spawn").Process(target=_burn)
    child.start()
    child.join()
    assert cpu_seconds() - before > 0.2


def _burn() -> None:
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
