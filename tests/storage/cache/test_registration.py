"""What of the decoded cache a device may read by itself: whole volumes, bounded, undone at exit."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest

from radiobject.geometry.box import Box
from radiobject.storage.cache import registration, tile_cache
from radiobject.storage.cache.registration import RegistrationRefusedError, Registrations
from radiobject.storage.read import reader
from radiobject.storage.read.open_volumes import forgotten, volume_tiles
from radiobject.storage.tables import writer

SHAPE = (64, 48, 40)
PAGE = 4096


class Driver:
    """Counts, and refuses what a driver would: memory told twice, or not on whole pages."""

    def __init__(self, refuse_after=100):
        self.calls, self.live, self.left = [], {}, refuse_after

    def register(self, address, nbytes):
        assert address % PAGE == nbytes % PAGE == 0
        if not self.left:
            raise RegistrationRefusedError("cudaHostRegister: out of memory")
        assert address not in self.live
        self.left -= 1
        self.live[address] = nbytes
        self.calls.append(("register", address))

    def unregister(self, address):
        del self.live[address]
        self.calls.append(("unregister", address))


@pytest.fixture
def volumes(tmp_path, monkeypatch):
    monkeypatch.setenv("RADIOBJECT_CACHE", f"registration-{os.getpid()}")
    reader.close_all()
    tile_cache.detach()
    rng = np.random.default_rng(0)
    arrays = [rng.integers(1, 3000, SHAPE, np.int16) for _ in range(4)]
    for array in arrays:
        array[:, :, :32] = 0  # whole tiles of background
    yield [
        volume_tiles(writer.write_volume(str(tmp_path / f"{i}"), a)) for i, a in enumerate(arrays)
    ]
    reader.close_all()
    tile_cache.detach()
    gc.collect()


def touch(volume):
    """Read a corner, so that one column of tiles is in the cache."""
    out = np.empty((8, 8, 8), np.int16)
    volume.read(Box.at((0, 0, 32), out.shape), out, None)


def test_a_volume_is_registered_once_it_is_complete_and_not_a_page_more(volumes):
    driver = Driver()
    held = Registrations(driver, lambda: 1 << 30)
    volume = volumes[0]
    touch(volume)
    image = volume._image
    assert volume.complete_image() is None
    resident = tile_cache.cache_use().resident_bytes
    assert not held.add(image, 1)
    assert driver.calls == []
    assert tile_cache.cache_use().resident_bytes == resident  # looking allocates nothing
    assert volume.complete()
    assert volume.complete_image() is image
    resident = tile_cache.cache_use().resident_bytes
    assert held.add(image, 1)
    assert driver.live == {image.voxels.ctypes.data: image.region[1]}
    assert image.region[1] == -(-image.voxels.nbytes // PAGE) * PAGE
    assert tile_cache.cache_use().resident_bytes == resident
    assert tile_cache.cache_use().registered_bytes == held.nbytes == image.region[1]
    held.close()
    assert tile_cache.cache_use().registered_bytes == held.nbytes == len(held) == 0


def test_a_hole_in_the_file_keeps_a_volume_from_being_registered(volumes):
    volumes[0].complete()
    image = volumes[0]._image
    offset, nbytes = image.region
    assert image.arena.is_allocated(offset, nbytes)
    assert not image.arena.is_allocated(offset, nbytes + (1 << 30))
    assert not image.arena.is_allocated(offset + (1 << 35), PAGE)


def test_registrations_are_bounded_shared_and_undone_in_reverse(volumes):
    driver = Driver()
    for volume in volumes:
        volume.complete()
    images = [volume._image for volume in volumes]
    held = Registrations(driver, lambda: 3 * images[0].region[1])
    assert [held.add(image, 1) for image in images] == [True, True, True, False]
    assert held.add(images[0], 2)  # a second loader
    held.drop(images[0], 2)
    held.drop(images[0], 2)  # ended already
    assert len(held) == 3
    held.drop(images[0], 1)
    assert len(held) == 2
    assert held.add(images[3], 1)
    held.close()
    undone = [address for call, address in driver.calls if call == "unregister"]
    order = [images[0], images[3], images[2], images[1]]
    assert undone == [image.voxels.ctypes.data for image in order]
    assert driver.live == {}


def test_a_registered_volume_keeps_its_place_in_the_cache(volumes):
    volumes[0].complete()
    image, before = volumes[0]._image, forgotten()
    entry, held = image._entry, Registrations(Driver(), lambda: 1 << 30)
    held.add(image, 1)
    arena = image.arena
    del image
    volumes.clear()
    reader.close_all()
    gc.collect()
    assert forgotten() > before
    assert arena._users[entry] == 1
    held.close()
    gc.collect()
    assert arena._users[entry] == 0


def test_the_limit_is_that_of_the_moment(volumes):
    driver, limit = Driver(), [0]
    volumes[0].complete()
    held = Registrations(driver, lambda: limit[0])
    assert not held.add(volumes[0]._image, 1)  # as before the cache was switched on
    limit[0] = 1 << 30
    assert held.add(volumes[0]._image, 1)
    held.close()


def test_another_driver_is_not_taken_for_the_first(volumes, monkeypatch):
    monkeypatch.setattr(registration, "_of_process", None)
    first, second = Driver(), Driver()
    held = registration.registrations(first, lambda: 1 << 30)
    assert registration.registrations(first, lambda: 1 << 30) is held
    assert registration.registrations(second, lambda: 1 << 30) is not held


def test_a_driver_that_refuses_is_asked_no_more(volumes, caplog):
    driver = Driver(refuse_after=1)
    for volume in volumes:
        volume.complete()
    held = Registrations(driver, lambda: 1 << 30)
    assert [held.add(volume._image, 1) for volume in volumes] == [True, False, False, False]
    driver.left = 10
    assert not held.add(volumes[1]._image, 1)
    assert held.refused == "cudaHostRegister: out of memory"
    assert [r.getMessage() for r in caplog.records] == [
        "the decoded cache is copied to the device instead: cudaHostRegister: out of memory"
    ]
    held.close()


def test_a_forked_child_calls_no_driver(volumes):
    driver = Driver()
    volumes[0].complete()
    held = registration.registrations(driver, lambda: 1 << 30)
    image = volumes[0]._image
    assert held.add(image, 1)
    calls = len(driver.calls)
    child = os.fork()
    if not child:
        held.drop(image, 1)
        held.close()
        quiet = not held.add(image, 1) and len(driver.calls) == calls and held.nbytes == 0
        os._exit(0 if quiet and registration.registered_bytes() == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(held) == 1
    held.close()


def test_the_end_of_the_process_undoes_what_is_left(tmp_path):
    program = f"""
import numpy as np
from radiobject.storage.cache.registration import registrations
from radiobject.storage.read.open_volumes import volume_tiles
from radiobject.storage.tables.writer import write_volume

class Driver:
    def register(self, address, nbytes): print("register", address)
    def unregister(self, address): print("unregister", address)

held = registrations(Driver(), lambda: 1 << 30)
data = np.arange(4096, dtype=np.int16).reshape(16, 16, 16)
for i in range(2):
    volume = volume_tiles(write_volume({str(tmp_path)!r} + f"/{{i}}", data))
    assert volume.complete() and held.add(volume.complete_image(), 1)
"""
    environment = os.environ | {"RADIOBJECT_CACHE": f"exit-{os.getpid()}"}
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert out.returncode == 0, out.stderr
    lines = [line.split() for line in out.stdout.splitlines()]
    assert [call for call, _ in lines] == ["register", "register", "unregister", "unregister"]
    assert [a for _, a in lines[2:]] == [a for _, a in lines[:2]][::-1]


def test_a_cache_without_room_for_background_completes_nothing(volumes, monkeypatch):
    monkeypatch.setattr(tile_cache, "budget_bytes", lambda arena: 1)
    assert not volumes[0].complete()
    assert volumes[0].complete_image() is None
