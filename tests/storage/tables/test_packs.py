"""A fragment's files in one object: on disks, too, and nothing is left of one that was begun."""

import pytest
from stores import check_volume, make_dataset

from radiobject import RadiObject
from radiobject.edit.copying import copy_dataset
from radiobject.storage.commits.recovery import roll_back_collection
from radiobject.storage.io import layout, owned
from radiobject.storage.tables import packs
from radiobject.storage.tables.packs import Packing, unpacked

STAMP = "__1_1_" + 32 * "a" + "_22"


@pytest.fixture
def store(tmp_path):
    make_dataset(tmp_path / "store", names=("CT",), subjects=("a", "b"))
    return tmp_path / "store"


def test_a_commit_on_a_disk_leaves_packs_which_a_local_reader_does_not_need(store):
    obs = store / "collections" / "CT" / "obs"
    (pack,) = (obs / layout.DIGESTS).glob("*.pack")
    held = unpacked(pack.read_bytes())
    assert held == {
        path.relative_to(obs).as_posix(): path.read_bytes()
        for path in obs.rglob("*")
        if path.is_file() and path != pack
    }
    pack.write_bytes(b"altered")
    check_volume(RadiObject(str(store)).get_volume("a_CT"), "a", "CT")
    pack.unlink()
    RadiObject(str(store)).validate(checksums=True)


def test_packs_go_with_the_fragments_that_a_merge_replaced(store):
    for number in range(3):
        RadiObject(str(store)).obs_meta.add_column(f"note{number}", str, fill="x")
    folder = store / "obs_meta" / layout.DIGESTS
    assert len(list(folder.glob("*.pack"))) > 1
    RadiObject(str(store)).vacuum(keep=1)
    fragments = {path.name for path in (store / "obs_meta" / "__fragments").iterdir()}
    assert {path.stem for path in folder.glob("*.pack")} <= fragments


def test_what_a_killed_writer_had_begun_is_not_copied_and_goes(store, tmp_path):
    begun = store / "obs_meta" / layout.DIGESTS / f".{STAMP}.pack.4194305-0123abcd.part"
    begun.write_bytes(b"half")
    copy_dataset(str(store), str(tmp_path / "copy"))
    assert not list((tmp_path / "copy").rglob("*.part"))
    roll_back_collection(str(store), 1 << 62)
    assert not begun.exists()
    begun.write_bytes(b"half")
    assert owned.remove(str(store), owned.DATASET) == []


def test_a_large_fragment_is_not_kept_for_a_pack(monkeypatch):
    monkeypatch.setattr(packs, "MAX_BYTES", 100)
    packing = Packing()
    for number in range(5):
        packing.add(f"__fragments/large/a{number}.tdb", bytes(30))
        packing.add(f"__fragments/small/a{number}.tdb", bytes(10))
    packing.add("__schema/s", bytes(7))
    (name,) = made = packing.packs()
    assert name == packs.name_of("small")
    assert sorted(map(len, unpacked(made[name]).values())) == [7, 10, 10, 10, 10, 10]
