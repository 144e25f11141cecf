"""asv finds the suites, and nothing else, without importing what it measures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

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
