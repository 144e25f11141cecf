"""Memory, processor time and bytes read of a process and its children."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

_MIB = 1 << 20


def process_tree(pid: int | None = None) -> Iterator[psutil.Process]:
    """Yield the process and every descendant that is still alive."""
    try:
        root = psutil.Process(pid)
        yield root
        yield from root.children(recursive=True)
    except psutil.NoSuchProcess:
        return


def resident_mib(pid: int | None = None) -> float:
    """Return the resident memory of a process tree in MiB.

    Proportional set size where the kernel offers it, so that a page shared by workers counts
    once; resident set size elsewhere.
    """
    return sum(_resident_bytes(process.pid) for process in process_tree(pid)) / _MIB


def held_mib(pid: int | None = None) -> float:
    """Return what a process tree holds in MiB without mapped files: what a leak adds to.

    A mapped library is shared with whoever else runs it: its proportional share grows when they
    end. Where the kernel does not tell files apart this is `resident_mib`.
    """
    parts = ("Pss_Anon:", "Pss_Shmem:")
    return sum(_resident_bytes(process.pid, parts) for process in process_tree(pid)) / _MIB


def _resident_bytes(pid: int, parts: tuple[str, ...] = ("Pss:",)) -> int:
    try:
        rows = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
        found = [int(row[1]) * 1024 for row in rows if row[0] in parts]
        return sum(found) if found else psutil.Process(pid).memory_info().rss
    except (OSError, psutil.Error):
        # The worker ended between being listed and being read: it holds nothing any more.
        return 0


def cpu_seconds(pid: int | None = None) -> float:
    """Return user and system seconds of a process tree, finished children included."""
    total = 0.0
    for process in process_tree(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
        total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


def bytes_read(pid: int | None = None) -> int | None:
    """Return the bytes that a process tree asked for in read calls, or None if not to be had.

    Pages of a memory-mapped file are not read calls and do not count.
    """
    total = 0
    for process in process_tree(pid):
        try:
            total += process.io_counters().read_chars
        except (AttributeError, psutil.Error):
            return None
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
        if self._thread is not None:
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
        busy = [
            100.0 * (cpu - cpu_before) / (at - before)
            for (before, cpu_before), (at, cpu) in zip(
                self._samples, self._samples[1:], strict=False
            )
            if at - before >= self._interval_s / 2
        ]
        (begin, cpu_begin), (end, cpu_end) = self._samples[0], self._samples[-1]
        mean = 100.0 * (cpu_end - cpu_begin) / max(end - begin, 1e-9)
        return mean, max([mean, *busy])
