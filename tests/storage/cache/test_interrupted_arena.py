"""An arena whose owner is interrupted at any line gives no two volumes one region."""

import sys

import numpy as np
import pytest

from radiobject.storage.cache import arena as arenas
from radiobject.storage.cache.arena import bytes_for
from radiobject.storage.cache.arena_discovery import arena_in
from radiobject.system.common_memory import PrivateMemory

MB = 1 << 20
KEYS = [bytes([n]) * 16 for n in range(1, 5)]
STEPS = ("attach", "_own_slot", "_drop_unused")


@pytest.fixture
def arena(monkeypatch):
    """One with room for two volumes of a megabyte."""
    monkeypatch.setattr(arenas, "_MOST_VOLUMES", {True: 16, False: 16})
    return arena_in(PrivateMemory(bytes_for(MB) + MB), MB)


def interrupted(after, act):
    """Call `act` up to a line of `STEPS`; return whether it ended before that."""
    left = after

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_name not in STEPS or frame.f_code.co_filename != arenas.__file__:
            return trace
        if event == "line":
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    except KeyboardInterrupt:
        return False
    finally:
        sys.settrace(before)
    return True


def head_of(arena, offset):
    return arena.view(offset, (64,), np.dtype(np.uint8))


@pytest.mark.parametrize("full", [False, True])
def test_regions_are_apart_and_empty_after_any_interruption(monkeypatch, full):
    monkeypatch.setattr(arenas, "_MOST_VOLUMES", {True: 16, False: 16})
    ended, step = False, 0
    while not ended:
        made = arena_in(PrivateMemory(bytes_for(MB) + MB), MB)
        if full:
            for key in KEYS[:2]:
                entry, offset = made.attach(key, MB, 64)
                head_of(made, offset)[:] = 1
                made.release(entry)
        ended = interrupted(step, lambda made=made: made.attach(KEYS[2], MB, 64))
        places = [made.attach(key, MB, 64) for key in KEYS[2:]]
        assert None not in places, step
        (_, first), (_, second) = places
        assert abs(first - second) >= MB, step
        assert not head_of(made, first).any(), step
        assert not head_of(made, second).any(), step
        step += 1
    assert step > 20


def test_a_place_among_the_processes_is_written_down_before_it_is_used(monkeypatch, arena):
    def stop(pid):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(arenas, "start_time", stop)
        with pytest.raises(KeyboardInterrupt):
            arena.attach(KEYS[0], MB, 64)
    entry, _ = arena.attach(KEYS[0], MB, 64)
    place = int(np.flatnonzero(arena._volumes[entry]["users"])[0])
    assert arena._processes["pid"][place] != 0
