"""The gate runs on two libraries, bites on what is planted, and fails when it saw nothing."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.config import ROOT
from benchmarks.data.boxes import Task
from benchmarks.data.cohort import Cohort
from benchmarks.errors import BenchmarkError
from benchmarks.gate import check, compare
from benchmarks.gate.check import PLANTS, is_right, plant
from benchmarks.gate.compare import Finding, as_markdown, is_closed
from benchmarks.gate.verdicts import Verdict

LIBRARY = ROOT / "radiobject"
COMMITS = {"base": "b" * 40, "head": "h" * 40}


@pytest.fixture
def libraries(tmp_path: Path, cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    made = {}
    for side in ("base", "head"):
        made[side] = tmp_path / side
        made[side].mkdir()
        shutil.copytree(LIBRARY, made[side] / "radiobject")
    monkeypatch.setattr(compare, "make_task", lambda: Task(cohort))
    return made


@pytest.mark.measuring
@pytest.mark.parametrize(
    "kind",
    [
        "loader's factory raises",
        "2 KiB kept of each patch",
        pytest.param("import raises", marks=pytest.mark.slow),
        pytest.param("reads raise", marks=pytest.mark.slow),
        pytest.param("every read done twice", marks=pytest.mark.slow),
        pytest.param("reads 1.3 times as long", marks=pytest.mark.slow),
    ],
)
def test_what_is_planted_closes_the_gate_by_its_own_line(
    kind: str, libraries: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind.startswith("reads 1.3"):  # a busy machine must not hide it from this short form
        monkeypatch.setitem(
            PLANTS,
            kind,
            check.Plant(
                check._READER, check._SLOWED.replace("1.3", "2.5"), ("volume",),
                (("volume", "CPU s"),),
            ),
        )  # fmt: skip
    plant(libraries["head"], kind)
    names = PLANTS[kind].names
    findings, lacking = compare.measure(libraries, compare.QUICK_PAIRS, names)
    assert lacking == {}
    assert is_closed(findings)
    assert is_right({"kind": kind, "closed": True, "findings": list(map(check._short, findings))})
    if "raise" in kind:
        page = as_markdown(findings, lacking, COMMITS)
        assert "Gate closed" in page
        assert "head: " in page
        assert "planted" in page.split("```")[1]  # the traceback's own words


@pytest.mark.measuring
def test_words_change_nothing(libraries: dict[str, Path]) -> None:
    plant(libraries["head"], "words only")
    findings, lacking = compare.measure(libraries, compare.QUICK_PAIRS, ("s3:32",))
    assert lacking == {}
    noisy = ("CPU s", "wall s", "resident MiB", "bytes a patch")
    assert {f.verdict.word for f in findings if f.measure not in noisy} == {"same"}, findings
    counted = {(f.benchmark, f.measure): f for f in findings}
    assert counted["s3:32 first touch", "requests answered"].head > 0
    assert counted["s3:32 first touch", "bytes answered"].head > 0
    assert ("s3:32 later", "requests answered") in counted
    assert "requests" not in {measure for _, measure in counted}  # each version's own idea of them


@pytest.mark.slow
def test_what_only_base_lacks_is_reported_and_what_base_breaks_on_closes(
    libraries: dict[str, Path],
) -> None:
    public = libraries["base"] / "radiobject" / "stats.py"
    public.write_text("raise RuntimeError('base is broken')\n")
    findings, _ = compare.measure(libraries, compare.QUICK_PAIRS, ("box:32",))
    words = {finding.verdict.word for finding in findings}
    assert "unmeasured" in words
    assert is_closed(findings)


def test_a_gate_that_measured_nothing_fails(libraries: dict[str, Path]) -> None:
    for library in libraries.values():
        (library / "radiobject" / "__init__.py").write_text("")
    with pytest.raises(BenchmarkError, match=r"the gate measured nothing .*this version lacks it"):
        compare.measure(libraries, compare.QUICK_PAIRS, ("box:32",))


def test_a_worker_that_dies_closes_the_gate(libraries: dict[str, Path]) -> None:
    (libraries["head"] / "radiobject" / "__init__.py").write_text("import os; os._exit(7)")
    findings, _ = compare.measure(libraries, compare.QUICK_PAIRS, ("box:32",))
    assert is_closed(findings)
    assert "process ended (code 7)" in findings[0].message


class _Stated:
    """A side that needs stated seconds: a process that another one slows down cannot stand in."""

    def __init__(self, wall: float, cpu: float) -> None:
        self._answer = {"wall": wall, "cpu": cpu}

    def ask(self, what: str, *arguments: object) -> dict[str, float]:
        return dict(self._answer)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ((2.0, 1.0), {"CPU s": "same", "wall s": "worse"}),  # decoding that is no longer parallel
        ((1.0, 1.3), {"CPU s": "worse", "wall s": "same"}),
        ((1.0, 1.0), {"CPU s": "same", "wall s": "same"}),
    ],
)
def test_wall_seconds_close_as_processor_seconds_do(
    head: tuple[float, float], words: dict[str, str]
) -> None:
    sides = {"base": _Stated(1.0, 1.0), "head": _Stated(*head)}
    findings = compare._times("volume", sides, compare.QUICK_PAIRS)  # type: ignore[arg-type]
    assert {finding.measure: finding.verdict.word for finding in findings} == words
    assert is_closed(findings) == ("worse" in words.values())


@pytest.mark.parametrize("word", ["worse", "unknown", "broken", "unmeasured"])
def test_each_of_these_words_closes(word: str) -> None:
    same = Finding("a", "CPU s", Verdict(1.0, 0.9, 1.1, 20, "same"))
    assert not is_closed([same])
    assert is_closed([same, Finding("b", "CPU s", Verdict(1.0, 0.5, 2.0, 20, word))])


def test_an_aborted_run_leaves_no_old_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "RESULTS_DIR", tmp_path)
    compare.report([Finding("a", "CPU s", Verdict(1.0, 0.9, 1.1, 20, "same"))], {}, COMMITS)
    assert json.loads((tmp_path / "gate.json").read_text())["closed"] is False
    page = (tmp_path / "gate.md").read_text()
    assert "## Gate open: hhhhhhhhhh against bbbbbbbbbb" in page
    assert f"{datetime.now(UTC):%Y-%m-%d} " in page
    monkeypatch.setattr("benchmarks.environment.uncommitted", lambda: ["x"])
    with pytest.raises(BenchmarkError, match="uncommitted"):
        compare.gate("HEAD")
    assert list(tmp_path.iterdir()) == []


def test_a_plant_needs_something_to_grow_in(tmp_path: Path) -> None:
    (tmp_path / "radiobject" / "storage").mkdir(parents=True)
    (tmp_path / "radiobject" / "storage" / "reader.py").write_text("")
    with pytest.raises(BenchmarkError, match="'reads raise' plants nothing"):
        plant(tmp_path, "reads raise")


def _outcome(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, right: bool) -> list[str]:
    """Let tries come out right or wrong; return the kinds that were run."""
    run: list[str] = []

    def one(commit: str, kind: str) -> dict:
        run.append(kind)
        if len(run) == 3:
            raise KeyboardInterrupt
        seen = PLANTS[kind].seen
        place = seen[0] if seen and right else ("b", "CPU s")
        word = "worse" if bool(seen) == right else "same"
        finding = {"benchmark": place[0], "measure": place[1], "ratio": 1.0}
        return {
            "kind": kind, "closed": word == "worse", "seconds": 60.0, "lacking": {},
            "findings": [{**finding, "low": 1.0, "high": 1.0, "word": word}],
        }  # fmt: skip

    monkeypatch.setattr(check, "RESULTS", tmp_path / "gate-check.json")
    monkeypatch.setattr(check, "keep", lambda summary: None)
    monkeypatch.setattr(check, "require_history", lambda clean: "c" * 40)
    monkeypatch.setattr(check, "try_once", one)
    return run


def test_the_proof_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    run = _outcome(monkeypatch, tmp_path, right=True)
    with pytest.raises(KeyboardInterrupt):
        check.gate_check(2, 3)
    assert check.gate_check(2, 3) == 0
    number = len(PLANTS) + 1 + 2
    assert len(run) == number + 1  # the one that was killed is repeated
    assert check.gate_check(2, 3) == 0
    assert len(run) == number + 1
    assert f"{number} of {number} tries as they must be" in capsys.readouterr().out
    table = check.as_markdown(json.loads((tmp_path / "gate-check.json").read_text()))
    assert "| reads 1.3 times as long | 2 | 2 | 0 | 2 |" in table
    assert "| an equal copy | 3 | 0 | 3 | 3 |" in table


def test_a_wrong_try_is_reported_and_tries_of_another_commit_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "PLANTS", {k: PLANTS[k] for k in list(PLANTS)[-2:]})
    run = _outcome(monkeypatch, tmp_path, right=False)
    monkeypatch.setitem(check.PLANTS, "reads 1.3 times as long", PLANTS["reads raise"])
    with pytest.raises(KeyboardInterrupt):
        check.gate_check(1, 1)
    assert check.gate_check(1, 1) == 1
    monkeypatch.setattr(check, "require_history", lambda clean: "d" * 40)
    assert check.gate_check(1, 1) == 1
    assert (tmp_path / "gate-check-cccccccccc.json").exists()
    assert len(run) == 7
