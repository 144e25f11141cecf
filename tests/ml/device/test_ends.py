"""How it ends: interrupted, killed, refused, out of memory; nothing left, no wrong voxel."""

import gc
import os
import signal
import uuid
import weakref

import numpy as np
import pytest
import torch
from device.interrupts import Host, at_every_place
from device.test_device_batches import equal
from ml_shelf import coordinates, store

from radiobject.exceptions import RadiObjectError
from radiobject.geometry.gather import GatherPlan
from radiobject.ml import DatasetConfig, VolumeCollectionDataset, create_training_dataloader
from radiobject.ml.device import gatherers
from radiobject.ml.device import homes as homes_module
from radiobject.ml.device import source as source_module
from radiobject.ml.device.gatherers import CudaGatherer, gather_on_processor
from radiobject.ml.device.source import DeviceSource
from radiobject.ml.loaders.buffers import PrivateBuffers, Reclaimer
from radiobject.storage.cache import registration, tile_cache
from radiobject.storage.read import open_volumes, reader
from radiobject.storage.read.open_volumes import volume_tiles

CPU = torch.device("cpu")
PATCH = (8, 8, 8)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch):
    monkeypatch.setenv("RADIOBJECT_CACHE", f"ends-{uuid.uuid4()}")
    monkeypatch.setattr(registration, "_of_process", None)
    reader.close_all()
    tile_cache.detach()
    yield
    reader.close_all()
    tile_cache.detach()
    gc.collect()


@pytest.fixture
def dataset(shelf):
    made = VolumeCollectionDataset(shelf.pick([0, 1]), DatasetConfig("patch", PATCH, 2))
    for locator in shelf.locators()[:2]:
        assert volume_tiles(locator).complete()
    return made


def read_with(dataset, host):
    source = DeviceSource(dataset, CPU, PrivateBuffers(1 << 14, 2, host=host), host=host)
    plan = dataset.plan([0, 1, 2, 3], 1)
    return source.hand_over(source.read(plan)), source


def test_ctrl_c_anywhere_in_a_read_leaves_nothing_registered(dataset, monkeypatch):
    want = dataset.read(dataset.plan([0, 1, 2, 3], 1))
    hosts = [Host()]
    gc.freeze()  # what was there before is not looked at again and again
    for _ in at_every_place(lambda: read_with(dataset, hosts[-1]), stride=2):
        gc.collect()
        assert hosts[-1].live == {}
        assert registration.registered_bytes() == 0
        hosts.append(Host())
        monkeypatch.setattr(registration, "_of_process", None)
    got, _ = read_with(dataset, Host())
    equal(got, want)
    assert len(hosts) > 50


def test_rows_of_three_channels_that_are_copied_overwrite_no_other(tmp_path):
    """Rows come channel by channel; runs found in that order reached over others' voxels."""
    names = [f"sub-{i:02d}" for i in range(6)]
    channels = {
        name: store(tmp_path, name, [coordinates(i, (20, 18, 17)) for i in range(6)], names)
        for name in "abc"
    }
    dataset = VolumeCollectionDataset(channels, DatasetConfig("patch", PATCH))
    missing = {("a", 0), ("a", 3), ("b", 3), ("c", 0)}
    for name, table in channels.items():
        for row, locator in enumerate(table.locators()):
            if (name, row) not in missing:
                assert volume_tiles(locator).complete()
    source = DeviceSource(dataset, CPU, Soiled(1 << 20, 4))
    source._homes.completer.want = lambda locator: None
    plan = dataset.plan(range(6), 1)
    equal(source.hand_over(source.read(plan)), dataset.read(plan))
    assert (source.counted["staged"], source.counted["registered"]) == (4, 14)


class Soiled(PrivateBuffers):
    """Buffers with what was in them before."""

    def take(self, nbytes):
        return super().take(nbytes).fill_(77)


def test_ctrl_c_while_registrations_are_undone_undoes_them_all(dataset):
    host = Host()
    _, source = read_with(dataset, host)
    strike, pressed = host.unregister, []

    def unregister(address):
        if len(pressed) < 2:
            pressed.append(address)
            raise KeyboardInterrupt
        strike(address)

    host.unregister = unregister
    with pytest.raises(KeyboardInterrupt):
        source.close()
    assert len(pressed) == 2
    assert registration.registered_bytes() == 0


def test_ctrl_c_in_the_reclaimer_gives_no_piece_twice():
    def scenario():
        for _ in range(7):
            taken.append(reclaimer.take())

    interrupted, places = True, at_every_place(scenario)
    while interrupted:
        reclaimer, taken = Reclaimer(Host()), []
        for piece in range(5):
            reclaimer.give_back(piece)
        interrupted = next(places, None)
        taken += [reclaimer.take() for _ in range(12)]
        pieces = [piece for piece in taken if piece is not None]
        assert len(pieces) == len(set(pieces))


class Unfit:
    """A kernel that does not do what it should."""

    def __init__(self, fault):
        self.fault, self.calls = fault, 0

    def __call__(self, plan, memories, outs):
        self.calls += 1
        gather_on_processor(plan, memories, outs)
        (out,) = outs
        if self.fault == "raises":
            raise RuntimeError("Failed to find C compiler")
        if self.fault == "one voxel":
            out[int(plan.row[-1])].view(-1)[-1] += 1
        if self.fault == "a sign":
            out[int(plan.row[0])].view(-1)[0] = -0.0


@pytest.mark.parametrize("resident", [0, 1 << 20])
@pytest.mark.parametrize("fault", ["raises", "one voxel", "a sign", None])
def test_a_kernel_that_does_not_do_what_it_should_is_used_no_more(dataset, caplog, fault, resident):
    kernel = Unfit(fault)
    source = DeviceSource(dataset, CPU, PrivateBuffers(1 << 16, 2), cache_bytes=resident)
    source._gather = CudaGatherer(CPU, kernel)
    for epoch in range(3):
        plan = dataset.plan([0, 1, 2, 3], epoch)
        equal(source.hand_over(source.read(plan)), dataset.read(plan))
    assert kernel.calls == (1 if fault else 3)
    assert len(caplog.records) == bool(fault)
    if fault:
        words = "Failed to find C compiler" if fault == "raises" else "differs from the processor's"
        assert words in caplog.text
        assert words in source.report().slower
        assert source.counted["staged"] == 12


class Small:
    """`torch.empty` of a device that has room for so many batches at once."""

    def __init__(self, room):
        self.room, self.living, self.empty = room, 0, torch.empty

    def __call__(self, *given, **more):
        if isinstance(more.get("device"), torch.device):  # host memory is asked for by name
            if self.living >= self.room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            made = self.empty(*given, **more)
            self.living += 1
            weakref.finalize(made.untyped_storage(), self.freed)
            return made
        return self.empty(*given, **more)

    def freed(self):
        self.living -= 1


@pytest.mark.parametrize("resident", [0, 1 << 20])
def test_a_device_with_room_for_one_batch_gets_one_at_a_time(shelf, monkeypatch, caplog, resident):
    options = {"batch_size": 2, "patch_size": PATCH, "patches_per_volume": 4}
    want = list(create_training_dataloader(shelf, num_workers=0, **options))
    loader = create_training_dataloader(shelf, device="cpu", device_cache_bytes=resident, **options)
    monkeypatch.setattr(source_module.torch, "empty", Small(1 + bool(resident)))
    count = 0
    for got in loader:
        equal(got, want[count])
        del got
        count += 1
    assert count == 12
    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith("cpu has no room for batches ahead of their use")
    assert ("volumes, which are given up" in lines[0]) == bool(resident)


def test_a_batch_larger_than_the_device_is_one_clear_line(shelf, monkeypatch, caplog):
    loader = create_training_dataloader(shelf, device="cpu", batch_size=2, patch_size=(16, 16, 32))
    monkeypatch.setattr(source_module.torch, "empty", Small(0))
    with pytest.raises(torch.OutOfMemoryError) as caught:
        list(loader)
    assert isinstance(caught.value, RadiObjectError)
    assert str(caught.value) == (
        "CUDA out of memory. Tried to allocate 20.00 MiB. -- a batch of 0 MiB has no room on cpu: "
        "choose a smaller batch_size or patch_size, or leave device out"
    )
    monkeypatch.undo()


def test_a_killed_rank_leaves_its_volumes_to_the_others(dataset):
    plan = dataset.plan([0, 1, 2, 3], 1)
    want = dataset.read(plan)
    image = volume_tiles(dataset.fields[0].channels[0].locators[0])._image
    arena, entry = image.arena, image._entry
    child = os.fork()
    if not child:
        kept = read_with(dataset, Host())
        os.kill(os.getpid(), signal.SIGKILL if kept else signal.SIGTERM)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert registration.registered_bytes() == 0
    got, _ = read_with(dataset, Host())
    equal(got, want)
    assert arena._volumes[entry]["users"].sum() >= 1


def test_one_volume_that_cannot_be_completed_holds_no_other_back(shelf, monkeypatch, caplog):
    there = {locator.uri: locator for locator in shelf.locators()[:3]}
    first = next(iter(there))

    def volume_or_error(locator):
        if locator.uri == first:
            raise MemoryError("no memory to decode it")
        return volume_tiles(locator)

    monkeypatch.setattr(open_volumes, "volume_tiles", volume_or_error)
    completer = homes_module.Completer()
    for locator in there.values():
        completer.want(locator)
    assert completer.wait(10)
    complete = [volume_tiles(locator).complete_image() is not None for locator in there.values()]
    assert complete == [False, True, True]
    assert "is not completed in the cache: MemoryError" in caplog.text


def test_volumes_of_many_shapes_are_compared_once_for_each_kernel(monkeypatch):
    """Comparing one waits for the device, and takes as long as the processor's way."""
    compared, right = [], gatherers._is_right
    monkeypatch.setattr(gatherers, "_is_right", lambda *a: compared.append(1) or right(*a))
    gatherer = gatherers.CudaGatherer(CPU, gatherers.gather_on_processor)
    none, memory = np.zeros(1, np.int64), np.arange(1 << 13, dtype=np.uint8)
    for last in (*range(33, 48), 48, 64, 65):
        side = (7, 9, last)
        steps = np.array([[9 * last, last, 1]])
        shape, one = np.array([side]), np.ones(1)
        plan = GatherPlan(
            np.dtype("u1"), "float32", side, None, none, none, none, steps, shape, 0 * shape,
            one, 0 * one, none > 0,
        )  # fmt: skip
        assert gatherer(plan, [memory], [torch.empty(1, *side)])
    assert len(compared) == 3  # 64 voxels of a row at once, with and without a rest; and 128
