"""A folder is there whole or not at all, and nothing of a killed run stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.folders import new_folder, remove_abandoned, scratch_folder

ROOT = Path(__file__).parents[2]


def _fail_halfway(path: Path, error: Exception) -> None:
    with new_folder(path) as building:
        (building / "half").write_text("")
        raise error


def test_an_error_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        _fail_halfway(tmp_path / "made", ZeroDivisionError())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="No space left on device; nothing of it was kept"):
        _fail_halfway(tmp_path / "made", OSError(28, "No space left on device"))
    assert list(tmp_path.iterdir()) == []


def test_two_processes_finish_the_same_folder(tmp_path: Path) -> None:
    with new_folder(tmp_path / "made") as building:
        (building / "file").write_text("second")
        with new_folder(tmp_path / "made") as other:
            (other / "file").write_text("first")
    assert (tmp_path / "made" / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(BenchmarkError, match="RADIOBJECT_BENCHMARK_DIR"),
        new_folder(tmp_path / "file" / "made"),
    ):
        pass


_BUILD = """
import sys, time
from pathlib import Path
from benchmarks.folders import new_folder
with new_folder(Path(sys.argv[1])) as building:
    (building / "half").write_text("")
    print("ready", flush=True)
    time.sleep(60)
"""


def _age(folder: Path) -> None:
    os.utime(folder, (0, 0))


def test_what_a_killed_process_left_goes_and_what_a_living_one_makes_stays(tmp_path: Path) -> None:
    builder = subprocess.Popen(
        [sys.executable, "-c", _BUILD, str(tmp_path / "made")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert builder.stdout is not None
    assert builder.stdout.readline() == "ready\n"
    [partial] = tmp_path.iterdir()
    _age(partial)
    assert remove_abandoned(tmp_path) == []
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    builder.stdout.close()
    assert partial.is_dir()
    with new_folder(tmp_path / "other") as building:
        (building / "file").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_only_our_unfinished_folders_are_removed(tmp_path: Path) -> None:
    others = [".made.partial", "made.0123abcd.partial", ".made.0123abcg.partial", ".git"]
    for name in others:
        (tmp_path / name).mkdir()
        _age(tmp_path / name)
    (tmp_path / ".file.0123abcd.partial").write_text("")
    (tmp_path / ".link.0123abcd.partial").symlink_to(tmp_path / ".git")
    (tmp_path / ".new.0123abcd.partial").mkdir()
    (tmp_path / ".old.0123abcd.partial").mkdir()
    _age(tmp_path / ".old.0123abcd.partial")
    assert [path.name for path in remove_abandoned(tmp_path)] == [".old.0123abcd.partial"]
    assert len(list(tmp_path.iterdir())) == len(others) + 3


def test_a_scratch_folder_ends_with_its_block(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "work") as folder:
        (folder / "file").write_text("")
    assert list(tmp_path.iterdir()) == []
