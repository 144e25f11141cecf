"""Progress on a terminal, silence elsewhere."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# A CT volume needs about 2 GB while it is made: two at a time fit any machine that can hold one.
_THREADS = 2


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items`, with a bar on standard error while a person is watching."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as bar

    yield from bar(items, what, total=total, console=Console(stderr=True), transient=True)


def on_threads(job: Callable[[Item], Result], items: Sequence[Item], what: str) -> list[Result]:
    """Return ``[job(item) for item in items]``, two at a time, with progress."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(track(pool.map(job, items), what, total=len(items)))
