"""Names that are replaced whole, and what a system says of its limits."""

import os
import types

import pytest

from radiobject.system import files


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "table.tsv"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), files.written_whole(target) as part:
        part.write_text(f"new, ha{1 / 0}")
    assert target.read_text() == "old"
    with files.written_whole(target) as part:
        part.write_text("new")
        assert part.parent == tmp_path
    assert [p.name for p in tmp_path.iterdir()] == ["table.tsv"]
    assert target.read_text() == "new"


def test_only_what_dead_processes_began_is_removed(tmp_path):
    with files.written_whole(tmp_path / "mine") as part:
        part.write_text("being written")
        dead = tmp_path / ".theirs.999999999-0123abcd.part"
        dead.write_text("left")
        assert files.remove_unfinished(tmp_path) == 1
        assert not dead.exists()
        assert part.exists()


def test_no_limit_on_open_files_is_no_small_one(monkeypatch):
    limits = types.SimpleNamespace(
        RLIMIT_NOFILE=7, RLIM_INFINITY=-1, getrlimit=lambda which: (-1, -1)
    )
    monkeypatch.setattr(files, "resource", limits)
    assert files.open_file_limit() > 1 << 20
    monkeypatch.setattr(files, "resource", None)
    assert files.open_file_limit() == 512


def test_a_link_is_not_opened_as_a_private_file(tmp_path, monkeypatch):
    (tmp_path / "target").write_text("")
    os.symlink(tmp_path / "target", tmp_path / "link")
    for flag in (files._NO_FOLLOW, 0):
        monkeypatch.setattr(files, "_NO_FOLLOW", flag)
        with pytest.raises(OSError, match="link"):
            files.open_private(tmp_path / "link")
