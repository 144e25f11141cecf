import gc
import itertools
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ml_shelf import make_shelf

from radiobject.exceptions import IntegrityError, ShapeError
from radiobject.ml.config import DatasetConfig, LoadingMode
from radiobject.ml.datasets.volumes import VolumeCollectionDataset
from radiobject.ml.loaders import lookahead, pace
from radiobject.ml.loaders.buffers import PrivateBuffers
from radiobject.ml.loaders.loader import VolumeLoader
from radiobject.ml.loaders.lookahead import LookAhead, _read_claimed, _ReorderBuffer
from radiobject.ml.loaders.pace import GroupSize
from radiobject.ml.loaders.samplers import EpochSampler
from radiobject.storage.read import reader

BATCH = 3


def dataset_of(shelf, **options):
    settings = {"patch_size": (16, 16, 16), "patches_per_volume": 20, "seed": 5, **options}
    return VolumeCollectionDataset(shelf, DatasetConfig(**settings))


def plans_of(dataset, batches):
    for first in range(0, batches * BATCH, BATCH):
        yield dataset.plan(np.arange(first, first + BATCH), epoch=0)


def ahead_of(dataset, plans, depth=3):
    return LookAhead(dataset, plans, PrivateBuffers(1 << 20, depth + 2), depth)


def reading_threads():
    return [t for t in threading.enumerate() if t.name == "radiobject-look-ahead"]


@pytest.mark.parametrize("depth", [1, 2, 3, 8])
def test_batches_come_in_the_order_of_the_plans(shelf, depth):
    dataset = dataset_of(shelf)
    expected = [dataset.read(plan) for plan in plans_of(dataset, 40)]
    delivered = list(ahead_of(dataset, plans_of(dataset, 40), depth))
    assert [sum(map(len, plans)) for _, plans in delivered] == [BATCH] * 40
    for (batch, _), alone in zip(delivered, expected, strict=True):
        assert torch.equal(batch["image"], alone["image"])
        assert batch["obs_id"] == alone["obs_id"]


def test_never_more_than_depth_are_planned_before_they_are_asked_for(shelf):
    dataset, asked, planned = dataset_of(shelf), 0, 0

    def counted():
        nonlocal planned
        for plan in plans_of(dataset, 40):
            planned += 1
            assert planned - asked <= 3 + 1  # one of them is on its way to the loop below
            yield plan

    for _ in ahead_of(dataset, counted(), depth=3):
        asked += 1
    assert planned == asked == 40


def test_a_consumer_that_would_wait_reads_itself(shelf):
    dataset = dataset_of(shelf)
    readers = set()
    one_reads = threading.Event()

    class Watched(type(dataset)):
        def fill_together(self, batches):
            # The first to come waits until the other reads too: alone neither gets on.
            readers.add(threading.current_thread().name)
            if len(readers) == 2:
                one_reads.set()
            assert one_reads.wait(20)
            return super().fill_together(batches)

    dataset.__class__ = Watched
    assert len(list(ahead_of(dataset, plans_of(dataset, 10)))) == 10
    assert readers == {"radiobject-look-ahead", threading.current_thread().name}


@pytest.mark.parametrize(("processors", "threads"), [(2, 1), (3, 2), (4, 3), (64, 5)])
def test_threads_are_added_while_batches_are_late(shelf, monkeypatch, processors, threads):
    monkeypatch.setattr(lookahead, "processors", lambda: processors)
    dataset = dataset_of(shelf)
    expected = [dataset.read(plan)["image"] for plan in plans_of(dataset, 240)]

    class Slow(type(dataset)):
        def fill_together(self, batches):
            super().fill_together(batches)
            time.sleep(0.002)

    dataset.__class__ = Slow
    ahead = ahead_of(dataset, plans_of(dataset, 240), depth=5)
    delivered = [batch["image"] for batch, _ in ahead]
    assert ahead.threads == threads
    assert all(torch.equal(a, b) for a, b in zip(delivered, expected, strict=True))
    del ahead
    assert not reading_threads()


def test_a_loop_that_does_not_wait_gets_no_more_threads(shelf, monkeypatch):
    monkeypatch.setattr(lookahead, "processors", lambda: 64)
    dataset = dataset_of(shelf)
    ahead = ahead_of(dataset, plans_of(dataset, 40))
    next(ahead)
    for number in range(1, 40):
        while number not in ahead._buffer._ready:
            time.sleep(0.0005)
        next(ahead)
    assert ahead.threads == 1


def test_an_unreadable_batch_ends_the_run_after_those_before_it(tmp_path):
    shelf = make_shelf(tmp_path, [(40, 36, 34)] * 6)
    dataset = dataset_of(shelf)
    bad = 4
    for plan in plans_of(dataset, 40):
        if bad in plan.volume:
            break
    good = int(plan.index[0]) // BATCH
    reader.close_all()
    (tiles,) = Path(shelf.locators()[bad].uri).glob("__fragments/*/a0.tdb")
    tiles.write_bytes(bytes(255 - byte for byte in tiles.read_bytes()))
    delivered = ahead_of(dataset, plans_of(dataset, 40))
    assert len(list(itertools.islice(delivered, good))) == good
    with pytest.raises(IntegrityError, match=shelf.obs_ids[bad]):
        next(delivered)
    with pytest.raises(StopIteration):
        next(delivered)


def test_a_plan_that_fails_is_raised_in_its_turn(shelf):
    dataset = dataset_of(shelf)

    def plans():
        yield from plans_of(dataset, 5)
        raise ShapeError("no such plan")

    delivered = ahead_of(dataset, plans())
    assert len(list(itertools.islice(delivered, 5))) == 5
    with pytest.raises(ShapeError, match="no such plan"):
        next(delivered)


def test_a_plan_that_fails_while_the_consumer_claims_it_is_raised_and_not_waited_for():
    def plans():
        raise ShapeError("no such plan")
        yield

    look = _ReorderBuffer(plans(), depth=2)
    with pytest.raises(ShapeError, match="no such plan"):
        look.take(or_claim=True)
    assert look.take(or_claim=True) is None


def test_a_run_that_is_left_early_leaves_no_thread(shelf):
    dataset = dataset_of(shelf)
    delivered = ahead_of(dataset, plans_of(dataset, 40))
    next(delivered)
    assert reading_threads()
    del delivered
    gc.collect()
    assert not reading_threads()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:TileDB is a multithreading library:UserWarning")
def test_a_forked_child_can_drop_a_run_of_its_parent(shelf):
    dataset = dataset_of(shelf)
    delivered = ahead_of(dataset, plans_of(dataset, 40))
    next(delivered)
    child = os.fork()
    if not child:
        del delivered
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert len(list(delivered)) == 39


def counted(dataset):
    """Make a data set note how many batches each read was for."""
    sizes = []

    class Counted(type(dataset)):
        def fill_together(self, batches):
            sizes.append(len(batches))
            return super().fill_together(batches)

    dataset.__class__ = Counted
    return sizes


def test_small_batches_that_are_cached_are_read_several_at_once(shelf, monkeypatch):
    dataset = dataset_of(shelf)
    expected = [dataset.read(plan) for plan in plans_of(dataset, 40)]
    monkeypatch.setattr(pace, "_SHORT_S", 60.0)  # whatever else the machine does
    monkeypatch.setattr(pace, "_LONG_S", 60.0)
    sizes = counted(dataset)
    delivered = list(ahead_of(dataset, plans_of(dataset, 40), depth=16))
    assert len(delivered) == sum(sizes) == 40
    assert max(sizes) == 4  # a quarter of what is ahead
    assert sizes[0] == 1  # the first is not to wait for others
    for (batch, _), alone in zip(delivered, expected, strict=True):
        assert torch.equal(batch["image"], alone["image"])
        assert batch["obs_id"] == alone["obs_id"]
        assert torch.equal(batch["affine"], alone["affine"])


def test_batches_that_take_long_are_read_one_by_one(shelf, monkeypatch):
    dataset = dataset_of(shelf)
    monkeypatch.setattr(pace, "_SHORT_S", 0.0)
    sizes = counted(dataset)
    assert len(list(ahead_of(dataset, plans_of(dataset, 20), depth=16))) == 20
    assert set(sizes) == {1}
    buffer = _ReorderBuffer(iter(range(100)), depth=64, most_together=16)
    monkeypatch.setattr(pace, "_SHORT_S", 1.0)
    monkeypatch.setattr(pace, "_LONG_S", 5.0)
    for seconds, size in [(0.1, 1), (0.1, 2), (9, 4), (9, 2), (9, 1), (0.1, 1), (0.1, 2)]:
        claimed = buffer.claim()
        assert len(claimed) == size
        buffer.put_all(claimed, [[]] * size, seconds)


def test_an_epoch_begins_with_groups_as_large_as_the_last_ones(shelf, monkeypatch):
    dataset = dataset_of(shelf, loading_mode=LoadingMode.PATCH)
    loader = VolumeLoader(dataset, EpochSampler(dataset), batch_size=1, look_ahead=8)
    monkeypatch.setattr(pace, "_SHORT_S", 60.0)
    monkeypatch.setattr(pace, "_LONG_S", 60.0)
    sizes = counted(dataset)
    assert len(loader) == 120
    list(loader)
    assert sizes[0] == 1
    assert max(sizes) == 2
    sizes.clear()
    list(loader)
    assert sizes[0] == 2
    loader.look_ahead = 4  # a group that has no room would be waited for without an end
    sizes.clear()
    list(loader)
    assert set(sizes) == {1}


def test_what_waits_for_room_for_several_is_woken(shelf):
    buffer = _ReorderBuffer(iter(range(100)), depth=4, most_together=2)
    for size in (1, 2):
        claimed = buffer.claim()
        assert len(claimed) == size
        buffer.put_all(claimed, [[]] * size, 0.0)
    found = []
    thread = threading.Thread(target=lambda: found.append(buffer.claim()), daemon=True)
    thread.start()  # one place is free, two are wanted
    buffer.take(or_claim=False)
    thread.join(20)
    assert [[number for number, _ in claimed] for claimed in found] == [[3, 4]]


def test_of_batches_read_at_once_the_unreadable_one_ends_the_run(tmp_path, monkeypatch):
    shelf = make_shelf(tmp_path, [(40, 36, 34)] * 6)
    dataset = dataset_of(shelf)
    bad = 4
    good = next(n for n, plan in enumerate(plans_of(dataset, 40)) if bad in plan.volume)
    reader.close_all()
    (tiles,) = Path(shelf.locators()[bad].uri).glob("__fragments/*/a0.tdb")
    tiles.write_bytes(bytes(255 - byte for byte in tiles.read_bytes()))
    monkeypatch.setattr(pace, "_SHORT_S", 60.0)
    monkeypatch.setattr(pace, "_LONG_S", 60.0)
    delivered = ahead_of(dataset, plans_of(dataset, 40), depth=32)
    assert len(list(itertools.islice(delivered, good))) == good
    with pytest.raises(IntegrityError, match=shelf.obs_ids[bad]):
        next(delivered)
    with pytest.raises(StopIteration):
        next(delivered)


def test_of_batches_read_at_once_those_before_the_unreadable_one_are_delivered():
    def read(plans):
        if 2 in plans:
            raise IntegrityError("the third")
        return [[plan] for plan in plans]

    buffer = _ReorderBuffer(iter(range(9)), depth=16, most_together=4, group=GroupSize(4))
    claimed = buffer.claim()
    assert [plan for _, plan in claimed] == [0, 1, 2, 3]
    _read_claimed(read, buffer, claimed)
    assert [buffer.take(or_claim=False).parts for _ in range(2)] == [[0], [1]]
    with pytest.raises(IntegrityError, match="the third"):
        buffer.take(or_claim=False)
    assert buffer.take(or_claim=False) is None
