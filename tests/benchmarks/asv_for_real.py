"""asv itself, in a fresh clone: a quick run of HEAD and of old commits, and asv's own commands.

Not part of the suite: `make asv-check` runs it, on tiny volumes, in a few minutes. Commits share an
environment, as asv's do, which finds the versions that are installed here.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import torch

from benchmarks.config import PRESETS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(1800)
BEFORE_THE_MOVES = "9524cf0"


def _may_be_missing(benchmark: str, parameters: str) -> bool:
    """Return whether HEAD may skip it: what cannot be measured there is measured nowhere."""
    if benchmark.startswith("suites.device."):
        return not torch.cuda.is_available()
    return benchmark.startswith("suites.scale.") and int(parameters) > PRESETS["tiny"].table_volumes


def _run(*command: str, cwd: Path, **more: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **more}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with a home of its own: no machine is known there, and nothing was measured."""
    folder = tmp_path_factory.mktemp("asv") / "clone"
    _run("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder), cwd=ROOT)
    _run("git", "checkout", "--quiet", "-B", "main", "HEAD", cwd=folder)
    return folder


def _asv(clone: Path, *arguments: str) -> str:
    return _run(
        sys.executable, "-m", "asv", *arguments, cwd=clone,
        HOME=str(clone.parent), RADIOBJECT_BENCH_PRESET="tiny", PYTHONPATH="",
        RADIOBJECT_BENCHMARK_DIR=str(clone.parent / "data"),
    )  # fmt: skip


def _commit(clone: Path, name: str) -> str:
    return _run("git", "rev-parse", name, cwd=clone).strip()


def _measure(clone: Path, commit: str) -> dict[str, dict]:
    """Let asv measure a commit; return its stored results by benchmark."""
    place = clone.parent / "env"
    source = clone.parent / f"source-{commit[:8]}"
    _run("git", "worktree", "add", "--quiet", str(source), commit, cwd=clone)
    if not place.exists():
        venv.create(place, with_pip=False)
    python = str(place / "bin" / "python")
    packages = next((place / "lib").glob("python*")) / "site-packages"
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--upgrade", "--target", str(packages), str(source), cwd=clone)  # fmt: skip
    # After the commit's own library: everything else as it is installed here.
    (packages / "installed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    _asv(clone, "machine", "--yes", "--machine", "box")
    _asv(clone, "run", "--quick", "--machine", "box", "--environment", f"existing:{python}",
         "--set-commit-hash", commit, "--show-stderr")  # fmt: skip
    (stored,) = (clone / "docs" / "history" / "box").glob(f"{commit[:8]}-*.json")
    found = json.loads(stored.read_text())
    return {
        name: dict(zip(found["result_columns"], row, strict=False))
        for name, row in found["results"].items()
    }


def _without_result(name: str, row: dict) -> list[tuple[str, str]]:
    """Return (benchmark, parameters) of what failed (None) or was skipped (NaN)."""
    combinations = list(itertools.product(*row["params"]))
    results = row["result"] or [None] * len(combinations)
    return [
        (name, ", ".join(combination))
        for combination, result in zip(combinations, results, strict=True)
        if result is None or result != result
    ]


def test_head_is_measured_whole_and_asvs_own_commands_work(clone: Path) -> None:
    head = _commit(clone, "HEAD")
    at_head = _measure(clone, head)
    missing = {key for name, row in at_head.items() for key in _without_result(name, row)}
    assert {key for key in missing if not _may_be_missing(*key)} == set()
    if _run("git", "rev-parse", "--is-shallow-repository", cwd=ROOT).strip() == "true":
        pytest.skip("HEAD was measured; a shallow clone has no old commit to compare")
    before = _commit(clone, BEFORE_THE_MOVES)
    of_before = _measure(clone, before)  # an old commit skips what it lacks: asv ends with 0
    measured = [
        name
        for name, row in of_before.items()
        if len(_without_result(name, row)) < len(list(itertools.product(*row["params"])))
    ]
    assert len(measured) > len(at_head) / 2
    assert "suites.loaders.Loaders.track_seconds_per_sample" in _asv(clone, "show", head)
    # The history that is kept here is another machine's.
    compared = _asv(clone, "compare", "--machine", "box", before, head).splitlines()
    # Columns are change, before, after, ratio (n/a of nought and nought) and name.
    counted = [line.split("|")[2:4] for line in compared if "Counters.track_count" in line]
    assert counted
    assert not [pair for pair in counted if "n/a" in "".join(pair)]
    _asv(clone, "publish", "--no-pull")
    assert (clone / ".asv" / "html" / "regressions.json").is_file()
