"""What the suites share: one cohort, made once per commit, and their defaults."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.config import Preset, preset, use_private_cache
from benchmarks.data import benchmark_cohort
from benchmarks.data.boxes import Task
from benchmarks.data.forms import make_store
from benchmarks.operations import Operation, prepare

# What an older library answers where it lacks what a suite asks; asv then skips the benchmark.
LACKS = (ImportError, AttributeError, TypeError, NotImplementedError)


def chosen_size() -> Preset:
    """Return the size that ``RADIOBJECT_BENCH_PRESET`` names."""
    return preset(os.environ.get("RADIOBJECT_BENCH_PRESET", "suites"))


def make_task() -> Task:
    """Return the task that suites measure; stores are written into the current folder."""
    size = chosen_size()
    return Task(benchmark_cohort(size), size.patch_size, size.batch_size, home=Path.cwd())


class Repeated:
    """How often a time is taken: eight to ten samples a side, of one call each."""

    version = "1"
    number = 1
    warmup_time = 0.0
    rounds = 2
    repeat = (4, 5, 20.0)
    timeout = 600.0


class BaseCase(Repeated):
    """Base of the suites: `setup_cache` makes the cohort, which `setup` and methods then get.

    The NIfTI files are shared by all commits; RadiObject's stores are written into the folder
    that asv keeps as long as it measures one commit, by that commit's code.
    """

    def setup_cache(self) -> Task:
        use_private_cache()
        task = make_task()
        try:
            make_store(task.cohort, "isotropic", task.home)
        except LACKS as error:
            print(f"this version cannot write the store: {error}")  # setup will say so again
        return task


class _Measured:
    """Figures of a row of `benchmarks.ranking`, which `setup_cache` measured and `setup` takes.

    A loader that cannot run in this environment is skipped.
    """

    version = "1"
    timeout = 900.0

    def take(self, row):
        if row["status"] != "ok":
            raise NotImplementedError(row["reason"])
        self.row = row

    def track_seconds_per_sample(self, *parameters):
        return {"samples": [1 / rate for rate in self.row["rounds"]], "number": 1}

    track_seconds_per_sample.unit = "s"

    def track_first_batch(self, *parameters):
        return self.row["first_batch_ms"] / 1e3

    track_first_batch.unit = "s"


def operation(name: str, task: Task) -> Operation:
    """Return one of `benchmarks.operations`, prepared, in a process with a cache of its own."""
    use_private_cache()
    return prepare(name, task)


@contextmanager
def skipping() -> Iterator[None]:
    """Skip a benchmark, in asv's way, if the library that is imported lacks what the block asks."""
    try:
        yield
    except LACKS as error:
        raise NotImplementedError(f"this version lacks it: {error}") from error
