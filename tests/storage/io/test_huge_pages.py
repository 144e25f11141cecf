import gc
import os
import time
from pathlib import Path

import numpy as np
import pytest

from radiobject.geometry.box import Box
from radiobject.storage.cache import tile_cache
from radiobject.storage.read import reader
from radiobject.storage.tables import writer
from radiobject.system.huge_pages import HUGE, map_shared

SHAPE = (200, 180, 150)


@pytest.fixture
def volume(tmp_path, monkeypatch):
    monkeypatch.setenv("RADIOBJECT_CACHE", f"huge-{os.getpid()}")
    reader.close_all()
    tile_cache.detach()
    data = np.random.default_rng(1).integers(-900, 900, SHAPE, np.int16)
    yield data, writer.write_volume(str(tmp_path / "v"), data)
    reader.close_all()
    tile_cache.detach()
    gc.collect()


def read(locator, box):
    out = np.empty(box.shape, np.int16)
    reader.read_into(locator, box, out)
    return out


def mapped_in_huge_pages():
    # Of the arena alone: the kernel may give other memory huge pages, too.
    parts = Path("/proc/self/smaps").read_text().split("memfd:radiobject")[1:]
    lines = [line for part in parts for line in part.splitlines() if "ShmemPmdMapped" in line][:1]
    return sum(int(line.split()[1]) << 10 for line in lines)


@pytest.mark.skipif(not HUGE, reason="this system has no huge pages")
def test_every_page_inside_a_filled_volume_is_asked_for_once_it_is_full(volume, monkeypatch):
    data, locator = volume
    asked = []
    monkeypatch.setattr(tile_cache, "gather", lambda block: asked.append(block.ctypes.data))
    rng = np.random.default_rng(2)
    for _ in range(400):
        sides = rng.integers(1, 90, 3)
        start = [int(rng.integers(0, n - s + 1)) for n, s in zip(SHAPE, sides, strict=True)]
        box = Box.at(start, sides)
        assert np.array_equal(read(locator, box), data[box.slices])
    read(locator, Box.whole(SHAPE))
    image = reader.volume_tiles(locator)._image
    begin = image.voxels.ctypes.data
    inside = range(-(-begin // HUGE) * HUGE, begin + data.nbytes - HUGE + 1, HUGE)
    assert sorted(set(asked)) == list(inside)
    assert len(inside) >= 4
    assert all(address % HUGE == 0 for address in asked)


@pytest.mark.skipif(not HUGE, reason="this system has no huge pages")
def test_a_filled_volume_moves_into_huge_pages_and_keeps_its_voxels(volume):
    data, locator = volume
    read(locator, Box.whole(SHAPE))
    deadline = time.monotonic() + 10
    while not mapped_in_huge_pages() and time.monotonic() < deadline:
        time.sleep(0.05)
        assert np.array_equal(read(locator, Box.whole(SHAPE)), data)
    if not mapped_in_huge_pages():
        pytest.skip("this kernel gathers no huge pages of memory files (Linux 6.1 and later do)")
    assert np.array_equal(read(locator, Box.whole(SHAPE)), data)
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(read(locator, Box.whole(SHAPE)), data) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_file_is_mapped_from_its_first_byte():
    fd = os.memfd_create("radiobject-test")
    os.ftruncate(fd, 1 << 30)
    mapping, first = map_shared(fd, 1 << 30)
    there = np.frombuffer(mapping, np.uint8, 1 << 20, first)
    if HUGE:
        assert there.ctypes.data % HUGE == 0
    there[7] = 42
    assert os.pread(fd, 1, 7) == b"*"
    os.pwrite(fd, b"!", 4096)
    assert there[4096] == ord("!")
    os.close(fd)
    del mapping
    assert there[7] == 42
