"""The gate runs on two libraries, bites when reads are slowed, and fails when it saw nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import gate
from benchmarks.boxes import Task
from benchmarks.cohort import Cohort
from benchmarks.config import _BENCHMARKS_DIR
from benchmarks.errors import BenchmarkError
from benchmarks.gate_check import slow_reads

LIBRARY = _BENCHMARKS_DIR.parent / "radiobject"


@pytest.fixture
def libraries(tmp_path: Path, cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    made = {}
    for side in ("base", "head"):
        made[side] = tmp_path / side
        made[side].mkdir()
        shutil.copytree(LIBRARY, made[side] / "radiobject")
        (made[side] / "benchmarks").symlink_to(_BENCHMARKS_DIR, target_is_directory=True)
    monkeypatch.setattr("benchmarks.suites.make_task", lambda: Task(cohort))
    return made


def test_reads_that_take_twice_as_long_close_the_gate(libraries: dict[str, Path]) -> None:
    slow_reads(libraries["head"], 2.0)
    findings, lacking = gate.measure(libraries, gate.QUICK_PAIRS, ("box:32",))
    assert lacking == {}
    times = [f for f in findings if f.measure == "CPU s"]
    assert [f.benchmark for f in times] == ["box:32"]
    assert times[0].verdict.word == "worse"
    assert 1.3 < times[0].verdict.ratio < 2.7


def test_a_gate_that_measured_nothing_fails(libraries: dict[str, Path]) -> None:
    for library in libraries.values():
        (library / "radiobject" / "__init__.py").write_text("")
    with pytest.raises(BenchmarkError, match=r"the gate measured nothing .*this version lacks it"):
        gate.measure(libraries, gate.QUICK_PAIRS, ("box:32",))


def test_a_worker_that_dies_is_an_error(libraries: dict[str, Path]) -> None:
    (libraries["head"] / "radiobject" / "__init__.py").write_text("import os; os._exit(7)")
    with pytest.raises(BenchmarkError, match=r"process ended \(code 7\)"):
        gate.measure(libraries, gate.QUICK_PAIRS, ("box:32",))


def test_the_slowdown_needs_something_to_slow(tmp_path: Path) -> None:
    (tmp_path / "radiobject" / "storage").mkdir(parents=True)
    (tmp_path / "radiobject" / "storage" / "reader.py").write_text("")
    with pytest.raises(BenchmarkError, match="has no read_batch"):
        slow_reads(tmp_path, 1.3)
