"""Names that are replaced whole, and what a system says of its limits."""

import errno
import os
import tempfile
import types
from pathlib import Path

import pytest

from radiobject.exceptions import StorageError
from radiobject.storage.io import files as stored
from radiobject.storage.io import owned
from radiobject.storage.io.atomic import atomic, create_atomically
from radiobject.system import files, temporary


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


@pytest.mark.parametrize("letter", ["x", "ü", "字", "🩻"])
def test_a_name_as_long_as_the_disk_takes_is_written_whole(tmp_path, letter):
    name = letter * (255 // len(letter.encode()))
    with files.written_whole(tmp_path / name) as part:
        part.write_text("rows")
    with create_atomically(str(tmp_path / f"{name[:-1]}y")) as place:
        os.mkdir(place)
    assert sorted(os.listdir(tmp_path)) == sorted([name, f"{name[:-1]}y"])


def failing(monkeypatch, name, code, times):
    """Let a function of `os` fail as Windows' does, so often."""
    plain, left = getattr(os, name), [times]

    def act(*arguments, **named):
        if left[0]:
            left[0] -= 1
            number = {5: errno.EACCES, 32: errno.EACCES, 145: errno.ENOTEMPTY}
            error = OSError(number.get(code, errno.EINVAL), "held", str(arguments[0]))
            error.winerror = code
            raise error
        return plain(*arguments, **named)

    monkeypatch.setattr(os, name, act)
    monkeypatch.setattr(files, "_WAITS_S", (0.001, 0.001))


@pytest.mark.parametrize("code", [5, 32, 145, 303, 1224])
def test_a_name_that_another_program_holds_is_waited_for(tmp_path, monkeypatch, code):
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    failing(monkeypatch, "replace", code, 2)
    files.replace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text() == "new"
    failing(monkeypatch, "unlink", code, 9)
    with pytest.raises(StorageError, match="open in another program"):
        files.remove_file(tmp_path / "old")


def test_a_new_object_that_a_virus_scanner_looks_at_gets_its_name(tmp_path, monkeypatch):
    with create_atomically(str(tmp_path / "table")) as place:
        os.mkdir(place)
        failing(monkeypatch, "rename", 5, 2)
    assert os.listdir(tmp_path) == ["table"]


def test_where_a_disk_writes_in_its_own_order_that_is_waited_for(tmp_path, monkeypatch):
    asked = []
    mac = types.SimpleNamespace(F_FULLFSYNC=51, fcntl=lambda fd, what: asked.append(what))
    monkeypatch.setattr(files, "fcntl", mac)
    with files.written_whole(tmp_path / "table") as part:
        part.write_text("rows")
    assert asked == [51, 51]  # the file, and the folder with its name


def test_room_that_a_disk_does_not_reserve_is_written(tmp_path, monkeypatch):
    def refuse(fd, offset, size):
        raise OSError(errno.EOPNOTSUPP, "no such thing here")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    files.reserve_file(tmp_path / "room", 3_000_000)
    assert (tmp_path / "room").stat().st_blocks * 512 >= 3_000_000
    assert not any((tmp_path / "room").read_bytes())


def test_a_second_path_takes_no_links(tmp_path, monkeypatch):
    (tmp_path / "first").write_text("rows")
    failing(monkeypatch, "symlink", 1314, 9)
    files.give_name(tmp_path / "first", tmp_path / "second")
    assert os.path.samefile(tmp_path / "first", tmp_path / "second")
    failing(monkeypatch, "link", 17, 9)
    files.give_name(tmp_path / "first", tmp_path / "third")
    assert (tmp_path / "third").read_text() == "rows"


def test_a_junction_is_a_link_and_nothing_behind_it_is_removed(tmp_path, monkeypatch):
    """What Windows has for folders: Python calls it no link, and 3.11 walks into it."""
    elsewhere = tmp_path / "data set" / "obs" / "__schema"
    elsewhere.mkdir(parents=True)
    (elsewhere / "__1_1_0123456789abcdef0123456789abcdef").write_text("another's")
    plain = os.lstat

    def lstat(path, **named):
        state = plain(path, **named)
        if os.path.basename(path) != "obs":
            return state
        return types.SimpleNamespace(st_mode=state.st_mode, st_reparse_tag=0xA0000003)

    assert not files.is_link(tmp_path / "data set" / "obs")
    monkeypatch.setattr(os, "lstat", lstat)
    assert files.is_link(tmp_path / "data set" / "obs")
    assert owned.remove(str(tmp_path / "data set"), owned.DATASET) == ["obs"]
    assert list(elsewhere.iterdir())
    assert stored.links_below(str(tmp_path / "data set"))[0] == "obs"


def test_a_folder_whose_last_file_a_scanner_still_holds_is_removed(tmp_path, monkeypatch):
    table = tmp_path / "obs" / "__schema"
    table.mkdir(parents=True)
    (table / "__1_1_0123456789abcdef0123456789abcdef").write_text("schema")
    failing(monkeypatch, "rmdir", 145, 2)
    assert owned.remove(str(tmp_path / "obs"), owned.ARRAY) == []
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("kind", ["stand-in", "temporary"])
def test_what_served_its_turn_goes_though_it_is_held_for_a_moment(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    making = atomic(str(tmp_path)) if kind == "stand-in" else temporary.folder("a", "b")
    with making as place:
        (Path(place) / "note").mkdir(parents=True)
        failing(monkeypatch, "rmdir", 32, 2)
    assert not os.listdir(tmp_path)


def test_what_cannot_be_discarded_stays_and_the_rest_goes(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / "made" / name).mkdir(parents=True)
    failing(monkeypatch, "rmdir", 32, 4)
    files.discard_tree(tmp_path / "made")
    assert os.listdir(tmp_path / "made") in (["a"], ["b"])
