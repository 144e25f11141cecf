"""Goals are measured on tiny volumes, and told as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import evidence, reach, reach_doors
from benchmarks.boxes import Task
from benchmarks.cohort import Cohort
from benchmarks.engine import decoded_cache, write_ways
from benchmarks.errors import BenchmarkError
from benchmarks.goals import (
    BIDS,
    DICOM,
    ENGINE,
    FIRST_SLICE,
    REGION_GOALS,
    Goal,
    Outcome,
    of_ratio,
)
from benchmarks.infrastructure.turns import interleaved, ratio
from benchmarks.reach_doors import (
    bids_outcome,
    dicom_outcome,
    ingest_outcomes,
    viewer_outcome,
)
from benchmarks.reach_engine import budget_outcomes, region_outcomes
from benchmarks.reach_loaders import (
    RATIOS,
    construction_outcomes,
    first_batch_outcome,
    growth_outcome,
    ratio_outcome,
)
from benchmarks.reach_network import network_outcomes
from benchmarks.sections import fill_section, markers, read_section

FAST = Goal(ENGINE, "speed", 2.0, "x")
SHORT = Goal(ENGINE, "time", 100.0, "ms", at_least=False)
NONE = Goal(ENGINE, "requests", 0.0, "requests", at_least=False)


@pytest.fixture
def task(cohort: Cohort, tmp_path: Path) -> Task:
    return Task(cohort, (16, 12, 20), batch_size=2, home=tmp_path)


@pytest.mark.parametrize(
    ("goal", "figure", "verdict", "shortfall"),
    [
        (FAST, 2.0, "reached", 0.0),
        (FAST, 1.5, "missed", 0.25),
        (SHORT, 100.0, "reached", 0.0),
        (SHORT, 150.0, "missed", 0.5),
        (NONE, 0.0, "reached", 0.0),
        (NONE, 0.25, "missed", 0.25),
        (FAST, None, "not measured", 0.0),
    ],
)
def test_verdicts(goal: Goal, figure: float | None, verdict: str, shortfall: float) -> None:
    outcome = Outcome(goal, figure)
    assert outcome.verdict == verdict
    assert outcome.shortfall == shortfall


def test_turns_alternate_and_ratios_are_of_the_same_round() -> None:
    called: list[str] = []
    taken = interleaved({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 3)
    assert called == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert {len(seconds) for seconds in taken.values()} == {3}
    assert ratio([1.0, 10.0, 100.0], [2.0, 5.0, 50.0]).median == 2.0
    with pytest.raises(BenchmarkError, match="1 and 2 rounds"):
        ratio([1.0], [1.0, 2.0])


def test_the_engine_is_measured_beside_its_rivals(cohort: Cohort, tmp_path: Path) -> None:
    stored = write_ways(cohort, tmp_path)
    for region, goals in REGION_GOALS.items():
        outcomes = region_outcomes(stored, region, rounds=2)
        assert [outcome.goal for outcome in outcomes] == [goal for *_, goal in goals]
        assert all(outcome.figure and outcome.figure > 0 for outcome in outcomes)
    assert len(budget_outcomes(stored, rounds=2)) == 2


def test_a_cache_of_its_own_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from radiobject.ctx import get_radiobject_config

    monkeypatch.setenv("RADIOBJECT_CACHE", "before")
    settings = get_radiobject_config().read
    with decoded_cache(100):
        assert os.environ["RADIOBJECT_CACHE"].startswith("bench-")
        assert get_radiobject_config().read.tile_cache_size_mb == 100
    with decoded_cache(None):
        assert os.environ["RADIOBJECT_CACHE"] == "off"
    assert os.environ["RADIOBJECT_CACHE"] == "before"
    assert get_radiobject_config().read == settings


@pytest.mark.parametrize("name", RATIOS)
def test_loaders_are_measured_in_turn(name: str, task: Task) -> None:
    outcome = ratio_outcome(name, task, rounds=2)
    assert outcome.goal is RATIOS[name][0]
    assert outcome.figure is not None
    assert 0.01 < outcome.figure < 100


def test_first_batch_construction_and_growth(task: Task, tmp_path: Path) -> None:
    assert first_batch_outcome(task, rounds=2).figure is not None
    seconds, reads = construction_outcomes(tmp_path, volumes=300, rounds=2)
    assert seconds.figure is not None
    assert reads.figure in (1, 2)  # tables of few volumes bring their tile indexes along
    assert growth_outcome(task, 0, patches=500).figure is not None


def test_the_doors_are_measured_beside_what_others_do(task: Task, tmp_path: Path) -> None:
    ingest, disk = ingest_outcomes(task, tmp_path, rounds=2)
    assert ingest.figure is not None
    assert disk.figure is not None
    assert disk.figure > 0
    outcomes = (
        dicom_outcome(task, tmp_path, rounds=2),
        bids_outcome(tmp_path, subjects=12, rounds=2),
        viewer_outcome(task, rounds=2),
    )
    assert [outcome.goal for outcome in outcomes] == [DICOM, BIDS, FIRST_SLICE]
    assert all(outcome.figure and outcome.figure > 0 for outcome in outcomes)


def test_two_ways_that_read_other_voxels_are_not_compared(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plainly = reach_doors._read_plain
    monkeypatch.setattr(reach_doors, "_read_plain", lambda uri: plainly(uri) + 1)
    with pytest.raises(BenchmarkError, match="do not give the same voxels"):
        ingest_outcomes(task, tmp_path, rounds=2)


@pytest.mark.s3
def test_a_patch_over_the_network_is_one_request_and_none_with_the_mirror(
    task: Task,
) -> None:
    outcomes = {o.goal.name: o for o in network_outcomes(task, rounds=2, latency_ms=0)}
    assert outcomes["requests of a later patch"].verdict == "reached"
    assert outcomes["the same with the mirror"].figure == 0


def test_every_goal_has_a_section_that_measures_it() -> None:
    told = [goal for _, goals, _ in reach.SECTIONS.values() for goal in goals]
    assert len({goal.name for goal in told}) == len(told)
    assert sum(limit for *_, limit in reach.SECTIONS.values()) <= 720


def test_a_section_that_fails_is_told_and_the_others_are_measured(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(reach, "RESULTS", tmp_path / "reach.json")
    monkeypatch.setattr(reach, "benchmark_cohort", lambda n: cohort)
    # These volumes are smaller than a patch: the section's process ends with that.
    with pytest.raises(BenchmarkError, match=r"nothing was measured .*patch 64x64x64 is larger"):
        reach.reach(["rivals"])
    with pytest.raises(BenchmarkError, match="no section 'engin'; known are rivals, engine"):
        reach.reach(["engin"])
    assert not (tmp_path / "reach.json").exists()


def _summary(rows: list[dict]) -> dict:
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "command": "python -m benchmarks reach",
        "commit": "c" * 40,
        "uncommitted": [],
        "machine": {"cpu": "X", "cores": 2, "memory_gib": 8, "os": "Linux", "python": "3.11"},
        "versions": {"torch": "2"},
        "outcomes": rows,
    }


def test_the_table_marks_what_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        of_ratio(FAST, ratio([2.0, 3.0], [1.0, 1.0])).row(),
        Outcome(SHORT, 123.4).row(),
        Outcome(NONE, reason="no server").row(),
    ]
    source = tmp_path / "results.json"
    source.write_text(json.dumps(_summary(rows)))
    shown = evidence.SOURCES["reach"]
    monkeypatch.setattr(evidence, "SOURCES", {"reach": (source, *shown[1:])})
    document = tmp_path / evidence.DOCUMENT
    document.write_text("\n".join(("before", *markers("reach"), "after")))
    assert evidence.keep(tmp_path) == [str(tmp_path / "reach.json")]
    section = read_section(document, "reach")
    assert "| read engine | speed | ≥ 2 x | 2.50 | 2.25 to 2.75 | reached |" in section
    assert "| read engine | time | ≤ 100 ms | 123 |  | **missed** |" in section
    assert "| read engine | requests | ≤ 0 requests |  |  | no server |" in section
    assert document.read_text().startswith("before\n")
    monkeypatch.setattr(evidence, "SOURCES", {"reach": (tmp_path / "none", *shown[1:])})
    with pytest.raises(BenchmarkError, match="nothing to keep"):
        evidence.keep(tmp_path)


def test_a_document_without_the_section_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("nothing here")
    with pytest.raises(BenchmarkError, match="lacks the lines <!-- reach:begin -->"):
        fill_section(tmp_path / "page.md", "reach", "")


def test_sections_of_the_documentation_are_made_from_what_is_kept() -> None:
    for name, (_, _, shown) in evidence.SOURCES.items():
        kept = evidence.DOCS / f"{name}.json"
        section = read_section(evidence.DOCS / evidence.DOCUMENT, name)
        expected = shown(json.loads(kept.read_text())) if kept.exists() else "Not measured yet."
        assert section == expected.strip()
