"""What the asv suites share: one cohort, made once per commit, and their defaults.

asv finds benchmarks by the names of methods; nothing here has such a name.
"""

from __future__ import annotations

import os
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
    return Task(cohort, size.patch_size, size.batch_size)


def operation(name: str, task: Task) -> Any:
    """Return an operation whose stores live as long as the commit is measured."""
    from benchmarks.operations import prepare

    return prepare(name, task, home=Path.cwd())
