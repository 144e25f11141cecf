"""Batches that one launch makes are those that are made one by one."""

import threading
import uuid

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ml_shelf import make_pair, make_shelf

from radiobject.geometry.gather import ALIGNMENT, GatherPlan, gather
from radiobject.ml import DatasetConfig, SegmentationDataset, VolumeCollectionDataset, VolumeLoader
from radiobject.ml.device.gatherers import ProcessorGatherer, gather_on_processor
from radiobject.ml.device.source import DeviceSource
from radiobject.ml.loaders.buffers import PrivateBuffers
from radiobject.ml.loaders.together import LaunchedAhead, OnDeviceAhead
from radiobject.storage.cache import tile_cache
from radiobject.storage.read import reader

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")

CPU = torch.device("cpu")


class Counting(ProcessorGatherer):
    """Notes into how many arrays each launch gathers."""

    def __init__(self):
        self.launches = []

    def __call__(self, plan, memories, outs):
        self.launches.append(len(outs))
        return super().__call__(plan, memories, outs)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch):
    monkeypatch.setenv("RADIOBJECT_CACHE", f"together-{uuid.uuid4()}")
    reader.close_all()
    tile_cache.detach()
    yield
    reader.close_all()
    tile_cache.detach()


def source_of(dataset, **more):
    return DeviceSource(dataset, CPU, PrivateBuffers(1 << 20, 4), **more)


def warmed(dataset, **more):
    source = source_of(dataset, **more)
    source.read(dataset.plan(range(len(dataset)), 0))
    assert source.settle()
    source._gather = Counting()
    return source


def same(a, b):
    assert list(a) == list(b)
    for key, value in a.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == b[key].dtype
            assert torch.equal(
                value.flatten().view(torch.uint8), b[key].flatten().view(torch.uint8)
            )


@pytest.mark.parametrize("dtype", ["float16", "float32", None])
@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_they_are_those_that_are_read_one_by_one(tmp_path, dtype, mode):
    config = DatasetConfig("patch", (24, 16, 40), 3, dtype=dtype, pad_mode=mode, pad_value=-7)
    dataset = SegmentationDataset(*make_pair(tmp_path), config)
    source = warmed(dataset)
    rng = np.random.default_rng(3)
    plans = [dataset.plan(rng.integers(0, len(dataset), 3), epoch) for epoch in range(4)]
    made = source.read_together(plans, decode=False)
    assert source._gather.launches == [4, 4]  # image and mask
    for plan, batch in zip(plans, made, strict=True):
        same(source.hand_over(batch), dataset.read(plan))


def test_what_is_not_in_memory_is_read_for_its_own_batch_only(tmp_path, monkeypatch):
    dataset = VolumeCollectionDataset(
        make_shelf(tmp_path, [(20, 18, 17)] * 4), DatasetConfig("patch", (8, 8, 8), 3)
    )
    source = source_of(dataset)
    source.read(dataset.plan([0, 3, 6], 0))  # the first three volumes
    assert source.settle()
    plans = [dataset.plan(index, 1) for index in ([0, 3], [9, 1], [4, 10], [2, 7])]
    before = source.counted["staged"]
    for plan, batch in zip(plans, source.read_together(plans, decode=False), strict=True):
        same(source.hand_over(batch), dataset.read(plan))
    assert source.counted["staged"] - before == 2
    assert source.together(plans[0], 4, decode=False) == 1  # what is waited for holds nobody back
    assert source.settle()
    source.read(plans[1])
    assert source.together(plans[0], 4, decode=False) == 4
    assert source.together(plans[0], 3, decode=False) == 3
    room = 2 * 2 * 8**3 * 4
    monkeypatch.setattr("radiobject.ml.device.source.bytes_together", lambda device: room)
    assert source.together(plans[0], 4, decode=False) == 2


def test_batches_of_several_shapes_are_made_one_by_one(tmp_path):
    dataset = VolumeCollectionDataset(
        make_shelf(tmp_path, [(20, 18, 17), (12, 18, 17)]), DatasetConfig()
    )
    source = source_of(dataset)
    for number in (0, 1):
        source.read(dataset.plan([number], 0))
    assert source.settle()
    source._gather = Counting()
    plans = [dataset.plan([number], 0) for number in (0, 1, 0)]
    for plan, batch in zip(plans, source.read_together(plans, decode=False), strict=True):
        same(source.hand_over(batch), dataset.read(plan))
    assert source._gather.launches == [1, 1, 1]


@pytest.mark.parametrize("look_ahead", [None, 1, 3, 7])
def test_a_loader_makes_few_launches_and_no_more_batches_than_it_may(tmp_path, look_ahead):
    shelf = make_shelf(tmp_path, [(20, 18, 17)] * 3)
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", (8, 8, 8), 40))
    settings = {"batch_size": 2, "shuffle": True, "look_ahead": look_ahead}
    plain = list(VolumeLoader(dataset, batch_size=2, shuffle=True, fixed_epoch=True))
    loader = VolumeLoader(dataset, device="cpu", fixed_epoch=True, **settings)
    for _ in range(2):
        for ours, theirs in zip(loader, plain, strict=True):
            same(ours, theirs)
        assert loader._source.settle()
    source, most, out = loader._source, 0, 0
    source._gather, started = Counting(), source._started

    def counted(plans, tiles=None):
        nonlocal most
        source.made = getattr(source, "made", 0) + len(plans)
        most = max(most, source.made - out)
        return started(plans, tiles)

    source._started = counted
    for batch in loader:
        out += 1
        del batch
    together = source._gather.launches
    assert sum(together) == len(plain)
    bound = 12 if look_ahead is None else look_ahead
    assert max(together) == min(4, max(1, bound // 3))
    assert most <= bound + 1  # and the one that is asked for


def test_the_thread_that_trains_launches_by_itself_once_all_is_there(tmp_path):
    """In the middle of a pass, which may have no end; nothing is left out or comes twice."""
    dataset = VolumeCollectionDataset(
        make_shelf(tmp_path, [(20, 18, 17)] * 2), DatasetConfig("patch", (8, 8, 8), 400)
    )
    plain = list(VolumeLoader(dataset, batch_size=2, shuffle=True))
    reader.close_all()
    tile_cache.detach()
    loader = VolumeLoader(dataset, batch_size=2, shuffle=True, device="cpu")
    source, by = loader._on_device(), []
    gather = source._gather

    def watched(*given):
        by.append(threading.current_thread().name)
        return gather(*given)

    watched.slower = None
    source._gather = watched
    got = []
    for number, batch in enumerate(loader):
        got.append(batch)
        if number == 20:
            assert source.settle()
    assert len(got) == len(plain)
    for ours, theirs in zip(got, plain, strict=True):
        same(ours, theirs)
    assert set(by[-30:]) == {threading.current_thread().name}
    by.clear()
    assert len(list(loader)) == len(plain)
    assert set(by) == {threading.current_thread().name}


def test_an_error_of_the_plans_comes_after_what_was_launched_before_it(tmp_path):
    dataset = VolumeCollectionDataset(
        make_shelf(tmp_path, [(20, 18, 17)]), DatasetConfig("patch", (8, 8, 8), 9)
    )
    source = warmed(dataset)

    def plans():
        yield from (dataset.plan([number], 0) for number in range(3))
        raise RuntimeError("a sampler's own")

    ahead = LaunchedAhead(plans(), source, 12)
    for number in range(3):
        batch, (plan,) = next(ahead)
        assert int(plan.index[0]) == number
        same(source.hand_over(batch), dataset.read(plan))
    with pytest.raises(RuntimeError, match="a sampler's own"):
        next(ahead)
    assert next(ahead, None) is None
    ahead = OnDeviceAhead(dataset, plans(), source, PrivateBuffers(1 << 16, 4), 12)
    assert [int(plan.index[0]) for _, (plan,) in (next(ahead) for _ in range(3))] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="a sampler's own"):
        next(ahead)


def test_an_epoch_that_is_left_early_leaves_no_thread(tmp_path):
    dataset = VolumeCollectionDataset(
        make_shelf(tmp_path, [(20, 18, 17)]), DatasetConfig("patch", (8, 8, 8), 99)
    )
    before = set(threading.enumerate())
    batches = iter(VolumeLoader(dataset, batch_size=2, device="cpu"))
    next(batches)
    del batches
    left = {t.name for t in set(threading.enumerate()) - before}
    assert "radiobject-look-ahead" not in left


def test_a_volume_that_cannot_be_read_is_an_error_of_its_own_batch(tmp_path):
    dataset = VolumeCollectionDataset(
        make_shelf(tmp_path, [(20, 18, 17)] * 2), DatasetConfig("patch", (8, 8, 8), 3, pad=False)
    )
    source = warmed(dataset)
    plans = [dataset.plan([number], 0) for number in range(3)]
    plans[1].start[:] = 1000  # beyond its volume, and nothing pads
    first, second, third = source.read_together(plans, decode=False)
    same(source.hand_over(first), dataset.read(plans[0]))
    with pytest.raises(Exception, match="leaves a volume"):
        source.hand_over(second)
    same(source.hand_over(third), dataset.read(plans[2]))


def plan_of(count, row):
    none = np.zeros(count, np.int64)
    shape, stride = np.tile([5, 4, 3], (count, 1)), np.tile([12, 3, 1], (count, 1))
    start, one = np.stack([np.arange(count) % 4, none, none], axis=1), np.ones(count)
    return GatherPlan(
        np.dtype("u1"), "float32", (2, 4, 3), None, row, none, none, stride, shape, start,
        one, 0 * one, none > 0,
    )  # fmt: skip


@given(st.permutations(range(12)), st.sampled_from([12, 6, 4, 3, 2, 1]))
def test_rows_of_many_arrays_are_those_of_one(order, rows):
    memory = np.arange(60, dtype=np.uint8)
    plan = plan_of(9, np.array(order[:9]))
    want = np.zeros((12, 2, 4, 3), np.float32)
    gather(plan, [memory], want)
    outs = [torch.zeros(rows, 2, 4, 3) for _ in range(12 // rows)]
    gather_on_processor(plan, [memory], outs)
    assert np.array_equal(torch.cat(outs).numpy(), want)
    begins = [1 << 20, *(ALIGNMENT * (7 * n - 40) for n in range(1, len(outs)))]
    packed = plan.packed([0], begins, rows)
    at = begins[0] + ALIGNMENT * packed[:, 3]
    assert at.tolist() == [begins[row // rows] for row in plan.row]
    assert packed[:, 1].tolist() == [row % rows for row in plan.row]


def test_arrays_that_lie_otherwise_are_refused():
    with pytest.raises(ValueError, match="multiple of 64 bytes apart"):
        plan_of(2, np.arange(2)).packed([0], [0, 100], 1)


@pytest.mark.gpu
@pytest.mark.parametrize("resident", [0, 1 << 24])
def test_a_cuda_device_gets_them_too(tmp_path, resident):
    dataset = SegmentationDataset(*make_pair(tmp_path), DatasetConfig("patch", (24, 16, 40), 40))
    plain = list(VolumeLoader(dataset, batch_size=3, shuffle=True, fixed_epoch=True))
    loader = VolumeLoader(
        dataset, batch_size=3, shuffle=True, fixed_epoch=True, device="cuda",
        device_cache_bytes=resident,
    )  # fmt: skip
    for _ in range(3):
        kept = list(loader)
        assert len(kept) == len(plain)
        for ours, theirs in zip(kept, plain, strict=True):
            same(
                {k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in ours.items()}, theirs
            )
        assert loader._source.settle()
    assert loader.report().device.staged == 0
    assert loader.report().device.slower is None
    assert (loader.report().device.resident > 0) == bool(resident)
