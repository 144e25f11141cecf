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
"""Share of the processors' time from which on all threads of the process keep them busy, and below
which they no longer do while nobody reads ahead."""
_LITTLE = 0.1
_MUCH = 0.5
"""Seconds of reading, of all threads together, for each second of a loop that does something else,
or nothing. While nobody reads ahead they are fewer: twice as many and half as many are the same."""
_PAIRS = 3
_CLEARLY = 1.05
"""Both ways are measured so often in turn. More than half of the times, the rate without threads
must be so many times the one with them."""
_FIRST_PAUSE = 8
_LONGEST_PAUSE = 128
"""Windows until it is tried again: twice as many each time that nothing changed."""


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
        self._tried: list[float] = []
        self._pause, self._left = _FIRST_PAUSE, 1
        self._depth = self._skip = 0
        self._clear()
        self.begin(0)

    def _clear(self) -> None:
        self._batches, self._seconds, self._cpu, self._read = 0, 0.0, 0.0, 0.0
        self._longest = 0.0

    def begin(self, depth: int) -> None:
        """Begin an epoch in which up to `depth` batches are ahead of their use."""
        self._depth = depth
        self._last = self._wall(), self._used()

    def took(self, reading: float) -> None:
        """Note a batch that was taken, and what reading took since the one before, in seconds."""
        last, self._last = self._last, (self._wall(), self._used())
        if self._skip:
            self._skip -= 1
            return
        seconds = self._last[0] - last[0]
        self._batches += 1
        self._seconds += seconds
        self._cpu += self._last[1] - last[1]
        self._read += reading
        # What the loop reads by itself is no pause of it.
        self._longest = max(self._longest, seconds - reading if self.resting else seconds)
        if self._batches >= _WINDOW_BATCHES and self._seconds >= _WINDOW_S:
            rate = (self._batches - 1) / max(self._seconds - self._longest, 1e-9)
            self._decide(rate)
            self._clear()

    def _may_rest(self) -> bool:
        """Return whether the loop is of a kind that may be faster without threads."""
        share = self._cpu / self._seconds / processors()
        reading = self._read / self._seconds
        if self.resting:
            busy = share >= _FREE and reading <= 2 * _LITTLE
            return busy or (self.group.now > 1 and 2 * reading >= _MUCH)
        busy = share >= _FULL and reading <= _LITTLE
        return busy or (self.group.now > 1 and reading >= _MUCH)

    def _decide(self, rate: float) -> None:
        if self._tried:
            self._tried.append(rate)
            if len(self._tried) < 2 * _PAIRS:
                self._go(resting=not self.resting)
                return
            ways = self._tried[::2], self._tried[1::2]  # the way before, and this one
            ahead, alone = ways if self.resting else ways[::-1]
            better = sum(a > _CLEARLY * b for a, b in zip(alone, ahead, strict=True))
            self._tried = []
            self._settle(2 * better > _PAIRS, before=not self.resting)
        elif not self._may_rest():
            if self.resting:
                self._settle(False, before=False)
        else:
            self._left -= 1
            if self._left <= 0:
                self._tried = [rate]
                self._go(resting=not self.resting)

    def _settle(self, resting: bool, *, before: bool) -> None:
        longer = min(2 * self._pause, _LONGEST_PAUSE)
        self._pause = self._left = longer if resting == before else _FIRST_PAUSE
        self._go(resting=resting)

    def _go(self, *, resting: bool) -> None:
        """Go on this way; what was read the other way is not measured."""
        if resting != self.resting:
            self.resting, self._skip = resting, self._depth
