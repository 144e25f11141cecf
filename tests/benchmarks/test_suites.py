"""asv finds the suites, and nothing else, without importing what it measures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import operations
from benchmarks.data.boxes import Task
from benchmarks.data.cohort import Cohort
from benchmarks.rivals import LOADERS
from benchmarks.suites import loaders as suite
from benchmarks.suites.base import BaseCase

ROOT = Path(__file__).parents[2]

_DISCOVER = """
import json, sys, threading
from asv_runner.discovery import disc_benchmarks
names = sorted(b.name for b in disc_benchmarks("benchmarks"))
heavy = [m for m in ("torch", "tiledb", "monai", "torchio", "nilearn", "zarr") if m in sys.modules]
print(json.dumps([names, heavy, threading.active_count()]))
"""


def test_asv_finds_suites_only_and_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _DISCOVER], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names, heavy, threads = json.loads(done.stdout)
    assert (heavy, threads) == ([], 1)  # benchmarks are forked from a process like this one
    assert all(name.startswith("suites.") for name in names)
    for expected in (
        "suites.loaders.Loaders.track_seconds_per_sample",
        "suites.loaders.Workers.track_seconds_per_sample",
        "suites.counters.Counters.track_count",
        "suites.s3.S3.track_requests",
        "suites.ratios.Ratios.track_ratio",
    ):
        assert expected in names


def test_loaders_are_found_by_themselves_in_their_files() -> None:
    folder = ROOT / "benchmarks" / "rivals"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "base"}
    assert {kind.__module__.rpartition(".")[2] for kind in LOADERS.values()} == files
    assert next(iter(LOADERS)) == "radiobject"
    assert set(suite.WITH_WORKERS) <= set(suite.LOADERS) < set(LOADERS)
    # asv's history is of ten; who is derived from one of them is not thereby among them.
    assert len(suite.LOADERS) == 10
    assert {"radiobject", "memory", "zarrs", "tensorstore-cache"} <= set(suite.LOADERS)
    assert not {"monai-persistent", "zarr-sharded", "tensorstore-s3"} & set(suite.LOADERS)


def _settings() -> dict:
    text = "\n".join(
        line for line in (ROOT / "asv.conf.json").read_text().splitlines()
        if not line.strip().startswith("//")
    )  # fmt: skip
    return json.loads(text)


def test_versions_are_written_out_and_those_of_the_constraints() -> None:
    from asv.util import ParsedPipDeclaration

    wanted = _settings()["matrix"]["req"]
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    assert next(iter(wanted)) == "torch"
    for name, versions in wanted.items():
        bare = name.removeprefix("pip+")
        assert versions == [pinned[bare]], bare
        asked = ParsedPipDeclaration(f"{bare} {versions[0]}")  # as asv does it: it knows no extras
        assert (asked.pkgname, asked.specification) == (bare, f"=={pinned[bare]}")


def test_asv_finds_the_committed_history_and_no_path_of_a_machine_is_in_it() -> None:
    folder = ROOT / _settings()["results_dir"]
    assert folder == ROOT / "docs" / "history"
    ignored = subprocess.run(["git", "check-ignore", str(folder)], cwd=ROOT, check=False)
    assert ignored.returncode == 1
    for path in folder.rglob("*.json"):
        assert not re.search(r"/(home|Users|root|tmp|work)/", path.read_text()), path


def test_samples_are_enough_for_asvs_own_comparison() -> None:
    fewest, most, _ = BaseCase.repeat
    assert 8 <= BaseCase.rounds * fewest <= BaseCase.rounds * most <= 10


def test_what_setup_skipped_is_torn_down_without_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asv tears it down, and calls an error there a failed benchmark."""
    from benchmarks.suites.ratios import Ratios
    from benchmarks.suites.scale import SIZES, Append

    monkeypatch.setenv("RADIOBJECT_BENCH_PRESET", "tiny")
    monkeypatch.setenv("RADIOBJECT_CACHE", "changed by setup")
    append, ratios = Append(), Ratios()
    with pytest.raises(NotImplementedError, match="left out of this size"):
        append.setup("", SIZES[-1])
    append.teardown("", SIZES[-1])
    monkeypatch.setattr("benchmarks.suites.ratios.RATIOS", {"x": _lacking})
    with pytest.raises(NotImplementedError, match="this version lacks it"):
        ratios.setup(None, "x")
    ratios.teardown(None, "x")


def _lacking(task: object) -> None:
    raise ImportError("no such module")


@pytest.mark.parametrize(("samples", "least", "most"), [(6, 0.0, 0.0), (8, 0.9, 1.0)])
def test_six_samples_a_side_see_nothing_and_eight_do(
    samples: int, least: float, most: float
) -> None:
    """At six a side the rank test of the pinned asv cannot fall below its threshold."""
    import numpy as np
    from asv.commands.compare import _is_result_better
    from asv_runner.statistics import compute_stats

    rng = np.random.default_rng(7)
    flagged = 0
    for _ in range(100):
        base = np.exp(rng.normal(0, 0.1, samples)).tolist()
        head = (2.0 * np.exp(rng.normal(0, 0.1, samples))).tolist()
        (a, a_stats), (b, b_stats) = compute_stats(base, 1), compute_stats(head, 1)
        flagged += _is_result_better(a, b, (a_stats, base), (b_stats, head), 1.1)
    assert least <= flagged / 100 <= most


@pytest.mark.parametrize("name", ["first-batch", "open", "select"])
def test_no_operation_reads_the_librarys_source_inside_the_clock(
    name: str, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version of more modules would look slower: 322 of them took 6 ms of a first batch."""
    from benchmarks.data import forms
    from benchmarks.operations import prepare

    call = prepare(name, Task(cohort, (16, 12, 20), batch_size=2, home=tmp_path))
    monkeypatch.setattr(forms, "library_digest", None)
    call()


_COUNT = """
import json, sys
from pathlib import Path
from benchmarks.data.boxes import Task
from benchmarks.data.cohort import read_cohort
from benchmarks.suites.counters import count_all
task = Task(read_cohort(Path(sys.argv[1])), (16, 12, 20), batch_size=2, home=Path(sys.argv[2]))
print(json.dumps(count_all(task), sort_keys=True))
"""


def test_counters_are_exact_and_warm_reads_within_their_budget(
    cohort: Cohort, tmp_path: Path
) -> None:
    from benchmarks.data.forms import make_store

    make_store(cohort, "isotropic", tmp_path)
    said = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _COUNT, str(cohort.root), str(tmp_path)],
            cwd=ROOT, env={**os.environ, "RADIOBJECT_BENCHMARK_DIR": str(tmp_path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for _ in range(3)
    ]  # fmt: skip
    assert len(set(said)) == 1
    counted = json.loads(said[0])
    assert counted["undecoded:64"]["tiles_decoded"] > 0
    for operation in ("box:64", "plane:axial", "volume"):
        for counter in ("tiles_decoded", "array_opens", "index_opens", "bytes_read", "requests"):
            assert counted[operation][counter] == 0
    assert {found["fallback_reads"] for found in counted.values()} == {0}


@pytest.mark.parametrize("name", ["engine / blosc2, axial slice", "loader / engine"])
def test_ratios_are_of_equal_work(name: str, cohort: Cohort, home: Path, tmp_path: Path) -> None:
    from benchmarks.suites.ratios import RATIOS

    sides = RATIOS[name](Task(cohort, (16, 12, 20), batch_size=2, home=tmp_path))
    measured = sides.rounds(2)
    sides.close()
    assert len(measured) == 2
    assert all(0 < one < 1000 for one in measured)


@pytest.mark.parametrize("name", ["epoch", "epoch:pairs"])
def test_a_call_of_a_loader_takes_all_that_its_threads_read_ahead(
    name: str, cohort: Cohort, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(cohort, (16, 16, 16), home=home)
    taken: list[int] = []
    monkeypatch.setattr(operations, "touch", lambda batch: taken.append(1))
    call = operations.prepare(name, task)
    taken.clear()
    for calls in (1, 2, 3):
        call()
        assert len(taken) == calls * (task.patches_per_epoch // task.batch_size)
