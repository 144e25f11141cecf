import hashlib
import json

import pytest
import torch
from torch.utils.data import SequentialSampler

from radiobject.exceptions import ConfigurationError
from radiobject.ml import EpochSampler, VolumeLoader, create_training_dataloader
from radiobject.ml.distributed import create_distributed_dataloader

OPTIONS = {"batch_size": 2, "patch_size": (12, 12, 12), "patches_per_volume": 4}


def loader(shelf, workers=0, **more):
    return create_training_dataloader(shelf, num_workers=workers, **(OPTIONS | more))


def digests(batches):
    return [hashlib.sha256(b["image"].numpy().tobytes()).hexdigest() for b in batches]


@pytest.fixture(scope="module")
def whole(shelf):
    """Two epochs, uninterrupted."""
    run = loader(shelf, receipt=True)
    return digests(run) + digests(run), run.receipt()


@pytest.mark.parametrize("stop", [0, 1, 5, 12, 17])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_where_it_stopped(shelf, whole, stop, workers):
    first = loader(shelf, receipt=True)
    seen, state = [], first.state_dict()
    while len(seen) < stop:
        for batch in first:
            seen += digests([batch])
            state = first.state_dict()
            if len(seen) == stop:
                break
    second = loader(shelf, workers, receipt=True)
    second.load_state_dict(json.loads(json.dumps(state)))
    while len(seen) < 24:
        seen += digests(second)
    assert seen == whole[0]
    assert second.receipt() == whole[1]


def test_prefetched_batches_do_not_count(shelf, whole):
    first = loader(shelf, 2, prefetch_factor=4)
    batches = iter(first)
    next(batches)
    second = loader(shelf)
    second.load_state_dict(first.state_dict())
    assert digests(second) == whole[0][1:12]


def test_another_batch_size_sees_the_same_samples(shelf):
    first = loader(shelf, receipt=True)
    for number, _ in enumerate(first):
        if number == 3:
            break
    second = loader(shelf, batch_size=4, receipt=True)
    second.load_state_dict(first.state_dict())
    for _ in second:
        pass
    straight = loader(shelf, receipt=True)
    for _ in straight:
        pass
    assert second.receipt() == straight.receipt()


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
def test_another_number_of_ranks_sees_what_is_left(shelf, before, after):
    def ranks(world):
        return [
            create_distributed_dataloader(
                shelf, r, world, num_workers=0, **(OPTIONS | {"batch_size": 1})
            )
            for r in range(world)
        ]

    def samples(batch):
        starts = torch.stack(batch["patch_start"], dim=1).tolist()
        return [(int(v), tuple(s)) for v, s in zip(batch["idx"], starts, strict=True)]

    group = ranks(before)
    running = [iter(r) for r in group]
    seen = [s for _ in range(3) for it in running for s in samples(next(it))]
    others = ranks(after)
    for other in others:
        other.load_state_dict(group[0].state_dict())
    seen += [s for other in others for batch in other for s in samples(batch)]
    every = [s for batch in ranks(1)[0] for s in samples(batch)]
    assert len(set(seen)) == len(seen) == len(every) - (len(every) - 3 * before) % after
    assert set(seen) <= set(every)


def test_set_epoch_chooses_and_keeps_a_restored_position(shelf, whole):
    run = loader(shelf)
    run.set_epoch(1)
    assert digests(run) == whole[0][12:]
    first = loader(shelf)
    next(iter(first))
    again = loader(shelf)
    again.load_state_dict(first.state_dict())
    again.set_epoch(0)
    assert digests(again) == whole[0][1:12]


def test_a_state_of_something_else_is_refused(shelf, mixed):
    state = loader(shelf).state_dict()
    for other, words in (
        (create_training_dataloader(mixed, num_workers=0, **OPTIONS), "data set"),
        (loader(shelf, patch_size=(8, 8, 8)), "data set"),
        (loader(shelf, seed=3), "seed"),
        (loader(shelf, volumes_per_block=2), "order"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            other.load_state_dict(state)
    with pytest.raises(ConfigurationError, match="state has"):
        loader(shelf).load_state_dict({"epoch": 3})
    with pytest.raises(ConfigurationError, match="version 99"):
        loader(shelf).load_state_dict(state | {"version": 99})


def test_the_protocol_of_torchdata(shelf):
    stateful = pytest.importorskip("torchdata.stateful_dataloader.stateful")
    assert isinstance(loader(shelf), stateful.Stateful)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("workers", [0, 1])
def test_torchdatas_own_loader_over_our_dataset(shelf, whole, workers):
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")

    def make():
        ours = loader(shelf)
        return torchdata.StatefulDataLoader(
            ours.dataset,
            batch_size=2,
            sampler=ours.sampler,
            collate_fn=ours.collate_fn,
            num_workers=workers,
        )

    first, seen = make(), []
    for batch in first:
        seen += digests([batch])
        if len(seen) == 5:
            break
    second = make()
    second.load_state_dict(first.state_dict())
    assert seen + digests(second) == whole[0][:12]


def test_no_receipt_unless_asked(shelf):
    with pytest.raises(ConfigurationError, match="receipt=True"):
        loader(shelf).receipt()


def test_a_restored_position_holds_for_its_own_epoch_only(shelf, whole):
    first = loader(shelf)
    for number, _ in enumerate(first):
        if number == 4:
            break
    state = first.state_dict()
    assert (state["epoch"], state["consumed"]) == (0, 10)
    for chosen, expected in ((0, whole[0][5:12]), (1, whole[0][12:])):
        again = loader(shelf)
        again.load_state_dict(state)
        again.sampler.set_epoch(chosen)
        assert again.state_dict()["consumed"] == (0 if chosen else 10)
        assert digests(again) == expected
        assert again.epoch == chosen + 1


def test_the_state_at_the_last_batch_is_that_of_the_next_epoch(shelf):
    """With what drop_last leaves out, or without: nothing is left for this rank."""
    for drop_last, size in ((True, 5), (False, 5), (True, 4)):
        run = loader(shelf, batch_size=size, drop_last=drop_last)
        states = [run.state_dict() for _ in run]
        assert [s["epoch"] for s in states] == [0] * (len(run) - 1) + [1]
        assert states[-1]["consumed"] == 0


def test_nothing_is_left_of_an_epoch_that_keeps_its_last_samples(shelf):
    dataset = loader(shelf).dataset
    for tail in ("uneven", "repeat"):
        run = VolumeLoader(dataset, EpochSampler(dataset, tail=tail), batch_size=5)
        states = [run.state_dict() for _ in run]
        assert [(s["epoch"], s["consumed"]) for s in states][-2:] == [(0, 20), (1, 0)]


def test_after_the_last_batch_of_somebody_elses_sampler_the_next_epoch_comes(shelf):
    """Also where the loop has not asked for a batch beyond it: else an empty epoch would come."""
    dataset = loader(shelf).dataset
    run = VolumeLoader(dataset, sampler=SequentialSampler(dataset), batch_size=5)
    passing = iter(run)
    for _ in range(len(run)):
        next(passing)
    state = run.state_dict()
    assert (state["epoch"], state["consumed"]) == (1, 0)
    again = VolumeLoader(dataset, sampler=SequentialSampler(dataset), batch_size=5)
    again.load_state_dict(state)
    assert sum(1 for _ in again) == len(run)
