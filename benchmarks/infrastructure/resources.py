"""Memory, processor time and bytes read of a process and its children."""

import ctypes
import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_MIB = 1 << 20
# What a process holds without mapped files: a mapped library is shared with whoever else runs it,
# and its proportional share grows when they end.
_ANONYMOUS = ("Pss_Anon:", "Pss_Shmem:")


def process_tree(pid: int | None = None) -> Iterator[psutil.Process]:
    """Yield the process and every descendant that is still alive."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        yield root
        yield from root.children(recursive=True)


def resident_mib(pid: int | None = None, parts: tuple[str, ...] = ("Pss:",)) -> float:
    """Return the resident memory of a process tree in MiB.

    Proportional set size where the kernel offers it, so that a page shared by workers counts
    once; resident set size elsewhere.
    """
    return sum(_resident_bytes(process.pid, parts) for process in process_tree(pid)) / _MIB


def _resident_bytes(pid: int, parts: tuple[str, ...]) -> int:
    try:
        rows = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
        found = [int(row[1]) * 1024 for row in rows if row[0] in parts]
        return sum(found) if found else psutil.Process(pid).memory_info().rss
    except (OSError, psutil.Error):
        # The worker ended between being listed and being read: it holds nothing any more.
        return 0


def settled_mib() -> float:
    """Return what this process and its children hold, without what a heap keeps for later."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return resident_mib(parts=_ANONYMOUS)


def cpu_seconds(pid: int | None = None) -> float:
    """Return user and system seconds of a process tree, finished children included."""
    total = 0.0
    for process in process_tree(pid):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
            total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


class CPUSampler:
    """Samples how busy this process and its children are, in percent of one core.

    Examples
    --------
    >>> sampler = CPUSampler()
    >>> sampler.start()
    >>> mean, peak = sampler.stop()
    """

    def __init__(self, interval_s: float = 0.1) -> None:
        self._interval_s = interval_s
        self._samples: list[tuple[float, float]] = []
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin sampling in a thread; a second call starts afresh."""
        self.stop()
        self._samples = [(time.perf_counter(), cpu_seconds())]
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, args=(os.getpid(),), daemon=True)
        self._thread.start()

    def _run(self, pid: int) -> None:
        while not self._stopped.wait(self._interval_s):
            self._samples.append((time.perf_counter(), cpu_seconds(pid)))

    def stop(self) -> tuple[float, float]:
        """End sampling and return the mean and the peak; (0, 0) if it was never started."""
        if self._thread is None:
            return 0.0, 0.0
        self._stopped.set()
        self._thread.join()
        self._thread = None
        self._samples.append((time.perf_counter(), cpu_seconds()))
        times, used = zip(*self._samples, strict=True)
        pairs = zip(times, times[1:], used, used[1:], strict=False)
        busy = [
            100.0 * (after - before) / (end - begin)
            for begin, end, before, after in pairs
            if end - begin >= self._interval_s / 2
        ]
        mean = 100.0 * (used[-1] - used[0]) / max(times[-1] - times[0], 1e-9)
        return mean, max([mean, *busy])
