"""The gate runs on two libraries, bites when reads are slowed, and fails when it saw nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import gate, gate_check
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


def test_a_store_on_a_server_is_counted_and_equal_libraries_count_the_same(
    libraries: dict[str, Path],
) -> None:
    findings, lacking = gate.measure(libraries, gate.QUICK_PAIRS, ("s3:32",))
    assert lacking == {}
    counted = {(f.benchmark, f.measure): f for f in findings if f.measure != "resident MiB"}
    assert {f.verdict.word for f in counted.values()} == {"same"}
    assert counted["s3:32 first touch", "requests answered"].head > 0
    assert ("s3:32 later", "requests answered") in counted


def _outcome(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closes: dict[str, bool]) -> list[str]:
    """Let tries come out as told; return the kinds that were run."""
    run: list[str] = []

    def one(commit: str, kind: str) -> dict:
        run.append(kind)
        if len(run) == 3:
            raise KeyboardInterrupt
        finding = {"benchmark": "b", "measure": "CPU s", "ratio": 1.0, "low": 1.0, "high": 1.0}
        return {
            "kind": kind,
            "closed": closes[kind],
            "seconds": 60.0,
            "lacking": {},
            "findings": [{**finding, "word": "same"}],
        }

    monkeypatch.setattr(gate_check, "RESULTS", tmp_path / "gate-check.json")
    monkeypatch.setattr(gate_check, "require_history", lambda clean: "c" * 40)
    monkeypatch.setattr(gate_check, "_try_once", one)
    return run


def test_the_proof_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    run = _outcome(monkeypatch, tmp_path, {"slowed": True, "equal": False})
    with pytest.raises(KeyboardInterrupt):
        gate_check.gate_check(2, 3)
    assert run == ["slowed", "slowed", "equal"]
    assert gate_check.gate_check(2, 3) == 0
    assert run == ["slowed", "slowed", "equal", "equal", "equal", "equal"]
    assert gate_check.gate_check(2, 3) == 0
    assert len(run) == 6
    assert "5 of 5 tries as they must be" in capsys.readouterr().out
    table = gate_check.as_markdown(json.loads((tmp_path / "gate-check.json").read_text()))
    assert "| a copy whose reads take 1.3 times as long | 2 | 2 | 0 | 2 |" in table
    assert "| an equal copy | 3 | 0 | 3 | 3 |" in table


def test_tries_of_another_commit_are_kept_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _outcome(monkeypatch, tmp_path, {"slowed": False, "equal": False})
    assert gate_check.gate_check(1, 0) == 1
    monkeypatch.setattr(gate_check, "require_history", lambda clean: "d" * 40)
    assert gate_check.gate_check(1, 0) == 1
    assert run == ["slowed", "slowed"]
    assert (tmp_path / "gate-check-cccccccccc.json").exists()
