"""What the ranking publishes: the best rival is the fastest one, and caches are nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.config import ROOT, Preset
from benchmarks.data.boxes import Task
from benchmarks.data.cohort import Cohort
from benchmarks.errors import BenchmarkError
from benchmarks.ranking import Row, compare_with_best_rival, rank, rank_epochs, require_equal
from benchmarks.s3 import running_server

TINY = Preset("tiny", rounds=2, round_s=0.05)


def _row(name: str, framework: str, rounds: list[float], storage: str = "x") -> Row:
    return Row(name, name, framework, "local", storage, rounds=rounds)


def test_the_best_rival_is_the_fastest_of_each_round() -> None:
    ours = _row("ours", "RadiObject", [100.0, 120.0, 90.0])
    slow = _row("slow", "A", [10.0, 10.0, 10.0])
    fast = _row("fast", "B", [50.0, 40.0, 45.0])
    limit = _row("limit", "NumPy", [900.0, 900.0, 900.0], storage="memory")
    compare_with_best_rival([ours, slow, fast, limit])
    assert ours.ratio == 2.0
    assert slow.ratio == pytest.approx(10 / 45)
    assert fast.ratio == 1.0
    assert limit.ratio == 20.0  # no rival: nobody is compared with it


def test_unequal_voxels_are_refused() -> None:
    rows = [replace(_row(n, n, [1.0]), given_boxes=True, sha256=n * 9) for n in "ab"]
    with pytest.raises(BenchmarkError, match="a aaaaaaaa, b bbbbbbbb"):
        require_equal(rows)


@pytest.fixture
def task(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setenv("RADIOBJECT_BENCHMARK_DIR", str(tmp_path))
    monkeypatch.setattr("benchmarks.data.forms.BENCHMARK_DIR", tmp_path)
    return Task(cohort, (16, 12, 20), batch_size=2, home=tmp_path)


@pytest.mark.measuring
def test_each_loader_takes_its_best_number_of_workers_and_memory_that_is_allowed(
    task: Task,
) -> None:
    cold = replace(task, cache_share=0.0)
    names = ("npy", "monai-persistent", "torchio-dataset", "memory")
    rows = {row.name: row for row in rank(cold, ("npy", "memory"), TINY, workers=(0, 1))}
    assert {row.status for row in rows.values()} == {"ok"}
    assert rows["npy"].workers in (0, 1)
    from benchmarks.rivals import LOADERS

    assert [LOADERS[name].fits(0.25) for name in names] == [True] * 4
    assert not type("Holds", (LOADERS["npy"],), {"holds": True}).fits(0.25)


@pytest.mark.measuring
def test_first_epochs_over_s3_count_requests_and_bytes(task: Task) -> None:
    pytest.importorskip("moto")
    with running_server():
        first, later = rank_epochs(task, ("radiobject-s3", "tensorstore-s3"), TINY)
    for rows in (first, later):
        assert {row.status for row in rows} == {"ok"}, [row.reason for row in rows]
        assert all(row.resident_mib > 0 and row.disk_mib > 0 for row in rows)
    assert all(row.cpu_ms_per_sample > 0 for row in first)  # later ones may be below a clock's tick
    ours = {row.name: row for row in first}["radiobject-s3"]
    assert ours.requests > 0
    assert ours.bytes_sent > 0
    assert len(ours.rounds) == 2
    assert {row.name: row for row in later}["radiobject-s3"].requests < ours.requests


_TOUCH = """
import sys
from pathlib import Path
from benchmarks.config import use_private_cache
if sys.argv[1] == "private":
    use_private_cache()
from radiobject import RadiObject
from radiobject.stats import TileDBStats
with TileDBStats() as stats:
    RadiObject(sys.argv[2]).collection("MR").iloc[0].to_numpy()
print(stats.all_counters()["tiles_decoded"], flush=True)
sys.stdin.read()
"""


def test_another_process_of_the_same_user_changes_no_figure(task: Task) -> None:
    from benchmarks.data.forms import make_store

    store = str(make_store(task.cohort, "isotropic", task.home))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment["RADIOBJECT_CACHE"] = f"test-{os.getpid()}"

    def touch(kind: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _TOUCH, kind, store],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    other = touch("shared")
    decoded = int(other.stdout.readline())
    said = {}
    for kind in ("shared", "private"):
        with touch(kind) as process:
            said[kind] = int(process.stdout.readline())
            process.stdin.close()
    other.communicate("")
    assert decoded > 0
    assert said == {"shared": 0, "private": decoded}
