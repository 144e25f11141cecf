"""The gate runs on two libraries, bites on what is planted, and fails when it saw nothing."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from gate_plants import PLANTS, READER, SLOWED, Plant, is_right, plant

from benchmarks.config import ROOT
from benchmarks.data.boxes import Task
from benchmarks.data.cohort import Cohort
from benchmarks.errors import BenchmarkError
from benchmarks.gate import compare
from benchmarks.gate.compare import Finding, as_markdown, is_closed
from benchmarks.gate.side import CPU, SHARE, WALL, Side
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
    kind: str, libraries: dict[str, Path]
) -> None:
    fault = PLANTS[kind]
    if kind.startswith("reads 1.3"):  # a busy machine must not hide it from this short form
        slower = SLOWED.replace("1.3", "2.5")
        fault = Plant(READER, slower, ("volume",), (("volume", "CPU s"),))
    plant(libraries["head"], fault)
    findings, lacking = compare.measure(libraries, compare.QUICK_PAIRS, fault.names)
    assert lacking == {}
    assert is_closed(findings)
    assert is_right(fault, findings)
    if "raise" in kind:
        page = as_markdown(findings, lacking, COMMITS)
        assert "Gate closed" in page
        assert "head: " in page
        assert "planted" in page.split("```")[1]  # the traceback's own words


@pytest.mark.measuring
def test_words_change_nothing(libraries: dict[str, Path]) -> None:
    plant(libraries["head"], PLANTS["words only"])
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

    def __init__(self, wall: float, cpu: float, share: float) -> None:
        self._answer = {WALL: wall, CPU: cpu, SHARE: share}

    def ask(self, what: str, *arguments: object) -> dict[str, float]:
        return dict(self._answer)


@pytest.mark.parametrize(
    ("head", "worse"),
    [
        ((2.0, 1.0, 0.5), {WALL}),
        ((1.0, 1.3, 0.5), {CPU}),
        ((1.0, 1.0, 1.0), {SHARE}),  # decoding that is no longer parallel, on a busy machine
        ((1.0, 1.0, 0.5), set()),
    ],
)
def test_each_measure_closes_by_itself(head: tuple[float, ...], worse: set[str]) -> None:
    sides = {"base": _Stated(1.0, 1.0, 0.5), "head": _Stated(*head)}
    findings = compare._times("undecoded:volume", sides, compare.QUICK_PAIRS)  # type: ignore[arg-type]
    words = {finding.measure: finding.verdict.word for finding in findings}
    assert words == {m: "worse" if m in worse else "same" for m in (CPU, WALL, SHARE)}
    assert is_closed(findings) == bool(worse)
    findings = compare._times("epoch", sides, compare.QUICK_PAIRS)  # type: ignore[arg-type]
    assert {finding.measure for finding in findings} == {CPU, WALL}


class _Begun(_Stated):
    """A process of a side, begun by the gate, that answers whatever it asks."""

    def __init__(self, library: Path, cpu: float) -> None:
        super().__init__(1.0, cpu, 0.5)
        self._others = {
            "where": library.resolve(),
            "prepare": {},
            "count": {},
            "resident": 100.0,
            "growth": {"bytes": 0.0},
        }

    def ask(self, what: str, *arguments: object) -> Any:
        return self._others[what] if what in self._others else super().ask(what, *arguments)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("head", "word", "begun"),
    [
        ((1.0,), "same", 2),
        ((1.2, 1.0), "same", 4),  # two processes keep their luck for all their samples
        ((1.2, 1.2), "worse", 4),
        ((0.8, 1.2), "better", 2),
    ],
)
def test_what_would_close_by_seconds_is_asked_of_two_fresh_processes(
    head: tuple[float, ...],
    word: str,
    begun: int,
    tmp_path: Path,
    cohort: Cohort,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed = {"base": iter([1.0, 1.0]), "head": iter(head)}
    made: list[_Begun] = []

    def begin(side: str, library: Path, task: Task) -> _Begun:
        made.append(_Begun(library, next(needed[side])))
        return made[-1]

    monkeypatch.setattr(compare, "make_task", lambda: Task(cohort))
    monkeypatch.setattr(compare, "_begun", begin)
    folders = {side: tmp_path / side for side in needed}
    findings, lacking = compare.measure(folders, compare.QUICK_PAIRS, ("box:64", "volume"))
    assert lacking == {}
    words = {(f.benchmark, f.measure): f.verdict.word for f in findings}
    assert words["box:64", CPU] == words["volume", CPU] == word
    assert words["box:64", WALL] == "same"
    assert len(words) == len(findings) == 6  # nothing doubled, nothing lost
    assert len(made) == begun
    described = f"box:64 CPU s, worse (1.20) by the first two, {word} "
    assert (described in as_markdown(findings, lacking, COMMITS)) == (begun == 4)


class _Counted:
    """A side whose call was counted like this."""

    def __init__(self, **counts: int) -> None:
        self._counts = counts

    def ask(self, what: str, *arguments: object) -> dict[str, int]:
        return dict(self._counts)


def test_a_counter_that_head_lost_closes_and_a_new_one_does_not() -> None:
    sides = {"base": _Counted(tiles_decoded=3, requests=1), "head": _Counted(requests=1, more=9)}
    findings = compare._counts("box:64", sides)  # type: ignore[arg-type]
    assert [(f.measure, f.verdict.word) for f in findings] == [("tiles_decoded", "broken")]
    assert "no longer counts tiles_decoded" in findings[0].message
    assert is_closed(findings)


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
    with pytest.raises(ValueError, match="it would plant nothing"):
        plant(tmp_path, PLANTS["reads raise"])


def test_a_fault_that_another_line_sees_is_not_taken_for_seen() -> None:
    fault = PLANTS["reads by one thread"]
    same = Verdict(1.0, 0.9, 1.1, 20, "same")
    worse = replace(same, word="worse")
    assert is_right(fault, [Finding(*fault.seen[0], worse)])
    assert not is_right(fault, [Finding(*fault.seen[0], same)])
    assert not is_right(fault, [Finding("ingest", "CPU s", worse)])
    assert not is_right(PLANTS["an equal copy"], [Finding("ingest", "CPU s", worse)])
    assert is_right(PLANTS["an equal copy"], [Finding("ingest", "CPU s", same)])


def _work(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def _shared() -> None:
    other = threading.Thread(target=_work, args=(0.05,))
    other.start()
    _work(0.05)
    other.join()


def test_work_that_threads_share_is_distinguished_from_one_threads() -> None:
    side = Side(None)  # type: ignore[arg-type]
    side._calls = {"alone": lambda: _work(0.1), "shared": _shared}
    assert side.sample("alone", 1)[SHARE] > 0.8
    assert 0.3 < side.sample("shared", 1)[SHARE] < 0.7
