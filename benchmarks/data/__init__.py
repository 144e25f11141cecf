"""What is measured: volumes, the boxes asked of them, and the forms they are kept in."""

import os
from pathlib import Path

from benchmarks.config import USER_DATA_VARIABLE, Preset
from benchmarks.data.cohort import CT_SHAPE, Cohort, CohortSpec, make_cohort
from benchmarks.data.user import user_cohort
from benchmarks.errors import BenchmarkError


def benchmark_cohort(
    size: Preset, n_subjects: int | None = None, data: str | Path | None = None, kind: str = "brain"
) -> Cohort:
    """Return the cohort to measure: the user's own folder if one is named, else the built-in."""
    count = size.n_subjects if n_subjects is None else n_subjects
    if count < 1:
        raise BenchmarkError(f"a cohort needs at least 1 subject, got {count}")
    given = data or os.environ.get(USER_DATA_VARIABLE)
    if given:
        return user_cohort(Path(given).expanduser(), count)
    return make_cohort(CohortSpec(kind, count, CT_SHAPE if kind == "ct" else size.shape))
