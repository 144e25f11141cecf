from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.data.cohort import Cohort, CohortSpec, make_cohort


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    home = tmp_path_factory.mktemp("cohort")
    return make_cohort(CohortSpec(n_subjects=3, shape=(48, 40, 31)), home)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A benchmark folder of the test's own, for code that keeps forms and results."""
    for module in ("forms", "cohort", "user"):
        monkeypatch.setattr(f"benchmarks.data.{module}.BENCHMARK_DIR", tmp_path)
    return tmp_path
