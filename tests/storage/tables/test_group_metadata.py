"""What a group says of itself, read without libtiledb: the same, or left to libtiledb."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import tiledb

from radiobject.exceptions import StorageError, StoreNotFoundError
from radiobject.storage.io.array_files import LocalFiles
from radiobject.storage.tables import group_metadata, groups


class Objects(LocalFiles):
    """A folder in the place of what lies below an address of an object store."""

    def tag(self, name: str) -> tuple[int, str]:
        """Return the size of a file."""
        if name not in self.names():
            raise StoreNotFoundError(f"object {name} does not exist")
        return self.sizes()[name], ""


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(group_metadata, "RemoteFiles", Objects)
    uri = str(tmp_path / "group")
    groups.create(uri, {"kind": "radiobject", "version": 5, "record": b"\0\xff", "gone": "x"}, 3)
    groups.write_metadata(uri, {"gone": None, "head": 2**53, "name": "Hüfte", "none": ""}, 20)
    groups.write_metadata(uri, {"head": -1, "nothing": b""}, 100)
    return uri


def files_of(uri: str) -> list[Path]:
    return sorted(Path(uri, "__meta").iterdir(), key=lambda path: int(path.name.split("_")[2]))


def test_it_is_what_libtiledb_reads(group: str) -> None:
    found = group_metadata.read_remote(group)
    assert found == groups.read_metadata(group)
    assert found == {
        "head": -1, "kind": "radiobject", "name": "Hüfte", "none": "", "nothing": b"",
        "record": b"\0\xff", "version": 5,
    }  # fmt: skip


@pytest.mark.parametrize("value", [1.5, (1, 2), [1.0, 2.0]])
def test_values_that_no_data_set_has_are_left_to_libtiledb(group: str, value: Any) -> None:
    groups.write_metadata(group, {"foreign": value}, 200)
    assert group_metadata.read_remote(group) is None


def test_a_group_without_metadata_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_metadata, "RemoteFiles", Objects)
    uri = str(tmp_path / "empty")
    tiledb.Group.create(uri)
    assert group_metadata.read_remote(uri) == {}


def merged(uri: str) -> None:
    tiledb.Group.consolidate_metadata(uri)


def two_of_one_time(uri: str) -> None:
    first = files_of(uri)[0]
    shutil.copy(first, first.with_name(first.name[:-1] + "0x"[first.name[-1] == "0"]))


def no_mark(uri: str) -> None:
    Path(uri, "__tiledb_group.tdb").unlink()


def strange_name(uri: str) -> None:
    Path(uri, "__meta", "notes.txt").write_text("x")


def not_there(uri: str) -> None:
    shutil.rmtree(uri)


@pytest.mark.parametrize("change", [merged, two_of_one_time, no_mark, strange_name, not_there])
def test_what_is_not_as_written_is_left_to_libtiledb(group: str, change: Any) -> None:
    change(group)
    assert group_metadata.read_remote(group) is None


def test_damage_is_never_believed_nor_an_error_of_another_kind(group: str) -> None:
    whole = group_metadata.read_remote(group)
    last = files_of(group)[-1]
    content = last.read_bytes()
    for place in range(len(content)):
        last.write_bytes(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
        try:
            found = group_metadata.read_remote(group)
        except StorageError:
            continue
        assert found is None or found == whole, place
    for length in range(len(content)):
        last.write_bytes(content[:length])
        assert group_metadata.read_remote(group) is None, length
