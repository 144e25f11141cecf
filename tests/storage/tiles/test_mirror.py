"""The mirror where there is no room for it, or no folder: the voxels come all the same."""

import multiprocessing
import os

import numpy as np
import pytest

from radiobject.exceptions import ConfigurationError
from radiobject.geometry.box import Box
from radiobject.stats import TileDBStats
from radiobject.storage.cache import tile_cache
from radiobject.storage.read import reader
from radiobject.storage.tables import writer
from radiobject.system import present
from radiobject.system.present import optional_module

pytestmark = pytest.mark.s3
resource = optional_module("resource")
SHAPE = (64, 40, 40)
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def volume(s3_bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("RADIOBJECT_CACHE", "off")
    monkeypatch.setenv("RADIOBJECT_MIRROR", str(tmp_path / "mirror"))
    tile_cache.detach()
    data = np.random.default_rng(0).integers(0, 999, SHAPE, np.int16)
    yield data, writer.write_volume(f"s3://{s3_bucket}/v", data, metadata={"obs_id": "a"})
    reader.close_all()
    tile_cache.detach()


def read(locator):
    out = np.empty(SHAPE, np.int16)
    reader.read_into(locator, Box.whole(SHAPE), out)
    return out


def read_short_of_room(locator, room):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    with TileDBStats() as stats:
        return read(locator), stats.counters()


@pytest.mark.skipif(resource is None, reason="this system limits no files")
@pytest.mark.parametrize("room", [0, 1000])
def test_a_disk_without_room_for_a_copy(volume, tmp_path, room):
    """A file may not grow beyond `room` bytes: writing the copy fails as on a full disk."""
    data, locator = volume
    with SPAWN.Pool(1) as pool:
        got, counted = pool.apply(read_short_of_room, (locator, room))
    np.testing.assert_array_equal(got, data)
    assert "mirror_writes" not in counted
    assert os.listdir(tmp_path / "mirror") == []


def test_a_file_system_that_is_full(volume, tmp_path, monkeypatch):
    """A real one, where this user may mount one."""
    import subprocess

    place = tmp_path / "small"
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(place)]
    if subprocess.run(mounting, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        data, locator = volume
        (place / "other").write_bytes(b"x" * 60_000)
        monkeypatch.setenv("RADIOBJECT_MIRROR", str(place))
        np.testing.assert_array_equal(read(locator), data)
        assert os.listdir(place) == ["other"]
    finally:
        reader.close_all()
        subprocess.run(["umount", str(place)], check=True)


def test_foreign_files_in_the_folder_are_left_alone(volume, tmp_path):
    data, locator = volume
    folder = tmp_path / "mirror"
    folder.mkdir(mode=0o700)
    (folder / ".part-x").write_text("mine")
    (folder / "notes.txt").write_text("mine too")
    np.testing.assert_array_equal(read(locator), data)
    assert {".part-x", "notes.txt"} < set(os.listdir(folder))


def test_a_folder_or_a_size_that_cannot_be(volume, tmp_path, monkeypatch):
    _, locator = volume
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("RADIOBJECT_MIRROR", str(tmp_path / "file" / "mirror"))
    with pytest.raises(ConfigurationError, match=r"RADIOBJECT_MIRROR=.*name a folder"):
        read(locator)
    monkeypatch.setenv("RADIOBJECT_MIRROR", str(tmp_path / "mirror"))
    for wrong in ("many", "-1", "1.5", ""):
        monkeypatch.setenv("RADIOBJECT_MIRROR_MB", wrong)
        with pytest.raises(ConfigurationError, match="RADIOBJECT_MIRROR_MB"):
            read(locator)


@pytest.mark.parametrize("held", [False, True])
def test_an_altered_copy_is_not_read_again_though_it_cannot_be_removed(
    volume, tmp_path, monkeypatch, held
):
    """Windows removes no file that is mapped, as this one is by who finds it altered."""
    data, locator = volume
    read(locator)
    (copy,) = (tmp_path / "mirror").iterdir()
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 0x55
    copy.write_bytes(content)
    reader.close_all()
    plain = os.unlink

    def unlink(path, **named):
        if held and str(path).endswith(".tiles"):
            raise PermissionError(13, "held", str(path))
        plain(path, **named)

    monkeypatch.setattr(os, "unlink", unlink)
    np.testing.assert_array_equal(read(locator), data)
    assert (copy.read_bytes() == bytes(content)) == (held or present.msvcrt is not None)
