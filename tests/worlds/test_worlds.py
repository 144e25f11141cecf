"""The core of the suite in systems that lack what Windows and macOS lack (see world.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

QUICK = (
    "tests/worlds/core.py",
)  # fmt: skip
WHOLE = (
    "tests/worlds/core.py",
    "tests/storage/commits",
    "tests/storage/cache/test_tile_cache.py",
    "tests/storage/read",
    "tests/storage/tables",
    "tests/storage/schema",
    "tests/storage/tiles",
    "tests/storage/test_corruption.py",
    "tests/ingest",
    "tests/cli/test_commands.py",
    "tests/edit",
    "tests/storage/test_removals.py",
    "tests/test_export.py",
    "tests/ml/test_inference.py",
    "tests/ml/loaders/test_buffers.py",
    "tests/ml/loaders/test_loader.py",
)


def run_in(world, tests, folder, *options, timeout=120):
    for name in ("sections", "tmp"):
        (folder / name).mkdir()
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=",
         "--import-mode=importlib", "-m", "not slow and not worlds",
         "--basetemp", str(folder / "base"), *options, *tests],
        cwd=ROOT,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(map(str, (HERE, ROOT))),
            "RADIOBJECT_WORLD": world,
            "RADIOBJECT_WORLD_SECTIONS": str(folder / "sections"),
            "RADIOBJECT_CACHE": f"world-{os.getpid()}",
            "TMPDIR": str(folder / "tmp"),
        },
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.processes
@pytest.mark.parametrize("world", ["windows", "macos"])
def test_the_core_works(world, tmp_path):
    ran = run_in(world, QUICK, tmp_path)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]


@pytest.mark.worlds
@pytest.mark.parametrize("world", ["windows", "macos"])
def test_the_suite_works(world, tmp_path):
    ran = run_in(world, WHOLE, tmp_path, timeout=1700)
    print(ran.stdout[-300:])
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-1000:]
