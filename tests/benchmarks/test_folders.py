"""A folder is there whole or not at all, and nothing of a killed run stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.folders import new_folder, scratch_folder


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


def test_what_a_killed_run_left_goes_a_day_later_and_nothing_else_does(tmp_path: Path) -> None:
    others = ["made.0123.partial", ".git", ".new.0123.partial"]
    for name in (*others, ".old.0123.partial"):
        (tmp_path / name).mkdir()
        if "new" not in name:
            os.utime(tmp_path / name, (0, 0))
    with new_folder(tmp_path / "made"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {*others, "made"}
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o755


def test_a_scratch_folder_ends_with_its_block(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "work") as folder:
        (folder / "file").write_text("")
    assert list(tmp_path.iterdir()) == []
