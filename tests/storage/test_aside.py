# ruff: noqa: PT012, BLE001  (what raises is a whole block; a thread hands over any error)
"""What TileDB writes of an object's metadata and schemas appears whole, or not at all."""

import os
import threading

import numpy as np
import pytest

from radiobject.storage import groups, layout
from radiobject.storage.aside import aside
from radiobject.storage.commit import Clock
from radiobject.storage.table import TEXT, Table, create_table


@pytest.fixture
def group(tmp_path):
    uri = str(tmp_path / "group")
    groups.create(uri, {"head": 1}, 1)
    return uri


def test_metadata_appears_at_the_end_and_not_after_an_error(group):
    with pytest.raises(ZeroDivisionError), aside(group) as place:
        with groups._open(place, "w", 2) as stand_in:
            stand_in.meta["head"] = 2
        assert groups.read_metadata(group) == {"head": 1}
        raise ZeroDivisionError
    assert groups.read_metadata(group) == {"head": 1}
    groups.write_metadata(group, {"head": 3, "name": "x"}, 3)
    groups.write_metadata(group, {"name": None}, 4)
    assert groups.read_metadata(group) == {"head": 3}
    assert not os.path.exists(f"{group}/{layout.OWN_FOLDER}")


def test_members_are_kept_and_seen_by_any_client(group):
    import tiledb

    for number, name in enumerate(("a", "b")):
        create_table(f"{group}/{name}", ["k"], {"n": np.dtype(int)})
        groups.add_arrays(group, [name], 2 + number)
    with tiledb.Group(group) as opened:
        assert sorted(member.name for member in opened) == ["a", "b"]
        assert {member.type for member in opened} == {tiledb.Array}


def test_the_lock_and_the_object_stay(group):
    os.makedirs(f"{group}/{layout.OWN_FOLDER}")
    with open(f"{group}/{layout.LOCK}", "w") as file:
        file.write("mine")
    groups.write_metadata(group, {"head": 2}, 2)
    assert os.listdir(f"{group}/{layout.OWN_FOLDER}") == ["lock"]


def test_readers_never_meet_half_a_file(group, tmp_path):
    """TileDB's own writing shows a file before it is whole: a reader that comes then fails."""
    uri = str(tmp_path / "table")
    create_table(uri, ["k"], {"s": TEXT})
    Table(uri).write({"k": ["a"], "s": ["b"]}, 1)
    done, failures = threading.Event(), []

    def read():
        while not done.is_set():
            try:
                assert groups.read_metadata(group)["head"] >= 1
                assert Table(uri, 1).read()["k"].values.tolist() == ["a"]
            except BaseException as error:
                failures.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    clock = Clock()
    for turn in range(20):
        groups.write_metadata(group, {"head": turn + 2, "note": "x" * 50_000}, turn + 2)
        Table(uri).evolve(add={f"c{turn}": np.dtype(int)}, tick=clock.tick)
    done.set()
    for reader in readers:
        reader.join()
    assert not failures
