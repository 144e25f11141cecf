"""Workers that decode into the shared cache, out of which a device makes its batches."""

import contextlib
import gc
import multiprocessing
import os
import signal
import uuid

import numpy as np
import pytest
from device.test_device_batches import equal
from ml_shelf import affine_of, make_mask, make_shelf, store

from radiobject.ml import create_segmentation_dataloader, create_training_dataloader
from radiobject.ml.loaders import loader as loader_module
from radiobject.storage.cache import tile_cache
from radiobject.storage.read import reader
from radiobject.storage.read.open_volumes import volume_tiles

pytestmark = pytest.mark.usefixtures("forked")
OPTIONS = {"batch_size": 2, "patch_size": (16, 16, 16), "patches_per_volume": 4, "receipt": True}


def afresh(monkeypatch, cache=None):
    monkeypatch.setenv("RADIOBJECT_CACHE", cache or f"fillers-{uuid.uuid4()}")
    reader.close_all()
    tile_cache.detach()


@pytest.fixture(autouse=True)
def own_cache(monkeypatch):
    afresh(monkeypatch)
    yield
    reader.close_all()
    tile_cache.detach()
    gc.collect()


def check(make, monkeypatch, *, passes=3, cache=None):
    """Compare passes of a loader with fillers, from a cold cache on, with those without."""
    plain = make(num_workers=0)
    want = [list(plain) for _ in range(passes)]
    afresh(monkeypatch, cache)
    loader = make(num_workers=2, device="cpu")
    reports = []
    for epoch in want:
        count = 0
        for batch in loader:
            equal(batch, epoch[count])
            count += 1
        assert count == len(epoch)
        reports.append(loader.report())
    assert loader.receipt() == plain.receipt()
    return reports


def refuse(*given, **more):
    raise AssertionError("voxels travelled")


def test_workers_fill_the_cache_and_send_no_voxels(shelf, monkeypatch):
    monkeypatch.setattr(loader_module, "received", refuse)
    first, *_, last = check(
        lambda **o: create_training_dataloader(shelf, **OPTIONS, **o), monkeypatch, passes=4
    )
    assert first.device.filled > 0
    assert last.device.filled == 0  # the device has them all: no worker is asked
    assert last.device.registered == 24
    assert first.bytes_decoded > 0


@pytest.mark.parametrize("mode", ["reflect", "constant"])
def test_padded_pairs_with_masks_of_another_grid(tmp_path, monkeypatch, mode):
    image = make_shelf(tmp_path, [(24, 20, 22)] * 3)
    masks = [make_mask(i, (24, 20, 11)) for i in range(3)]
    affines = [affine_of(i) @ np.diag([1, 1, 2, 1]) for i in range(3)]
    seg = store(tmp_path, "seg", masks, image.subject_ids, affines=affines)
    options = OPTIONS | {"patch_size": (32, 16, 16), "pad_mode": mode}
    first, second, _ = check(
        lambda **o: create_segmentation_dataloader(image, seg, resample_masks=True, **options, **o),
        monkeypatch,
    )
    assert first.device.filled == 12
    assert second.device.staged >= 12  # masks of another grid are read, out of the cache
    assert second.bytes_decoded == 0


@pytest.mark.parametrize("room", ["none", "little"])
def test_without_room_in_the_cache_workers_read(shelf, monkeypatch, room):
    if room == "little":
        monkeypatch.setattr(tile_cache, "budget_bytes", lambda arena: 400_000)
    first, *_ = check(
        lambda **o: create_training_dataloader(shelf, **OPTIONS, **o),
        monkeypatch,
        passes=2,
        cache="off" if room == "none" else None,
    )
    assert first.device.staged > 0
    assert (first.device.filled == 0) == (room == "none")


class Mortal:
    """Fills a tile; the second time in a worker it dies in the middle of it."""

    def __init__(self, fill):
        self.fill, self.here = fill, os.getpid()
        self.left = multiprocessing.Value("i", 2)

    def __call__(self, image, position, voxels):
        if os.getpid() != self.here:
            with self.left.get_lock():
                self.left.value -= 1
            if not self.left.value:
                image.voxels[image._tiling.box(position).slices][:5] = -77
                os.kill(os.getpid(), signal.SIGKILL)
        self.fill(image, position, voxels)


def test_a_worker_that_dies_while_it_fills_leaves_no_wrong_voxel(shelf, monkeypatch):
    def make(**more):
        return create_training_dataloader(shelf, **OPTIONS, **more)

    plain = make(num_workers=0)
    want = [list(plain) for _ in range(2)]
    afresh(monkeypatch)
    mortal = Mortal(tile_cache.VolumeImage.fill)
    monkeypatch.setattr(tile_cache.VolumeImage, "fill", lambda image, *given: mortal(image, *given))
    loader = make(num_workers=2, device="cpu")
    seen = []
    with pytest.raises(RuntimeError, match=r"exited unexpectedly|killed by signal"):
        seen.extend(loader)
    for batch, expected in zip(seen, want[0], strict=False):
        equal(batch, expected)
    assert mortal.left.value <= 0
    for _ in range(2):  # the next passes, with workers that live
        loader.set_epoch(1)
        for count, batch in enumerate(loader):
            equal(batch, want[1][count])
        assert count == 11
    loader._source.settle()
    with contextlib.closing(loader._source):
        for row, locator in enumerate(shelf.locators()):
            image = volume_tiles(locator).complete_image()
            assert image is not None
            assert int(image.voxels.min()) >= row * 10**6
