"""Running many independent jobs on any executor, in order and with a bounded number in flight."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import tiledb

from radiobject import process
from radiobject.ctx import TravellingSettings, get_radiobject_config, get_tiledb_ctx

T = TypeVar("T")
R = TypeVar("R")

_IN_FLIGHT_PER_WORKER = 2
_DEFAULT_IN_FLIGHT = 16


@dataclass(frozen=True)
class WriteResult:
    """What became of one volume's write."""

    index: int
    uri: str
    obs_id: str
    success: bool
    error: Exception | None = None


def ctx_for_threads(ctx: tiledb.Ctx | None = None) -> tiledb.Ctx:
    """Return the context that threads of this process share."""
    return ctx if ctx is not None else get_tiledb_ctx()


def ctx_for_process(base_ctx: tiledb.Ctx | None = None) -> tiledb.Ctx:
    """Return a new context for a worker process, with the settings of `base_ctx`."""
    if base_ctx is not None:
        return tiledb.Ctx(base_ctx.config())
    return get_radiobject_config().to_tiledb_ctx()


def map_on_threads(
    fn: Callable[[T], R],
    items: Iterable[T],
    max_workers: int | None = None,
    progress: bool = False,
    desc: str | None = None,
) -> list[R]:
    """Apply `fn` to every item on threads; results in order, the first error propagates."""
    listed = list(items)
    results = run(fn, listed, max_workers=max_workers)
    return list(progress_bar(results, len(listed), desc or "working", show=progress))


def run(
    fn: Callable[[T], R],
    items: Sequence[T],
    *,
    executor: Executor | None = None,
    max_workers: int | None = None,
) -> Iterator[R]:
    """Yield ``fn(item)`` for every item, in order.

    At most a few jobs per worker are under way or waiting to be consumed, so memory is bounded by
    the workers and not by the items. When a job fails, those not yet started are cancelled and
    its error is raised after the running ones ended.

    Parameters
    ----------
    fn, items
        Picklable when `executor` runs other processes.
    executor : concurrent.futures.Executor, optional
        Where jobs run: threads by default; a process pool or Dask's ``client.get_executor()``
        works as well. It is left open. The process's settings travel with every job.
    max_workers : int, optional
        Number of threads when there is no `executor`; `ReadConfig.max_workers` by default.
    """
    if executor is not None:
        workers = getattr(executor, "_max_workers", None)
        in_flight = _IN_FLIGHT_PER_WORKER * workers if workers else _DEFAULT_IN_FLIGHT
        yield from _windowed(executor, _Job(fn, TravellingSettings()), items, in_flight)
        return
    workers = max_workers or get_radiobject_config().read.max_workers
    in_flight = _IN_FLIGHT_PER_WORKER * workers
    if hasattr(_this_thread, "works_for_a_run"):
        # A run that a job starts must not wait for threads that wait for it.
        with process.new_threads("job", workers, _mark) as threads:
            yield from _windowed(threads, fn, items, in_flight)
        return
    yield from _windowed(process.lasting_threads("job", workers, _mark), fn, items, in_flight)


@dataclass(frozen=True)
class _Job:
    """A function together with the settings under which it was called for."""

    fn: Callable[[Any], Any]
    settings: TravellingSettings

    def __call__(self, item: Any) -> Any:
        return self.fn(item)


_this_thread = threading.local()


def _mark() -> None:
    _this_thread.works_for_a_run = True


def _windowed(
    executor: Executor, fn: Callable[[T], R], items: Iterable[T], in_flight: int
) -> Iterator[R]:
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(fn, item))
            if len(pending) >= in_flight:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        for future in pending:
            if not future.cancelled():
                future.exception()


def progress_bar(
    results: Iterable[R], total: int, description: str, *, show: bool = True
) -> Iterator[R]:
    """Pass `results` through, with a progress bar on a terminal and none in a pipe."""
    if not show or not sys.stderr.isatty():
        yield from results
        return
    with _rich_progress() as bar:
        task = bar.add_task(description, total=total)
        for result in results:
            yield result
            bar.advance(task)


@contextmanager
def _rich_progress() -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield bar
