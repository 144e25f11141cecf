"""The dataloader notebook runs top to bottom, unchanged, with small numbers and S3 on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from benchmarks.s3 import running_server

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebooks" / "04_ml_dataloader.ipynb"
SMALL = {
    "BATCH_SIZE": 2,
    "PATCH_SIZE": "(32, 32, 32)",  # papermill's command line hands tuples over as text
    "N_WARMUP": 1,
    "N_RUNS": 1,
    "N_BATCHES": 3,
    "N_SUBJECTS": 3,
}


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.measuring
@pytest.mark.s3
def test_the_notebook_runs_unchanged(tmp_path: Path) -> None:
    executed = tmp_path / "executed.ipynb"
    with running_server() as server:
        environment = {
            **os.environ,
            **server,
            "RADIOBJECT_BENCHMARK_DIR": str(tmp_path / "data"),
            "RADIOBJECT_RESULTS_DIR": str(tmp_path / "results"),
        }
        _run(
            [sys.executable, "-m", "benchmarks", "prepare", "--s3", "--subjects", "3"], environment
        )
        papermill = [sys.executable, "-m", "papermill", str(NOTEBOOK), str(executed)]
        papermill += [word for pair in SMALL.items() for word in ("-p", pair[0], str(pair[1]))]
        _run([*papermill, "--no-progress-bar", "--cwd", str(ROOT)], environment)

    cells = nbformat.read(executed, as_version=4).cells
    written = nbformat.read(NOTEBOOK, as_version=4).cells
    injected = [c for c in cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert len(injected) == 1
    assert [c.source for c in cells if c not in injected] == [c.source for c in written]
    assert all(c.execution_count for c in cells if c.cell_type == "code")

    exported = json.loads((tmp_path / "results" / "04_ml_dataloader_results.json").read_text())
    measured = {(r["framework"], r["scenario"]): r for r in exported["benchmarks"]}
    assert set(measured) == {
        ("RadiObject", "local"),
        ("RadiObject", "s3"),
        ("MONAI", "local"),
        ("TorchIO", "local"),
    }
    assert all(r["throughput_samples_per_sec"] > 0 for r in measured.values())
    assert (tmp_path / "results" / "figures" / "dataloader_throughput.png").stat().st_size > 1000
