"""How many worker processes, where nobody said: measured on the first batches of a loop."""

from __future__ import annotations

import math
import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

WAITING_SHARE = 0.1
"""Share of its time that a loop may wait for batches before workers are worth a thought."""
_FEWEST, _SHORTEST_S, _MOST = 8, 0.2, 64
"""Batches measured: so many and so long, or the most."""
_MESSAGE_S = 5e-4
"""What asking a worker for a batch costs the process that asks, about."""
_START_S = 0.3
_START_EACH_S = 0.05
"""What starting workers takes, about."""
_WORTH = 1.25
"""Times that batches have to come faster."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A number of batches of a loop that is served by threads of its own process.

    Parameters
    ----------
    batches : int
        How many were made and used.
    make_s : float
        Seconds that reading and transforming them took, of all threads together.
    wait_s : float
        Seconds that the loop waited for them.
    use_s : float
        Seconds that it used them.
    busy_s : float
        Processor seconds of the whole process, the model's own among them, on all processors.
    """

    batches: int
    make_s: float
    wait_s: float
    use_s: float
    busy_s: float = 0.0

    def __sub__(self, other: Measured) -> Measured:
        return Measured(
            self.batches - other.batches,
            self.make_s - other.make_s,
            self.wait_s - other.wait_s,
            self.use_s - other.use_s,
            self.busy_s - other.busy_s,
        )

    @property
    def is_enough(self) -> bool:
        """Whether more batches would tell no more."""
        seconds = self.wait_s + self.use_s
        return self.batches >= _MOST or (self.batches >= _FEWEST and seconds >= _SHORTEST_S)


def so_far(batches: int, make_s: float, wait_s: float, seconds: float) -> Measured:
    """Return what a loop has done in `seconds`, and what this process has."""
    return Measured(batches, make_s, wait_s, seconds - wait_s, time.process_time())


@dataclass(frozen=True, slots=True)
class Choice:
    """A number of worker processes, and why.

    Parameters
    ----------
    workers : int
        Worker processes; 0 leaves the work to threads of the loop's own process.
    why : str
        What was measured, in words, for the loader's report.
    lasts : bool
        Whether it holds for the passes to come as well; else these are measured anew.
    """

    workers: int
    why: str
    lasts: bool = True


def choose(measured: Measured, at_most: int, left: int, processors: int) -> Choice:
    """Return how many workers a loop gains by.

    What the process does now has to be done by whoever does it: where the model itself computes on
    the processors, workers can only take turns with it, however long a batch takes to make.

    Parameters
    ----------
    measured : Measured
        What the loop has done until now; at least one batch.
    at_most : int
        Workers there may be.
    left : int
        Batches left of the pass.
    processors : int
        Processors that there are for all of it.
    """
    seconds = measured.wait_s + measured.use_s
    waited = measured.wait_s / seconds if seconds else 0.0
    if waited <= WAITING_SHARE:
        return Choice(0, f"the loop waited for {waited:.0%} of its time")
    make, use = measured.make_s / measured.batches, measured.use_s / measured.batches
    what = f"a batch takes {1e3 * make:.1f} ms to make and {1e3 * use:.1f} ms to use"
    if make < 2 * _MESSAGE_S:
        return Choice(0, f"{what}: little more than asking a worker for it")
    workers = min(at_most, math.ceil(make / max(use, make / at_most)))
    busy = measured.busy_s / measured.batches
    then = max(use, make / workers, busy / processors, _MESSAGE_S)
    now = seconds / measured.batches
    if now < _WORTH * then:
        busiest = then == busy / processors
        why = f", {processors} processors are busy for {1e3 * then:.1f} ms of it" if busiest else ""
        return Choice(0, f"{what}{why}: {workers} workers would not deliver it much faster")
    if (now - then) * left < _START_S + workers * _START_EACH_S:
        return Choice(
            0, f"{what}, but {left} batches are too few to start workers for", lasts=False
        )
    return Choice(workers, what)


def cannot_travel(dataset: Any, context: Any) -> str | None:
    """Return why a data set could not be sent to a worker; None where it can, or need not be."""
    method = context if isinstance(context, str) else multiprocessing.get_start_method()
    if method == "fork":
        return None
    try:
        ForkingPickler.dumps(dataset)
    except Exception as error:  # noqa: BLE001 - whatever a transform raises when it is pickled
        return f"the data set cannot be sent to workers: {error!r:.200}"
    return None
