# ruff: noqa: PT012, BLE001  (what raises is a whole block; a thread hands over any error)
"""What TileDB writes of an object's metadata and schemas appears whole, or not at all."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from radiobject import Volume
from radiobject.exceptions import StoreExistsError
from radiobject.sampling.labels import build_label_index
from radiobject.storage.commits.head import Clock
from radiobject.storage.io import layout
from radiobject.storage.io.atomic import atomic, create_atomically
from radiobject.storage.schema.label_index import label_index_uri, write_label_rows
from radiobject.storage.tables import groups
from radiobject.storage.tables.columns import TEXT
from radiobject.storage.tables.groups import object_kind
from radiobject.storage.tables.table import Table, create_table


@pytest.fixture
def group(tmp_path):
    uri = str(tmp_path / "group")
    groups.create(uri, {"head": 1}, 1)
    return uri


def test_metadata_appears_at_the_end_and_not_after_an_error(group):
    with pytest.raises(ZeroDivisionError), atomic(group) as place:
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


def test_what_is_made_appears_whole_or_not_at_all(tmp_path):
    target = str(tmp_path / "deep" / "v")
    with pytest.raises(ZeroDivisionError), create_atomically(target) as place:
        create_table(place, ["k"], {"n": np.dtype(int)})
        raise ZeroDivisionError
    assert os.listdir(tmp_path / "deep") == []
    with create_atomically(target) as place:
        create_table(place, ["k"], {"n": np.dtype(int)})
        assert os.listdir(tmp_path / "deep") == [os.path.basename(place)]
    assert os.listdir(tmp_path / "deep") == ["v"]
    with pytest.raises(StoreExistsError, match="already"), create_atomically(target):
        pass
    second = str(tmp_path / "deep" / "w")
    with pytest.raises(StoreExistsError, match="meanwhile"), create_atomically(second) as place:
        create_table(place, ["k"], {"n": np.dtype(int)})
        create_table(second, ["k"], {"n": np.dtype(int)})
    assert sorted(os.listdir(tmp_path / "deep")) == ["v", "w"]


_KILLED = """
import sys, threading, time, os, signal
import numpy as np
from radiobject import Volume
from radiobject.sampling.labels import build_label_index
from radiobject.storage.schema.label_index import write_label_rows
mask = np.zeros((64, 64, 64), np.uint8); mask[3:30, 4:40, 5:50] = 1
summary = build_label_index(mask)
threading.Timer(float(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
for attempt in range(10_000):
    folder = f"{sys.argv[1]}/{attempt}"
    os.mkdir(folder)
    Volume.from_numpy(f"{folder}/volume", mask)
    write_label_rows(folder, {"a": ("print", summary)})
"""


@pytest.mark.parametrize("moment", [0.05, 0.11, 0.17])
def test_a_killed_maker_leaves_nothing_in_the_way(tmp_path, moment):
    command = [sys.executable, "-c", _KILLED, str(tmp_path), str(moment)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    made = sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))
    mask = np.zeros((64, 64, 64), np.uint8)
    mask[3:30, 4:40, 5:50] = 1
    for folder in made:
        if (folder / "volume").exists():
            assert np.array_equal(Volume(str(folder / "volume"))[:], mask)
        else:
            Volume.from_numpy(str(folder / "volume"), mask)
        write_label_rows(str(folder), {"a": ("print", build_label_index(mask))})
        assert object_kind(label_index_uri(str(folder))) == "array"
        assert len(Table(label_index_uri(str(folder))).read(("fingerprint",))["obs_id"].values) == 1
