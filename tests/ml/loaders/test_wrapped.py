"""Our data sets within other people's: the epoch still moves on, and nothing stands for another."""

import copy
import itertools
import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch
from ml_shelf import affine_of, check_patch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
    random_split,
)

from radiobject.exceptions import ConfigurationError
from radiobject.ml import (
    DatasetConfig,
    EpochSampler,
    VolumeCollectionDataset,
    VolumeLoader,
    create_training_dataloader,
)
from radiobject.ml.datasets.draws import Draws

CONFIG = DatasetConfig("patch", patch_size=(8, 8, 8), patches_per_volume=2, seed=11)


def make(shelf, **more):
    return VolumeCollectionDataset(shelf, CONFIG, **more)


def seen(batches, first=0):
    """Check every patch and its affine, and return where they lie."""
    places = []
    for batch in batches:
        for k, image in enumerate(batch["image"]):
            start = [int(axis[k]) for axis in batch["patch_start"]]
            volume = int(batch["obs_id"][k][4:6])
            assert int(batch["idx"][k]) == volume - first
            check_patch(image, volume, start)
            want = affine_of(volume) @ np.array([*start, 1.0])
            assert np.allclose(batch["affine"][k][:, 3], want)
            places.append((volume, int(batch["patch_idx"][k]), *start))
    return places


def in_epochs(loader, n=3, **more):
    """Return what of each sample is new in each of some epochs."""
    passes = [seen(loader, **more) for _ in range(n)]
    samples = [Counter(place[:2] for place in places) for places in passes]
    assert all(some == samples[0] for some in samples)
    every = [place for places in passes for place in places]
    assert len(set(every)) == len(every)
    return samples[0], passes


@pytest.mark.parametrize("workers", [0, 2])
def test_subsets_splits_and_weights(shelf, workers):
    options = {"batch_size": 3, "num_workers": workers, "persistent_workers": workers > 0}
    dataset = make(shelf)
    train, rest = random_split(dataset, [8, 4], torch.Generator().manual_seed(1))
    both = Counter()
    for part in (train, rest):
        samples, _ = in_epochs(DataLoader(part, shuffle=True, **options))
        both += samples
    assert both == Counter((volume, member) for volume in range(6) for member in range(2))
    drawn = WeightedRandomSampler([0.0, 1.0, 0.0], 4)
    found = [p for _ in range(2) for p in seen(DataLoader(rest, sampler=drawn, **options))]
    assert len({place[:2] for place in found}) == 1
    assert len(set(found)) == 8
    some = SubsetRandomSampler([3, 7], torch.Generator().manual_seed(1))
    samples, _ = in_epochs(DataLoader(make(shelf), sampler=some, **options))
    assert set(samples) == {(1, 1), (3, 1)}


def test_an_epoch_that_is_chosen_reaches_through_a_subset(shelf):
    def epoch(n, workers):
        dataset = make(shelf)
        loader = DataLoader(Subset(dataset, [9, 2, 4]), batch_size=2, num_workers=workers)
        dataset.set_epoch(n)
        return seen(loader)

    assert epoch(3, 0) == epoch(3, 1)
    assert not set(epoch(3, 0)) & set(epoch(4, 0))


def test_data_sets_one_after_the_other(shelf):
    """Each counts its own draws, and says its own rows and affines."""
    both = ConcatDataset([make(shelf.pick([0, 1, 2])), make(shelf.pick([3, 4, 5]))])
    loader = DataLoader(both, batch_size=1, num_workers=1, persistent_workers=True)
    for _ in range(2):
        batches = list(loader)
        assert len(seen(batches[:6])) == 6
        assert len(seen(batches[6:], first=3)) == 6
    first, second = ([seen([b], first=3)[0] for b in list(loader)[6:]] for _ in range(2))
    assert not set(first) & set(second)


def test_a_copy_is_the_same_data_set_and_counts_for_itself(shelf):
    dataset = make(shelf)
    before = seen(DataLoader(dataset, batch_size=4))
    twin = copy.deepcopy(dataset)
    after = seen(DataLoader(dataset, batch_size=4))
    assert seen(DataLoader(twin, batch_size=4)) == after != before
    twin.set_epoch(0)
    assert seen(DataLoader(twin, batch_size=4)) == before


@pytest.mark.parametrize("workers", [0, 1])
def test_a_number_that_is_not_of_a_sample_is_refused(shelf, workers):
    """It was taken for a further draw of another sample: 12 of 12 gave sample 0."""
    dataset = make(shelf)
    for numbers in ([12], [0, 25]):
        loader = DataLoader(Subset(dataset, numbers), batch_size=2)
        with pytest.raises(IndexError, match="is not in a dataset of 12"):
            list(loader)
        ours = VolumeLoader(dataset, batch_sampler=[numbers], num_workers=workers)
        with pytest.raises(IndexError, match="is not in a dataset of 12"):
            list(ours)


def test_a_sampler_of_another_data_set_is_refused(shelf, mixed):
    """Its patches were placed by the other's shapes, and had the other's affines."""
    large, small = make(shelf), make(mixed)
    for sampler in (EpochSampler(small), BatchSampler(EpochSampler(small), 2, False)):
        name = "batch_sampler" if isinstance(sampler, BatchSampler) else "sampler"
        with pytest.raises(ConfigurationError, match=r"of 6 samples of 3 volumes.*of 12 of 6"):
            VolumeLoader(large, **{name: sampler})
        with pytest.raises(ConfigurationError, match="orders a data set of 6 samples, and this"):
            next(iter(DataLoader(large, **{name: sampler})))
    other = VolumeCollectionDataset(shelf.pick([5, 4, 3, 2, 1, 0]), CONFIG)
    with pytest.raises(ConfigurationError, match="orders another data set"):
        VolumeLoader(large, EpochSampler(other))
    loader = VolumeLoader(large, EpochSampler(make(shelf)), batch_size=4)
    assert len(seen(loader)) == 12  # an equal one will do


def test_a_sampler_over_what_wraps_a_data_set_says_what_to_do(shelf):
    for other in (Subset(make(shelf), [0]), ConcatDataset([make(shelf)]), [1]):
        with pytest.raises(ConfigurationError, match=f"got {type(other).__name__}; in one that"):
            EpochSampler(other)


def one(sample):
    return {**sample, "image": sample["image"] + 1}


def two(sample):
    return {**sample, "image": sample["image"] + 2}


def test_workers_that_persist_see_another_transform(shelf):
    """As when augmentation is switched off for the last epochs: it went on in the workers."""
    loader = create_training_dataloader(
        shelf, batch_size=2, patch_size=(8, 8, 8), num_workers=1, drop_last=False
    )
    dataset, found = loader.dataset, []
    for transform in (one, two, None, one):
        dataset.transform = transform
        loader.set_epoch(0)
        found.append(torch.cat([batch["image"] for batch in loader]))
    processes = loader._workers.processes
    loader.set_epoch(0)
    again = torch.cat([batch["image"] for batch in loader])
    assert loader._workers.processes == processes
    assert torch.equal(found[0], found[2] + 1)
    assert torch.equal(found[1], found[2] + 2)
    assert torch.equal(again, found[3])
    assert torch.equal(again, found[0])


def slow_noise(sample):
    first = torch.rand(1)
    time.sleep(0.01)  # where another thread may run
    return {**sample, "image": first + torch.rand(1) + float(np.random.rand())}  # noqa: NPY002


def test_threads_draw_the_numbers_of_their_own_samples(shelf):
    """Generators are the process's: MONAI's threads, and two loaders in two threads, share them."""
    want = {}
    for epoch in range(2):
        batch = VolumeLoader(make(shelf, transform=slow_noise), batch_size=12)
        batch.set_epoch(epoch)
        want[epoch] = torch.cat([b["image"] for b in batch]).flatten().tolist()
    found = {}

    def run(epoch):
        dataset = make(shelf, transform=slow_noise)
        dataset.set_epoch(epoch)
        found[epoch] = [float(dataset[i]["image"]) for i in range(12)]

    torch.manual_seed(5)
    state = torch.get_rng_state()
    threads = [threading.Thread(target=run, args=(epoch,)) for epoch in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == want
    assert torch.equal(state, torch.get_rng_state())


def test_ranks_that_share_a_data_set_do_not_depend_on_each_other():
    """Started by fork, or with it as an argument: one was drawn on by how far the others were."""

    def ranks():
        first = Draws(6)
        second = Draws.__new__(Draws)
        second.__setstate__({"samples": 6, "group": (1, 2), "shared": first._shared})
        first._group_given = (0, 2)
        return first, second

    def taken(draws, numbers):
        index, epoch = draws.take(np.array(numbers))
        return index.tolist(), epoch.tolist()

    apart, together = [], []
    first, second = ranks()
    for draws, numbers in ((first, [0, 1, 2]), (first, [3, 4, 2]), (second, [3, 4, 5])):
        apart.append(taken(draws, numbers))
    apart.append(taken(second, [0, 1, 5]))
    first, second = ranks()
    together = [None] * 4
    for place in (0, 2, 3, 1):
        draws, numbers = [(first, [0, 1, 2]), (first, [3, 4, 2]), (second, [3, 4, 5]),
                          (second, [0, 1, 5])][place]  # fmt: skip
        together[place] = taken(draws, numbers)
    assert together == apart
    first.set_epoch(7)
    assert (first.epoch, second.epoch) == (7, 0)
    first._group_given = second._group_given = (0, 1)
    first.set_epoch(9)
    second._group_given = (1, 2)
    assert (first.epoch, second.epoch) == (9, 9)
    assert taken(second, [5]) == ([5 + 6], [9])


class Endless(Sampler):
    """Indices without an end, as loops that count steps and not epochs have them."""

    def __iter__(self):
        return itertools.cycle([3, 0, 3, 7, 11])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sampler_without_an_end(shelf, workers):
    loader = VolumeLoader(make(shelf), Endless(), batch_size=2, num_workers=workers)
    batches = list(itertools.islice(loader, 10))
    places = seen(batches)
    assert [2 * place[0] + place[1] for place in places[:5]] == [3, 0, 3, 7, 11]
    assert len(set(places)) == 20
    for _ in zip(range(4), loader, strict=False):
        state = loader.state_dict()
    again = VolumeLoader(make(shelf), Endless(), batch_size=2)
    again.load_state_dict(state)
    assert again.state_dict()["consumed"] == 4
    assert again.epoch == 1
    with pytest.raises(TypeError, match="has no len"):
        len(loader)


def test_what_pytorch_advises_for_reading_many_at_once(shelf):
    """A batch sampler as the sampler, and no batches of the loader's own."""
    sampler = BatchSampler(RandomSampler(range(12)), 4, drop_last=False)
    loader = DataLoader(make(shelf), sampler=sampler, batch_size=None)
    samples, _ = in_epochs(loader, n=2)
    assert len(samples) == 12
