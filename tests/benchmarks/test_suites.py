"""asv finds the suites, and nothing else, without importing what it measures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.cohort import Cohort

ROOT = Path(__file__).parents[2]

_DISCOVER = """
import json, sys
from asv_runner.discovery import disc_benchmarks
names = sorted(b.name for b in disc_benchmarks("benchmarks"))
heavy = [m for m in ("torch", "tiledb", "monai", "torchio", "nilearn", "zarr") if m in sys.modules]
print(json.dumps([names, heavy]))
"""


def _discover() -> tuple[list[str], list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", _DISCOVER], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names, heavy = json.loads(done.stdout)
    return names, heavy


def test_asv_finds_suites_only_and_imports_nothing_heavy() -> None:
    names, heavy = _discover()
    assert heavy == []
    assert all(name.startswith("bench_") for name in names)
    for expected in (
        "bench_loaders.Wall.time_batch",
        "bench_loaders.Cpu.time_epoch",
        "bench_loaders.Memory.peakmem_epoch",
        "bench_loaders.Throughput.track_samples_per_second",
        "bench_counters.Counters.track_count",
        "bench_s3.S3.track_requests",
    ):
        assert expected in names


def test_pins_of_asv_are_those_of_the_constraints() -> None:
    text = "\n".join(
        line for line in (ROOT / "asv.conf.json").read_text().splitlines()
        if not line.strip().startswith("//")
    )  # fmt: skip
    wanted = json.loads(text)["matrix"]["req"]
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    assert next(iter(wanted)) == "torch"
    for name, versions in wanted.items():
        bare = name.removeprefix("pip+")
        assert bare in pinned, f"{bare} has no line in constraints.txt"
        assert versions in ([""], [pinned[bare]])


# Every method of every suite once, with the first value of each parameter, on tiny volumes.
_RUN_ALL = """
import itertools, os, sys
from pathlib import Path

from benchmarks.cohort import Cohort
from asv_runner.discovery import disc_benchmarks
from benchmarks import bench_counters, bench_read_engine
from benchmarks.boxes import Task
from benchmarks.cohort import read_cohort
from benchmarks.suites import Fixture
os.chdir(sys.argv[2])
task = Task(read_cohort(Path(sys.argv[1])), (16, 12, 20), batch_size=2, home=Path.cwd())
counted = bench_counters.count_all(task)
stored = bench_read_engine.write_stored(task)
for benchmark in disc_benchmarks(sys.argv[3]):
    module, kind, method = benchmark.name.split(".")
    suite = getattr(sys.modules["benchmarks." + module], kind)()
    if not isinstance(suite, Fixture):
        continue  # tells of the interpreter, not of data
    if module == "bench_s3" or kind in ("Growth", "Workers", "Construction"):
        continue  # a server, or minutes
    params = getattr(suite, "params", ())
    if params and not isinstance(params[0], (tuple, list)):
        params = (params,)
    first = [values[0] for values in params]
    given = counted if kind == "Counters" else task
    given = stored if module == "bench_read_engine" else given
    if hasattr(suite, "setup"):
        suite.setup(given, *first)
    result = getattr(suite, method)(given, *first)
    assert not method.startswith("track_") or result is not None, benchmark.name
    if hasattr(suite, "teardown"):
        suite.teardown(given, *first)
    print("RAN", benchmark.name)
print("COUNTED", *(f"{o}:{c}={n}" for o, found in counted.items() for c, n in found.items()))
"""


def _run_all(cohort: Cohort, folder: Path) -> str:
    places = map(str, (cohort.root, folder, ROOT / "benchmarks"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _RUN_ALL, *places],
        cwd=ROOT,
        env={**os.environ, "RADIOBJECT_BENCHMARK_DIR": str(folder), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    return done.stdout


def test_every_suite_runs_and_warm_reads_stay_within_their_budget(
    cohort: Cohort, tmp_path: Path
) -> None:
    told = _run_all(cohort, tmp_path)
    ran = {line.split()[1] for line in told.splitlines() if line.startswith("RAN")}
    names, _ = _discover()
    left = {name.rsplit(".", 1)[0] for name in set(names) - ran}
    assert left == {
        "bench_s3.S3",
        "bench_import.Import",
        "bench_import.ImportedModules",
        "bench_loaders.Growth",
        "bench_loaders.Workers",
        "bench_loaders_overhead.Construction",
    }
    line = next(line for line in told.splitlines() if line.startswith("COUNTED"))
    counted = dict(pair.rsplit("=", 1) for pair in line.split()[1:])
    for operation in ("box:64", "plane:axial"):
        for counter in ("tiles_decoded", "array_opens", "index_opens", "bytes_read", "requests"):
            assert counted[f"{operation}:{counter}"] == "0"
    assert {v for name, v in counted.items() if name.endswith(":fallback_reads")} == {"0"}
