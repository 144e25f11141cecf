"""A disk without room: one error of ours, nothing half-written, and `vacuum` makes room.

The disk is a real one: a file system of 2 MiB in memory, filled to the last block.
"""

import errno
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tiledb
from small_disk import small_disk
from stores import check_volume, make_dataset

from radiobject import RadiObject, VolumeCollection
from radiobject.exceptions import DiskFullError, StorageError
from radiobject.storage.commits import head
from radiobject.storage.io import layout
from radiobject.storage.read import reader
from radiobject.system import room
from radiobject.writers import VolumeCollectionWriter


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    with small_disk(tmp_path_factory.mktemp("disk"), "2m") as place:
        yield place
        reader.close_all()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set whose older state has volumes that the newest lacks."""
    uri = tmp_path_factory.mktemp("made") / "store"
    make_dataset(uri)
    RadiObject(uri).delete("b")
    return uri


@pytest.fixture
def full(disk, made):
    """A copy of the data set on a disk that is filled with `full.leave(blocks)`."""
    for entry in disk.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    shutil.copytree(made, disk / "store")
    return FullDisk(disk)


class FullDisk:
    def __init__(self, disk):
        self.uri = str(disk / "store")
        self._ballast = disk / "ballast"

    def leave(self, blocks):
        self.make_room()
        state = os.statvfs(self._ballast.parent)
        self._ballast.write_bytes(bytes((state.f_bavail - blocks) * state.f_frsize))

    def make_room(self):
        self._ballast.unlink(missing_ok=True)


def check_old_state(uri):
    radi = RadiObject(uri)
    radi.validate(checksums=True)
    assert radi.obs_subject_ids == ["a", "c", "d"]
    check_volume(radi.CT["d_CT"], "d")


def append_volume(uri):
    rng = np.random.default_rng(0)
    with VolumeCollectionWriter(f"{uri}-new") as writer:
        writer.write_volume(rng.integers(0, 9999, (20, 20, 20)).astype(np.int16), "z", "z")


def add_rows(uri):
    radi = RadiObject(uri)
    radi.obs_meta.update(pd.DataFrame({"obs_subject_id": ["a"], "age": [99.0]}))


@pytest.mark.parametrize("blocks", [0, 2])
@pytest.mark.parametrize(
    "change",
    [
        append_volume,
        add_rows,
        lambda uri: RadiObject(uri).obs_meta.add_column("note", str, fill="x"),
        lambda uri: RadiObject(uri).delete("a"),
        lambda uri: RadiObject(uri).rename_collection("CT", "MR"),
        lambda uri: RadiObject(uri).write(f"{uri}-copy"),
    ],
    ids=["volume", "rows", "column", "delete", "rename", "write"],
)
def test_no_room_is_one_error_and_changes_nothing(full, change, blocks):
    full.leave(blocks)
    with pytest.raises(DiskFullError) as caught:
        change(full.uri)
    said = str(caught.value)
    for part in (full.uri, "no room left", " free)", "takes up to", "vacuum()"):
        assert part in said
    assert isinstance(caught.value, OSError)
    check_old_state(full.uri)
    full.make_room()
    change(full.uri)
    RadiObject(full.uri).validate(checksums=True)


def test_vacuum_works_without_a_single_free_block(full):
    full.leave(0)
    assert RadiObject(full.uri).vacuum() == {"states": 1, "collections": 0, "volumes": 2}
    check_old_state(full.uri)
    assert os.statvfs(full.uri).f_bavail > 0


def test_vacuum_that_can_make_no_room_says_so_and_keeps_the_history(full):
    RadiObject(full.uri).vacuum()
    RadiObject(full.uri).rename_collection("CT", "MR")
    full.leave(0)
    before = RadiObject(full.uri).history()
    with pytest.raises(DiskFullError):
        RadiObject(full.uri).vacuum()
    assert RadiObject(full.uri).history().equals(before)


def test_a_writer_that_dies_on_a_full_disk_is_known_to_have_died(full):
    """Its lock could name nobody; it has its length all the same, and so is rolled back."""
    place = f"{full.uri}/{layout.LOCK}"
    os.unlink(place)
    open(place, "w").close()
    full.leave(0)
    command = (
        "import os, signal, sys\nfrom radiobject.storage.commits.transaction import transaction\n"
        "with transaction(sys.argv[1], 'dying'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", command, full.uri], check=False)
    assert os.path.getsize(place) > 0
    with open(place, "rb") as file:
        assert not file.read().strip(b"\0")
    full.make_room()
    RadiObject(full.uri).delete("a")
    assert os.path.getsize(place) == 0


def test_a_commit_that_had_no_room_may_be_tried_again(full, monkeypatch):
    """What the first try recorded of the tables is in the second, too."""
    from radiobject.storage.commits.transaction import transaction

    failing = [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))]
    write = head.groups.write_metadata

    def once(*args):
        if failing:
            raise DiskFullError from failing.pop()
        write(*args)

    with transaction(full.uri, "try twice") as tx:
        RadiObject(full.uri)._store.obs_meta.delete_keys("obs_subject_id", ["x"], tx.clock.tick())
        state = {"collections": tx.last.collections, "n_subjects": 3, "n_volumes": 6}
        monkeypatch.setattr(head.groups, "write_metadata", once)
        with pytest.raises(DiskFullError):
            tx.commit(**state)
        tx.commit(**state)
    check_old_state(full.uri)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_every_way_of_having_no_room_is_known(tmp_path, code):
    said = f"IO Error: Cannot write to file; POSIX write error:{os.strerror(code)}"
    for error in (OSError(code, os.strerror(code)), RuntimeError(said)):
        with pytest.raises(DiskFullError, match="free"), room.writing(tmp_path / "not/there"):
            raise error
        with pytest.raises(DiskFullError), room.writing(tmp_path):
            raise StorageError("a volume cannot be written") from error


@pytest.mark.parametrize(("code", "why"), [(39, "no room"), (112, "no room"), (1295, "quota")])
def test_windows_numbers_for_no_room_are_known_in_any_language(tmp_path, code, why):
    own = OSError(errno.EINVAL, "Le disque est plein", str(tmp_path))
    own.winerror = code
    quoted = tiledb.TileDBError(
        f"[TileDB::IO] Error: Cannot write to file 'C:/x'; WriteFile GetLastError {code} "
        f"(0x{code:08x}): Es steht nicht genug Speicherplatz zur Verfügung."
    )
    for error in (own, quoted):
        with pytest.raises(DiskFullError, match=why), room.writing(tmp_path):
            raise error
    other = tiledb.TileDBError("GetLastError 5 (0x00000005): Zugriff verweigert")
    with pytest.raises(tiledb.TileDBError), room.writing(tmp_path):
        raise other


def test_another_failure_of_the_system_is_named(tmp_path):
    read_only = OSError(errno.EROFS, os.strerror(errno.EROFS), "/x")
    with pytest.raises(StorageError, match=r"/x cannot be written: Read"), room.writing(tmp_path):
        raise read_only
    with pytest.raises(ZeroDivisionError), room.writing(tmp_path):
        raise ZeroDivisionError


def test_a_failed_creation_leaves_nothing_on_a_full_disk(full):
    full.leave(3)
    with pytest.raises(DiskFullError):
        make_dataset(f"{full.uri}-other")
    assert not os.path.exists(f"{full.uri}-other")
    full.make_room()
    make_dataset(f"{full.uri}-other")
    VolumeCollection(f"{full.uri}-other/collections/CT").validate(checksums=True)
