"""What the asv suites share: one cohort, made once per commit, and their defaults.

asv finds benchmarks by the names of methods; nothing here has such a name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.boxes import Task
from benchmarks.config import preset


class Fixture:
    """Base of the suites: `setup_cache` makes the cohort, which `setup` and methods then get.

    The NIfTI files are shared by all commits; RadiObject's stores are written into the folder
    that asv keeps as long as it measures one commit, by that commit's code.
    """

    version = "1"
    number = 1
    warmup_time = 0.0
    rounds = 2
    repeat = (4, 5, 20.0)
    timeout = 300.0

    def setup_cache(self) -> Task:
        return make_task()


def make_task() -> Task:
    """Return the task that suites measure; ``RADIOBJECT_BENCH_PRESET`` chooses its size."""
    from benchmarks.cohort import benchmark_cohort

    size = preset(os.environ.get("RADIOBJECT_BENCH_PRESET", "suites"))
    cohort = benchmark_cohort(size.n_subjects)
    return Task(cohort, size.patch_size, size.batch_size, home=Path.cwd())


def operation(name: str, task: Task) -> Any:
    """Return one of `benchmarks.operations`, prepared."""
    from benchmarks.operations import prepare

    return prepare(name, task)


def make_loader(name: str, task: Task, workers: int = 0) -> Any:
    """Return a loader, prepared but not opened; asv skips what cannot run here."""
    from benchmarks.loaders import LOADERS

    reason = LOADERS[name].missing()
    if reason is not None:
        raise NotImplementedError(reason)
    loader = LOADERS[name](replace(task, num_workers=workers))
    try:
        loader.prepare()
    except (ImportError, AttributeError) as error:
        raise NotImplementedError(f"{name}: this version lacks it ({error})") from error
    return loader


def opened(name: str, task: Task, workers: int = 0, *, prove: bool = False) -> Iterator[Any]:
    """Return an endless iterator of batches, warm: two epochs of the task, or five seconds."""
    from benchmarks.equality import prove_equal
    from benchmarks.infrastructure.measure import endless, measure_batches

    loader = make_loader(name, task, workers)
    if prove:
        prove_equal(loader, 1)
    batches = endless(loader.open())
    per_epoch = len(task.boxes()) // task.batch_size
    measure_batches(batches, 2 * per_epoch, 1, budget_s=5.0)
    return batches
