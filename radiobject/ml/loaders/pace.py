"""Whether a thread that reads ahead saves more than handing its batches over costs."""

from __future__ import annotations

import math

STRETCH = 32
"""Batches over which a way of reading is timed."""
_SHORT_S = 1e-3
"""Seconds from one batch to the next below which the loop's own thread is tried alone."""
_GAIN = 0.9
"""What it has to take alone, of the time with a thread, to go on so."""
_MOST_STRETCHES = 1024


class Pace:
    """The time from one batch to the next, with a thread that reads ahead and without one.

    A thread that hands over a batch which takes a tenth of a millisecond to make costs as much as
    it saves: each waits for the other's interpreter. How much depends on the machine and on what
    the loop does beside, so both ways are timed where batches follow each other that fast, and
    the faster one is kept, over the passes of a loader. A loop that computes for longer than that
    is never tried.
    """

    def __init__(self) -> None:
        self.helps = True
        """Whether a thread is to read ahead."""
        self._trying = False
        self._with = math.inf
        self._stretches = 0
        self._next_trial = 1
        self._last: float | None = None
        self._seconds = 0.0
        self._count = 0

    def begin(self) -> None:
        """Begin a pass: the time since the last batch of another does not count."""
        self._last = None

    def note(self, now: float) -> bool:
        """Note that a batch is delivered at `now`, in seconds; return whether `helps` changed."""
        last, self._last = self._last, now
        if last is None:
            return False
        self._seconds += now - last
        self._count += 1
        if self._count < STRETCH:
            return False
        mean, helped = self._seconds / STRETCH, self.helps
        self._seconds, self._count = 0.0, 0
        self._judge(mean)
        return self.helps != helped

    def _judge(self, mean: float) -> None:
        if self.helps:
            self._stretches += 1
            self._with = mean
            if mean < _SHORT_S and self._stretches >= self._next_trial:
                self.helps, self._trying = False, True
        elif self._trying and mean > _GAIN * self._with:
            self._go_back(min(2 * self._next_trial, _MOST_STRETCHES))
        elif mean > _SHORT_S:
            self._go_back(1)
        else:
            self._trying = False

    def _go_back(self, next_trial: int) -> None:
        self.helps, self._trying = True, False
        self._stretches, self._next_trial = 0, next_trial
