"""How to read ahead of a loop: how many batches at once, and whether at all, which is tried."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from radiobject.system.processes import processors

_SHORT_S = 1e-3
_LONG_S = 4e-3
"""Groups grow after one that was read in less, and are halved after one that took longer. Two
threads that take turns with the interpreter wait for each other at every turn, for longer than a
small batch takes."""

_WINDOW_S = 0.2
_WINDOW_BATCHES = 16
"""A rate is of so many seconds and so many batches at least, without the one that took longest:
there a loop may have saved its model."""
_FULL = 0.85
_FREE = 0.7
"""Share of the processors' time from which on a process keeps them busy, and below which it no
longer does once nobody reads ahead."""
_LITTLE = 0.1
_MUCH = 0.5
"""Shares of the loop's time that reading takes of it where it does something else, or nothing."""
_CLEARLY = 1.05
"""Times that the rate without threads must be the one with them."""
_FIRST_PAUSE = 8
_LONGEST_PAUSE = 128
"""Windows until the other way is tried again: twice as many each time that nothing changed."""


@dataclass(slots=True)
class GroupSize:
    """How many batches are read at once; what one epoch found, the next begins with."""

    now: int = 1

    def learn(self, batches: int, seconds: float, most: int) -> None:
        """Learn from a group that was read, and may have been claimed before the last change."""
        if seconds > _LONG_S:
            self.now = max(1, self.now // 2)
        elif seconds < _SHORT_S and batches == self.now:
            self.now = min(2 * self.now, most)


class Pace:
    """Decides whether threads read ahead of a loop, or it reads by itself; for all its epochs.

    Threads that read ahead make a loop faster, but for two kinds. Where augmentation or a network
    keeps every processor busy, a thread beside them takes one away in the middle of what they
    compute together, and all wait for the part that comes late: for longer than reading takes.
    And where batches are small and cached, and nothing is done with them, reading is mostly
    Python: threads take turns with the interpreter, and wait for each other at each turn. Of those
    it is tried which way delivers more batches a second, from time to time again.

    Parameters
    ----------
    wall, used : callable, optional
        Return seconds that went by, and that processors worked for this process.

    Attributes
    ----------
    group : GroupSize
        How many batches are read at once.
    resting : bool
        Whether nobody is to read ahead.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.perf_counter,
        used: Callable[[], float] = time.process_time,
    ) -> None:
        self.group, self.resting = GroupSize(), False
        self._wall, self._used = wall, used
        self._rates = {False: 0.0, True: 0.0}
        self._pause = self._left = _FIRST_PAUSE
        self._trial = 0
        self._clear()
        self.begin(0.0)

    def _clear(self) -> None:
        self._batches, self._seconds, self._cpu, self._read = 0, 0.0, 0.0, 0.0
        self._longest = 0.0

    def begin(self, read_seconds: float) -> None:
        """Begin to measure, at the beginning of an epoch."""
        self._since = self._wall(), self._used(), read_seconds
        self._last = self._since[0]

    def end(self, read_seconds: float) -> None:
        """Keep what was measured up to now: what comes next is not the loop's."""
        since, last = self._since, self._last
        self.begin(read_seconds)
        now = self._since
        self._longest = max(self._longest, now[0] - last)
        self._seconds += now[0] - since[0]
        self._cpu += now[1] - since[1]
        self._read += now[2] - since[2]

    def took(self, read_seconds: float) -> None:
        """Note a batch that was taken; `read_seconds` is what reading took in this epoch."""
        now = self._wall()
        self._batches, self._longest = self._batches + 1, max(self._longest, now - self._last)
        self._last = now
        if self._batches < _WINDOW_BATCHES or self._seconds + now - self._since[0] < _WINDOW_S:
            return
        self.end(read_seconds)
        share = self._cpu / self._seconds / processors()
        reading = self._read / self._seconds
        busy = share >= (_FREE if self.resting else _FULL) and reading <= _LITTLE
        only_loads = self.group.now > 1 and reading >= _MUCH
        rate = (self._batches - 1) / max(self._seconds - self._longest, 1e-9)
        self._decide(rate, busy or only_loads)
        self._clear()

    def _decide(self, rate: float, may_rest: bool) -> None:
        if self._trial:
            self._trial -= 1
            if self._trial:  # of the first window, a part was read before
                return
            self._rates[self.resting] = rate
            before, tried = not self.resting, self._rates
            self.resting = tried[True] > _CLEARLY * tried[False]
            longer = min(2 * self._pause, _LONGEST_PAUSE)
            self._pause = self._left = longer if self.resting == before else _FIRST_PAUSE
            return
        self._rates[self.resting] = rate
        if not may_rest:
            self.resting = False
            return
        self._left -= 1
        if self._left <= 0 or self._rates[not self.resting] == 0:
            self.resting, self._trial = not self.resting, 2
