"""A full disk under what lies beside the store: caches are done without, the rest is one error.

The disk is a real one, a file system of 1 MiB in memory that is filled to the last block.
"""

import errno
import os
import shutil

import pytest
from dicom_builder import write_series
from small_disk import small_disk
from stores import check_volume, make_dataset

from radiobject import RadiObject, VolumeCollection
from radiobject.edit.copying import copy_dataset
from radiobject.edit.doctor import examine
from radiobject.exceptions import DiskFullError, StorageError
from radiobject.formats import dicom_cache
from radiobject.formats.dicom import scan_dicom
from radiobject.storage.commits import head
from radiobject.storage.io import layout
from radiobject.storage.tables import checked, staging
from radiobject.system import files


@pytest.fixture(scope="module")
def mounted(tmp_path_factory):
    with small_disk(tmp_path_factory.mktemp("disk"), "1m") as place:
        yield place


@pytest.fixture
def disk(mounted):
    """The disk, empty; `fill` takes all but some blocks of it."""
    for entry in mounted.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return mounted


def fill(disk, leave=0):
    state = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes((state.f_bavail - leave) * state.f_frsize))


def test_a_prediction_is_refused_before_its_file_could_kill_the_process(disk, tmp_path):
    """Its file was mapped with holes; now its room is taken before anything is mapped."""
    from radiobject.ml.inference import infer_collection
    from radiobject.ml.sliding import SlidingWindow

    make_dataset(tmp_path / "store", ("CT",), ("a",), (24, 24, 24))
    images = RadiObject(tmp_path / "store").CT

    def halved(x):
        return x.float() / 2

    def predicted():
        window = SlidingWindow((24, 24, 24))
        return infer_collection(images, halved, str(tmp_path / "p"), window, spool=disk / "spool")

    (disk / "spool").mkdir()
    for leave in (0, 4):
        fill(disk, leave)
        with pytest.raises(DiskFullError, match=rf"{disk}/spool/.* no room left"):
            predicted()
        assert not list((disk / "spool").iterdir())
        (disk / "ballast").unlink()
    assert len(predicted()) == 1
    shutil.rmtree(disk / "spool")
    (disk / "spool").touch()
    with pytest.raises(StorageError, match=f"{disk}/spool"):
        predicted()


def test_room_is_reserved_where_the_system_cannot(disk, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    files.reserve_file(disk / "small", 70_000)
    assert (disk / "small").read_bytes() == bytes(70_000)
    fill(disk, leave=2)
    with pytest.raises(OSError, match="No space") as caught:
        files.reserve_file(disk / "large", 70_000)
    assert caught.value.errno == errno.ENOSPC
    assert not (disk / "large").exists()


def test_headers_are_read_without_a_cache(disk, tmp_path, monkeypatch):
    write_series(tmp_path / "a")
    for path in tmp_path.rglob("*"):
        os.utime(path, (1e9, 1e9))
    monkeypatch.setattr(dicom_cache, "_WORTH_FRAMES", 1)

    def scanned():
        return [series.files for series in scan_dicom(tmp_path)[1]]

    monkeypatch.setenv(dicom_cache.HEADER_CACHE_VARIABLE, str(disk / "headers"))
    fill(disk)
    first = scanned()
    assert len(first) == 1
    (disk / "ballast").unlink()
    scan_dicom(tmp_path)
    assert list((disk / "headers").glob("*.headers"))
    fill(disk)
    monkeypatch.setattr(dicom_cache.HeaderCache, "get", lambda *_: (None, None))
    assert scanned() == first


@pytest.mark.s3
def test_copies_of_remote_tables_need_room_and_say_where(disk, s3_bucket, monkeypatch):
    uri = f"s3://{s3_bucket}/store"
    make_dataset(uri, ("CT",), ("a",))
    staging.clear()
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    monkeypatch.setattr(staging, "_base", None)
    for leave in (0, 3):
        fill(disk, leave)
        for read in (
            lambda: RadiObject(uri).obs_meta.read(),
            lambda: RadiObject(uri).CT.obs_ids,
        ):
            with pytest.raises(DiskFullError, match=rf"kept in {disk}.* TMPDIR"):
                read()
        for entry in disk.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        monkeypatch.setattr(staging, "_base", None)
    check_volume(RadiObject(uri).CT["a_CT"], "a")


def test_links_to_local_tables_need_room_and_say_where(disk, radi, monkeypatch):
    """What a commit did not record is kept from the reader by links in a temporary folder."""
    table = f"{radi.uri}/{layout.OBS_META}"
    for folder in ("__commits", "__fragments"):
        name = min(os.listdir(f"{table}/{folder}"))
        other = name.replace(name.split("_")[4].partition(".")[0], "0" * 32)
        copy = shutil.copytree if folder == "__fragments" else shutil.copyfile
        copy(f"{table}/{folder}/{name}", f"{table}/{folder}/{other}")
    monkeypatch.setattr(checked, "_RETRIES_S", (0.0,))
    assert RadiObject(radi.uri).obs_subject_ids == ["a", "b", "c", "d"]
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    for leave in (0, 1):
        fill(disk, leave)
        with pytest.raises(DiskFullError, match=rf"links to the files of {table}.* TMPDIR"):
            len(RadiObject(radi.uri))
        (disk / "ballast").unlink()
    assert len(RadiObject(radi.uri)) == 4


def test_a_copy_and_a_check_that_have_no_room_say_so_and_go_on_later(disk, radi, tmp_path):
    fill(disk, leave=40)
    with pytest.raises(DiskFullError, match=rf"{disk}/copy.*no room left"):
        copy_dataset(radi.uri, str(disk / "copy"))
    (disk / "ballast").unlink()
    assert copy_dataset(radi.uri, str(disk / "copy"))["there"] > 0
    shutil.rmtree(disk / "copy")
    assert head.read_head(radi.uri).last.n_volumes == 8
    fill(disk)
    with pytest.raises(DiskFullError, match=r"sound\.txt"):
        radi.validate(resume=disk / "sound.txt")


@pytest.mark.usefixtures("new_cache")
def test_decoded_tiles_that_find_no_memory_are_decoded_again(tmp_path, monkeypatch):
    """As in a container with all of its memory taken; the memory is no file of any disk."""
    make_dataset(tmp_path / "store")

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    for _ in range(2):
        for volume in VolumeCollection(tmp_path / "store" / "collections" / "CT"):
            check_volume(volume, volume.obs_id[0])


def test_the_doctor_says_that_there_is_little_room(disk):
    found = {finding.what: finding for finding in examine(str(disk))}
    assert not found["free space"].good
    assert "vacuum" in found["free space"].remedy
