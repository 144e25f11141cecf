"""Sharing work among threads, where nobody else needs the processors."""

from __future__ import annotations

import multiprocessing
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from typing import TypeVar

from radiobject.ctx import get_radiobject_config
from radiobject.process import lasting_threads
from radiobject.system.processes import processors

T = TypeVar("T")

_MOST_THREADS = 32


class _Share(threading.local):
    """What a thread may take: one of several that read takes no more than itself."""

    one = False


_share = _Share()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let this thread's reads within the context take no other threads."""
    before, _share.one = _share.one, True
    try:
        yield
    finally:
        _share.one = before


def usable_threads() -> int:
    """Return how many threads may share the work of a read that the calling thread starts.

    The main thread of a program has the processors to itself, up to ``ReadConfig.concurrency`` of
    them; a thread of several, and a worker process, has one.
    """
    if (
        _share.one
        or threading.current_thread() is not threading.main_thread()
        or multiprocessing.parent_process() is not None
    ):
        return 1
    return min(get_radiobject_config().read.concurrency, processors())


def run_on_threads(work: Callable[[T], object], items: Sequence[T], threads: int) -> None:
    """Do `work` with every item, in the calling thread and in others beside it.

    Parameters
    ----------
    work : callable
        Takes one item.
    items : sequence
        Begun in their order.
    threads : int
        The most threads, the calling one among them.

    Raises
    ------
    Exception
        The first one of `work`, in the order of the items; no item is begun after it.
    """
    if threads <= 1 or len(items) <= 1:
        for item in items:
            work(item)
        return
    waiting = deque(enumerate(items))
    errors: dict[int, Exception] = {}

    def take() -> None:
        with one_thread():
            while waiting and not errors:
                try:
                    number, item = waiting.popleft()
                except IndexError:
                    return
                try:
                    work(item)
                except Exception as error:  # noqa: BLE001 - raised again by the calling thread
                    errors[number] = error

    pool = lasting_threads("read", _MOST_THREADS)
    others = [pool.submit(take) for _ in range(min(threads, len(items)) - 1)]
    try:
        take()
    finally:
        waiting.clear()
        wait([other for other in others if not other.cancel()])
    if errors:
        try:
            raise errors[min(errors)]
        finally:
            errors.clear()  # an error holds this frame, which would hold it and what it read into
    for other in others:
        if not other.cancelled():
            other.result()
