"""Running many independent jobs on any executor, in order and with a bounded number in flight."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import tiledb

from radiobject.ctx import get_radiobject_config, get_tiledb_ctx
from radiobject.executors import ExecutorLike as ExecutorLike
from radiobject.executors import run as run

T = TypeVar("T")
R = TypeVar("R")


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
