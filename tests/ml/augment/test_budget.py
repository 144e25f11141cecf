"""What augmenting a batch may cost where Python and launches are the price: counts, no times."""

import numpy as np
import pytest
import torch
from augment.test_augment import ALWAYS, batch_of
from torch.utils._python_dispatch import TorchDispatchMode

from radiobject.ml.augment import (
    Brightness,
    SampleRandom,
    Sequence,
    base,
    nnunet_like,
    randomness,
)
from radiobject.ml.augment.base import Rows, packed, sent, unpacked
from radiobject.sampling.philox import philox, unit

META = torch.device("meta")
N = 16
MOST = {"affine": 75, "blur": 60, "brightness": 8, "flip": 30, "turn": 30}


@pytest.fixture
def drawn(monkeypatch):
    """Streams that are drawn, call by call."""
    calls = []

    def counted(seed, epoch, index, stream=0):
        calls.append(np.unique(stream).tolist())
        return philox(seed, epoch, index, stream)

    monkeypatch.setattr(randomness, "philox", counted)
    return calls


class Operations(TorchDispatchMode):
    """Counts what reaches PyTorch's dispatcher, views too."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += 1
        return function(*args, **(kwargs or {}))


def operations(augmentation, epoch=0):
    """Return how many operations a device gets for a batch of images and masks."""
    whole = batch_of(N, dtype=torch.float32)
    batch = {k: v if k == "affine" else v.to(META) for k, v in whole.items()}
    with Operations() as counted:
        augmentation(batch, SampleRandom(0, epoch, np.arange(N)))
    return counted.number


@pytest.mark.parametrize("name", ALWAYS)
def test_one_call_draws_all_numbers_of_a_sequence(name, drawn):
    inner = Sequence(ALWAYS[name], Brightness(p=1.0))
    Sequence(ALWAYS[name], inner, ALWAYS[name])(batch_of(5), SampleRandom(3, 1, np.arange(5)))
    assert len(drawn) == 1
    assert len(drawn[0]) == len(set(drawn[0]))


def test_nothing_is_drawn_twice_and_what_nobody_named_is_drawn_when_used(drawn):
    random = SampleRandom(3, 1, np.arange(4))
    for _ in range(2):
        random.uniform(7)
        random.at(2).uniform(7, 1.0, 5.0)
        random.generator(1, torch.device("cpu"))
        random.generator(3, torch.device("cpu"))
    assert len(drawn) == 3


def test_numbers_drawn_together_are_those_drawn_alone():
    epoch, index = np.array([2**33 + 1, 0, 7]), np.array([5, 2**40, 0])
    random = SampleRandom(2**63 + 9, epoch, index)
    inner = random.at(3).at(4)
    numbers = [*random.numbers((0, 63)), *inner.numbers((1, 2))]
    random.draw(numbers)
    got = [random._drawn[number] for number in numbers]
    for (words, numbers_of), number in zip(got, numbers, strict=True):
        alone = philox(2**63 + 9, epoch, index, number)
        assert np.array_equal(words, alone)
        assert np.array_equal(numbers_of, unit(alone))
    place = (3 + 1) * 31 + 4 + 1
    assert inner.numbers((1,)) == [0xA000_0000 + place * 64 + 1]
    assert np.array_equal(inner.uniform(1), unit(philox(2**63 + 9, epoch, index, numbers[2])))


@pytest.mark.parametrize("name", MOST)
def test_a_device_gets_few_operations_however_many_samples_change(name):
    assert operations(ALWAYS[name]) <= MOST[name]


def test_a_device_gets_few_operations_for_the_named_set(monkeypatch):
    monkeypatch.setattr(SampleRandom, "generator", lambda *_: None)  # this device has none
    every = [operations(nnunet_like(), epoch) for epoch in range(4)]
    assert max(every) <= 300
    assert np.mean(every) <= 215


def test_arrays_that_travel_together_arrive_as_they_were():
    arrays = (
        np.arange(5, dtype=np.int64)[::-1],
        np.arange(15, dtype=np.float32).reshape(3, 5).T,
        np.array([[[7.5]]], np.float32),
        np.arange(24).reshape(2, 1, 3, 4),
    )
    host, starts = packed(arrays)
    for got, want in zip(unpacked(torch.from_numpy(host), arrays, starts), arrays, strict=True):
        assert np.array_equal(got.numpy(), want)
        assert got.numpy().dtype == want.dtype


def test_samples_that_change_their_shape_are_refused():
    rows = Rows(torch.zeros(2, 1, 4, 4, 4))
    for samples in (np.arange(2), np.arange(1)):
        with pytest.raises(ValueError, match=r"shape \(.*\), expected \(., 1, 4, 4, 4\)"):
            rows.put(samples, torch.zeros(len(samples), 1, 4, 4, 3))


def test_steps_that_change_images_alone_join_the_batch_once(monkeypatch):
    """Between them a batch is its samples; a step that wants the batch gets it whole."""
    parted, seen = [], []
    monkeypatch.setattr(base, "Rows", lambda array: parted.append(1) or Rows(array))
    steps = [ALWAYS[name] for name in ("brightness", "contrast", "gamma")]
    batch, random = batch_of(4), SampleRandom(0, 0, np.arange(4))
    done = Sequence(*steps, lambda b, _: seen.append(b) or b, *steps)(batch, random)
    assert len(parted) == 2
    want = batch
    for place, step in enumerate((*steps, None, *steps)):
        if step is None:
            assert torch.equal(seen[0]["image"], want["image"])
        else:
            want = step(want, random.at(place))
    assert torch.equal(done["image"], want["image"])


class Changes(Brightness):
    """A `change` of a user's own, of a class that is told its numbers."""

    def change(self, image, samples, random):
        return super().change(image, samples, random) + 1


def test_few_copies_reach_a_device_one_for_all_steps_that_change_images(monkeypatch):
    copies = []
    monkeypatch.setattr(base, "sent", lambda a, device: copies.append(a) or sent(a, device))
    names = ("noise", "blur", "brightness", "contrast", "gamma")
    monkeypatch.setattr(SampleRandom, "generator", lambda *_: None)  # this device has none
    image = torch.empty(N, 2, 9, 9, 7, device=META)
    steps = Sequence(*(ALWAYS[name] for name in names))
    steps({"image": image}, SampleRandom(0, 0, np.arange(N)))
    assert len(copies) == 1
    steps({"image": image[:0]}, SampleRandom(0, 0, np.arange(0)))
    assert len(copies) == 1
    for moving in ("affine", "flip"):
        ALWAYS[moving]({"image": image, "mask": image}, SampleRandom(0, 0, np.arange(N)))
    assert len(copies) == 3


def test_a_users_own_change_is_called_whatever_it_is_made_from():
    batch = batch_of(3)
    got = Changes(p=1.0)(batch, SampleRandom(0, 0, np.arange(3)))["image"]
    want = Brightness(p=1.0)(batch, SampleRandom(0, 0, np.arange(3)))["image"] + 1
    assert torch.equal(got, want)
