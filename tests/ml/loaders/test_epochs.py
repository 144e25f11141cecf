"""The epoch travels with the index: new patches in each epoch, whoever makes the batches."""

import hashlib
import pickle

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, Subset, WeightedRandomSampler
from torch.utils.data.distributed import DistributedSampler

from radiobject.ml import DatasetConfig, EpochSampler, VolumeCollectionDataset, VolumeLoader
from radiobject.ml.datasets.draws import SampleIndex
from radiobject.ml.loaders.receipt import Receipt

PATCH = (8, 8, 8)
CONFIG = DatasetConfig("patch", patch_size=PATCH, patches_per_volume=2, seed=11)


def make(shelf, **more):
    return VolumeCollectionDataset(shelf, CONFIG, **more)


def digest(sample):
    return hashlib.sha256(sample["image"].contiguous().numpy().tobytes()).hexdigest()


def patches(batches):
    """Return the patches of one pass as {(volume, patch of it): digests}."""
    found = {}
    for batch in batches:
        rows = zip(batch["idx"].tolist(), batch["patch_idx"].tolist(), batch["image"], strict=True)
        for volume, member, image in rows:
            found.setdefault((volume, member), []).append(digest({"image": image}))
    return found


def frozen(passes):
    """Return how many samples are the same in two passes."""
    return sum(a[key] == b[key] for a in passes for b in passes if a is not b for key in a) // 2


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2, "persistent_workers": True}])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_plain_loader_draws_anew_each_epoch(shelf, workers, shuffle):
    loader = DataLoader(make(shelf), batch_size=3, shuffle=shuffle, **workers)
    passes = [patches(loader) for _ in range(3)]
    assert all(len(p) == 12 for p in passes)
    assert frozen(passes) == 0
    again = DataLoader(make(shelf), batch_size=3, shuffle=shuffle)
    assert [patches(again) for _ in range(3)] == passes  # also with another number of workers


def test_workers_that_are_started_anew_go_on(shelf):
    loader = DataLoader(make(shelf), batch_size=3, num_workers=1, shuffle=True)
    passes = [patches(loader) for _ in range(2)]
    assert frozen(passes) == 0
    spawned = DataLoader(
        make(shelf), batch_size=3, num_workers=1, multiprocessing_context="forkserver"
    )
    assert [patches(spawned) for _ in range(2)] == passes


def test_the_draws_of_a_plain_loader_are_those_of_the_loader_of_the_same_epoch(shelf):
    plain = DataLoader(make(shelf), batch_size=4, shuffle=True)
    ours = VolumeLoader(make(shelf), batch_size=4)
    for _ in range(3):
        assert patches(plain) == patches(ours)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_index_drawn_four_times_gives_four_patches(shelf, workers):
    sampler = WeightedRandomSampler([1.0] + [0.0] * 11, 4)
    loader = DataLoader(make(shelf), batch_size=2, sampler=sampler, num_workers=workers)
    ((key, found),) = patches(loader).items()
    assert key == (0, 0)
    assert len(set(found)) == 4


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2, "persistent_workers": True}])
def test_set_epoch_of_the_data_set_reaches_every_worker(shelf, workers):
    dataset = make(shelf)
    loader = DataLoader(dataset, batch_size=3, **workers)
    reference = VolumeLoader(make(shelf), batch_size=3)
    for epoch in (4, 1, 4):
        dataset.set_epoch(epoch)
        reference.set_epoch(epoch)
        assert patches(loader) == patches(reference)


def test_a_distributed_sampler_on_a_plain_loader(shelf):
    """Each rank counts for itself: no draw of one is that of another, in no epoch."""
    seen = []
    for rank in range(2):
        dataset = make(shelf)
        dataset._draws._group_given = rank, 2  # as in a worker spawned by that rank
        sampler = DistributedSampler(dataset, num_replicas=2, rank=rank, seed=1)
        loader = DataLoader(dataset, batch_size=3, sampler=sampler)
        for epoch in range(4):
            sampler.set_epoch(epoch)
            seen += [d for found in patches(loader).values() for d in found]
    assert len(seen) == 4 * 12
    assert len(set(seen)) == len(seen)


def test_our_sampler_on_a_plain_loader_gives_the_same_receipts(shelf):
    ours = VolumeLoader(make(shelf), EpochSampler(make(shelf)), batch_size=4, receipt=True)
    for workers in (0, 2):
        ours.receipt.restore(None)
        ours.set_epoch(0)
        dataset = make(shelf)
        plain = DataLoader(
            dataset, batch_size=4, sampler=EpochSampler(dataset), num_workers=workers
        )
        receipt = Receipt()
        for _ in range(3):
            for batch in plain:
                receipt.add(batch)
            for _ in ours:
                pass
            assert receipt() == ours.receipt()


def test_set_epoch_is_one_thing(shelf):
    def chosen(by):
        loader = VolumeLoader(dataset := make(shelf), EpochSampler(dataset), batch_size=4)
        {"loader": loader, "sampler": loader.sampler, "data set": dataset}[by].set_epoch(3)
        assert loader.epoch == loader.sampler.epoch == 3
        assert dataset.epoch == 3
        plain = DataLoader(dataset, batch_size=4)
        return patches(loader), patches(plain)

    reference = VolumeLoader(make(shelf), batch_size=4)
    for _ in range(3):
        list(reference)
    expected = patches(reference)
    for by in ("loader", "sampler", "data set"):
        assert chosen(by) == (expected, expected)


def test_an_epoch_under_way_is_not_begun_again(shelf):
    """As trainers do: name the epoch just before its first batch, or just after it."""
    loader = VolumeLoader(dataset := make(shelf), EpochSampler(dataset), batch_size=4)
    reference = VolumeLoader(other := make(shelf), EpochSampler(other), batch_size=4)
    wanted = [patches(reference) for _ in range(3)]
    found = []
    for epoch in range(3):
        batches = iter(loader)
        if epoch == 1:
            loader.sampler.set_epoch(epoch)
        first = next(batches)
        loader.sampler.set_epoch(epoch)
        found.append(patches([first, *batches]))
    assert found == wanted
    loader.sampler.set_epoch(0)
    assert patches(loader) == wanted[0]
    next(iter(loader))  # left early: it may be begun again
    loader.sampler.set_epoch(1)
    assert patches(loader) == wanted[1]


def test_the_epoch_is_settled_by_the_first_batch(shelf):
    loader = VolumeLoader(make(shelf), batch_size=4)
    batches = iter(loader)
    loader.set_epoch(2)
    reference = VolumeLoader(make(shelf), batch_size=4)
    reference.set_epoch(2)
    assert patches(batches) == patches(reference)


def test_a_fixed_epoch_stays_fixed_whoever_asks(shelf):
    dataset = make(shelf)
    loader = VolumeLoader(dataset, EpochSampler(dataset, shuffle=False), fixed_epoch=True)
    wanted = patches(loader)
    loader.sampler.set_epoch(5)
    dataset.set_epoch(6)
    assert patches(loader) == wanted
    plain = DataLoader(dataset, batch_size=4, sampler=loader.sampler)
    assert [patches(plain) for _ in range(2)] == [wanted] * 2


def test_random_transforms_draw_anew_as_well(shelf):
    dataset = make(shelf, transform=lambda s: {**s, "image": s["image"] * 0 + torch.rand(1)})
    loader = DataLoader(dataset, batch_size=3)
    assert frozen([patches(loader) for _ in range(3)]) == 0
    ours = VolumeLoader(make(shelf, transform=dataset.transform), batch_size=3)
    assert frozen([patches(ours) for _ in range(3)]) == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sampler_of_somebody_else(shelf, workers):
    """It gives the order; epochs, extra draws and positions are as with ours."""

    def loader():
        dataset = make(shelf)
        sampler = WeightedRandomSampler(
            torch.tensor([1.0, 3.0] * 6), 12, generator=torch.Generator().manual_seed(3)
        )
        return VolumeLoader(dataset, sampler, batch_size=3, num_workers=workers)

    first, whole = loader(), loader()
    passes = [patches(whole) for _ in range(2)]
    drawn = [d for found in passes for each in found.values() for d in each]
    assert len(set(drawn)) == len(drawn) == 24
    seen = []
    for number, batch in enumerate(first):
        seen.append(batch)
        if number == 1:
            state = first.state_dict()
            break
    again = loader()
    again.load_state_dict(state)
    assert patches([*seen, *again]) == passes[0]
    assert patches(again) is not None
    assert again.epoch == 2


def test_a_batch_sampler_of_somebody_else(shelf):
    dataset = make(shelf)
    batches = [[0, 1, 2], [5], [SampleIndex(7, 9), 7]]
    loader = VolumeLoader(dataset, batch_sampler=batches, num_workers=1)
    assert len(loader) == 3
    first, second = list(loader), list(loader)
    assert [len(b["image"]) for b in first] == [3, 1, 2]
    assert not torch.equal(first[1]["image"], second[1]["image"])
    assert torch.equal(first[2]["image"][0], second[2]["image"][0])  # that one says its epoch
    assert not torch.equal(first[2]["image"][1], second[2]["image"][1])


def test_indices_and_samplers_travel(shelf):
    index = pickle.loads(pickle.dumps(SampleIndex(5, 3)))
    assert (index, index.epoch) == (5, 3)
    assert sorted(EpochSampler(make(shelf))) == list(range(12))
    sampler = pickle.loads(pickle.dumps(EpochSampler(make(shelf))))
    sampler.dataset.set_epoch(2)
    assert {index.epoch for index in sampler} == {2}


def test_slices_negative_numbers_and_subsets(shelf):
    dataset = make(shelf)
    dataset.set_epoch(1)
    some = dataset[2:8:3]
    assert isinstance(some, Subset)
    assert [s["patch_idx"] + 2 * s["idx"] for s in some] == [2, 5]
    assert dataset[-1]["idx"] == 5
    with pytest.raises(IndexError, match="dataset of 12"):
        dataset[-13]
    loader = DataLoader(Subset(dataset, [3, 4]), batch_size=2, sampler=RandomSampler([3, 4]))
    assert frozen([patches(loader) for _ in range(3)]) == 0
