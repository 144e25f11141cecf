from __future__ import annotations

import sys
from collections.abc import Iterator
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


@pytest.fixture(autouse=True)
def monais_switch() -> Iterator[None]:
    """Switch MONAI's metadata on again, which loaders switch off in the process that they have."""
    yield
    if (monai := sys.modules.get("monai.data")) is not None:
        monai.set_track_meta(True)
