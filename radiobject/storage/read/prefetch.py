"""Look-ahead: the boxes that will be needed next are fetched and decoded while others are used."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from types import TracebackType

from radiobject import process
from radiobject.addresses import is_remote
from radiobject.ctx import get_radiobject_config
from radiobject.exceptions import StorageError
from radiobject.storage.io import stats
from radiobject.storage.read import reader
from radiobject.storage.read.reader import ReadRequest

REMOTE_THREADS = 16


class Prefetch:
    """Reads batches in their order, a bounded number of them ahead of the caller.

    Parameters
    ----------
    batches : iterable of sequence of ReadRequest
        The plan. The next element is taken only when one of the `depth` places is free, so a
        generator may hand out buffers of a ring of ``depth + 1``.
    depth : int
        Most batches being read, or read and not yet handed over. The first is read alone:
        somebody waits for it, and others would only delay it.
    threads : int, optional
        Threads that read; by default ``ReadConfig.concurrency`` for local volumes and 16 where
        a batch lies in an object store.

    Raises
    ------
    StorageError
        From the iteration: the error of the first box, in the order of the plan, that could not
        be read, naming its volume. What was still to be read is cancelled.

    Examples
    --------
    ``with Prefetch(plan, depth=2) as ahead: for batch in ahead: ...``
    """

    def __init__(
        self,
        batches: Iterable[Sequence[ReadRequest]],
        *,
        depth: int = 2,
        threads: int | None = None,
    ) -> None:
        self._batches = iter(batches)
        self._depth = max(1, depth)
        self._threads = threads
        self._pool: Executor | None = None
        self._waiting: deque[tuple[Sequence[ReadRequest], list[Future[None]]]] = deque()
        self._closed = False
        self._begun = False

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Sequence[ReadRequest]]:
        return self

    def __next__(self) -> Sequence[ReadRequest]:
        """Return the next batch, its buffers filled."""
        self._fill()
        if not self._waiting:
            self.close()
            raise StopIteration
        batch, parts = self._waiting.popleft()
        started = time.perf_counter_ns()
        try:
            for part in parts:
                part.result()
        except BaseException:
            self._waiting.appendleft((batch, parts))
            self.close()
            raise
        stats.count(wait_ns=time.perf_counter_ns() - started)
        self._begun = True
        return batch

    def close(self) -> None:
        """Cancel what has not begun, wait for what has, and end the threads."""
        self._closed = True
        for _, parts in self._waiting:
            for part in parts:
                part.cancel()
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _fill(self) -> None:
        depth = self._depth if self._begun else 1
        while not self._closed and len(self._waiting) < depth:
            batch = next(self._batches, None)
            if batch is None:
                return
            remote = any(is_remote(request.locator.uri) for request in batch)
            pool = self._threads_for(remote)
            # Boxes of an object store wait for the network: each gets a thread of its own.
            parts = [[request] for request in batch] if remote else [list(batch)]
            self._waiting.append((batch, [pool.submit(_read, part) for part in parts]))
            stats.count(lookahead_boxes=len(batch))

    def _threads_for(self, remote: bool) -> Executor:
        if self._pool is None:
            count = self._threads
            if count is None:
                count = REMOTE_THREADS if remote else get_radiobject_config().read.concurrency
            self._pool = process.new_threads("ahead", count)
        return self._pool


def _read(requests: list[ReadRequest]) -> None:
    for request in requests:
        try:
            reader.read_batch((request,))
        except StorageError as error:
            label = request.locator.label
            if label in str(error):
                raise
            raise type(error)(f"volume {label}: {error}") from error
