"""Sharing the work of one read among threads, where there is enough of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from radiobject.threads import one_thread, run_on_threads, usable_threads

__all__ = ["Task", "one_thread", "run_on_threads", "run_tasks", "usable_threads"]

Task = Callable[[], None]

# Waking another thread, and taking turns with it in the interpreter, costs as much as decoding
# several tiles: the two tasks of a patch of usual size are not worth it.
_WORTH_SHARING = 3


def run_tasks(tasks: Iterable[Task]) -> None:
    """Do tasks, by as many threads as may share them, if they are not too few."""
    threads = usable_threads()
    if threads == 1:
        for task in tasks:
            task()
        return
    listed = list(tasks)
    run_on_threads(lambda task: task(), listed, threads if len(listed) >= _WORTH_SHARING else 1)
