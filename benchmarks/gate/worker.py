"""One commit's side of the gate: a process that runs operations when told to.

Started with the commit's own `radiobject` first on its path. It reads one JSON command per line
from standard input and answers each with one line of JSON on standard output.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.config import use_private_cache
from benchmarks.data.boxes import Task
from benchmarks.data.cohort import read_cohort
from benchmarks.infrastructure.resources import resident_mib
from benchmarks.memory import prepare_growth, settled_mib
from benchmarks.operations import is_counted_only, prepare
from benchmarks.s3 import traffic

COUNTED = ("tiles_decoded", "bytes_read", "requests", "array_opens", "index_opens")


class Side:
    """Operations of one commit, prepared once and called many times."""

    def __init__(self, cohort_root: str, home: str) -> None:
        self._task = Task(read_cohort(Path(cohort_root)), home=Path(home))
        self._task = self._task.with_patches_that_fit()
        self._calls: dict[str, Callable[[], Any]] = {}

    def prepare(self, name: str) -> dict[str, Any]:
        """Make an operation ready and warm; return whether this commit has it.

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
        """Return wall and processor seconds of `calls` calls."""
        call = self._calls[name]
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            call()
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    def count(self, name: str) -> dict[str, int]:
        """Return what one call adds to the library's counters, and to the object store's.

        Requests are what the store answered: which of them a library counts itself differs, as
        versions read more or less through libtiledb, which counts none.
        """
        from radiobject.stats import TileDBStats

        before = traffic() if is_counted_only(name) else None
        with TileDBStats() as stats:
            self._calls[name]()
        counters = stats.all_counters()
        found = {counter: counters[counter] for counter in COUNTED if counter in counters}
        if before is not None:
            after = traffic()
            found.pop("requests", None)
            found["requests answered"] = after.requests - before.requests
            found["bytes answered"] = after.bytes_sent - before.bytes_sent
        return found

    def resident(self) -> dict[str, float]:
        """Return this process's memory in MiB, without what its heap merely keeps for later."""
        settled_mib()
        return {"mib": resident_mib()}

    def growth(self) -> dict[str, Any]:
        """Return the bytes gained with each patch over many of them."""
        try:
            grow = prepare_growth(self._task)
        except (ImportError, AttributeError) as error:
            return {"lacks": str(error)}
        return {"bytes": grow()}

    def where(self) -> dict[str, str]:
        """Return which library is measured."""
        import radiobject

        return {"library": str(Path(radiobject.__file__).parent)}


def serve() -> None:
    """Answer commands until standard input ends."""
    warnings.simplefilter("ignore")
    use_private_cache()
    # What a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    side: Side | None = None
    for line in sys.stdin:
        what, arguments = json.loads(line)
        try:
            if what == "begin":
                side = Side(*arguments)
                answer: dict[str, Any] = {}
            else:
                answer = getattr(side, what)(*arguments)
        except Exception as error:  # noqa: BLE001 - told to the gate, which decides
            answer = {"error": str(error), "trace": traceback.format_exc()}
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
