"""How much memory a piece of work takes, found in a process of its own.

The process of a test run holds what other tests left and frees it when it likes: a difference
taken there is theirs as much as the work's.
"""

import gc
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any


class Growth:
    """The most that this process's memory outside mapped files rose while the block ran."""

    def __enter__(self) -> "Growth":
        gc.collect()
        self._before = self._peak = _private_bytes()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()
        gc.collect()
        self.left_mib = (_private_bytes() - self._before) / 2**20
        self.peak_mib = (self._peak - self._before) / 2**20

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self._peak = max(self._peak, _private_bytes())


def _private_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    (line,) = [text for text in status.splitlines() if "RssAnon" in text]
    return int(line.split()[1]) << 10


def alone(job: Callable[..., Any], *arguments: Any) -> Any:
    """What `job(*arguments)` returns in a fresh process; `job` is of a module on the path."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(job, *arguments).result(timeout=280)
