"""One side of the gate: a commit's library, and what its process measures of it."""

import io
import subprocess
import tarfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.config import ROOT
from benchmarks.data.boxes import Task
from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure.resources import resident_mib, settled_mib
from benchmarks.operations import count, is_counted_only, prepare, prepare_growth
from benchmarks.s3 import traffic

WALL, CPU, SHARE = "wall s", "CPU s", "share of one thread"
COUNTED = ("tiles_decoded", "bytes_read", "requests", "array_opens", "index_opens")


def export_library(commit: str, folder: Path) -> Path:
    """Write the library as it was at `commit` below `folder`."""
    packed = subprocess.run(
        ["git", "archive", commit, "radiobject"], cwd=ROOT, capture_output=True, check=False
    )
    if packed.returncode:
        raise BenchmarkError(f"commit {commit[:10]} holds no radiobject: {packed.stderr.decode()}")
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


class Side:
    """Operations of one commit, prepared once and called many times."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._calls: dict[str, Callable[[], Any]] = {}

    def where(self) -> Path:
        """Return which library is measured."""
        import radiobject

        return Path(radiobject.__file__).parents[1].resolve()

    def prepare(self, name: str) -> dict[str, str]:
        """Make an operation ready and warm; return why, if this commit does not have it.

        What is only counted stays as it is: its first call is part of what is asked.
        """
        try:
            self._calls[name] = prepare(name, self._task)
        except NotImplementedError as reason:
            return {"lacks": str(reason), "trace": traceback.format_exc()}
        if not is_counted_only(name):
            self._calls[name]()
            self._calls[name]()
        return {}

    def sample(self, name: str, calls: int) -> dict[str, float]:
        """Return wall and processor seconds of a call, the mean of `calls`.

        And which share of the processor seconds the calling thread took: all, where it is alone.
        """
        call = self._calls[name]
        clocks = time.perf_counter, time.process_time, time.thread_time
        begin = [clock() for clock in clocks]
        for _ in range(calls):
            call()
        wall, cpu, alone = (clock() - since for clock, since in zip(clocks, begin, strict=True))
        return {WALL: wall / calls, CPU: cpu / calls, SHARE: alone / max(cpu, 1e-9)}

    def count(self, name: str) -> dict[str, int]:
        """Return what one call adds to the library's counters, and to the object store's.

        Requests are what the store answered: which of them a library counts itself differs, as
        versions read more or less through libtiledb, which counts none.
        """
        before = traffic() if is_counted_only(name) else None
        found = count(self._calls[name], COUNTED)
        if before is not None:
            answered = traffic().since(before)
            found.pop("requests", None)
            found["requests answered"] = answered.requests
            found["bytes answered"] = answered.bytes_sent
        return found

    def resident(self) -> float:
        """Return this process's memory in MiB, without what its heap merely keeps for later."""
        settled_mib()
        return resident_mib()

    def growth(self) -> dict[str, Any]:
        """Return the bytes gained with each patch over many of them."""
        try:
            return {"bytes": prepare_growth(self._task)()}
        except (ImportError, AttributeError) as error:
            return {"lacks": str(error)}
