"""What only a device would show, seen on one that has no voxels: waits, and whose state changes."""

import numpy as np
import pytest
import torch
from augment.test_augment import ALWAYS, SIDES, batch_of
from torch.utils._python_dispatch import TorchDispatchMode

from radiobject.ml.augment import Affine, Elastic, GaussianBlur, LowResolution, SampleRandom
from radiobject.ml.augment.applied import apply_to_batch
from radiobject.ml.datasets.plan import SamplePlan
from radiobject.ml.loaders.buffers import PrivateBuffers
from radiobject.ml.normalisation import ChannelScales

META = torch.device("meta")
DRAWN_THERE = {"noise", "nnU-Net"}  # by a generator, which this device has not


class Copies(TorchDispatchMode):
    """Notes of each copy from the processor to a device whether the processor goes on."""

    def __init__(self):
        super().__init__()
        self.go_on = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        name = function.name()
        if name in ("aten::_to_copy", "aten::copy_"):
            source = args[0] if name == "aten::_to_copy" else args[1]
            if source.device.type == "cpu" and made.device.type == "meta":
                given = args[2] if len(args) > 2 else (kwargs or {}).get("non_blocking", False)
                self.go_on.append(given)
        return made


@pytest.mark.parametrize("name", sorted(set(ALWAYS) - DRAWN_THERE))
def test_an_augmentation_waits_for_nothing_that_the_device_is_at(name):
    """Each wait would last until the training step before has ended."""
    there = {k: v if k == "affine" else v.to(META) for k, v in batch_of(6).items()}
    with Copies() as copies:
        done = ALWAYS[name](there, SampleRandom(0, 0, np.arange(6)))
    assert done["image"].device == META
    assert all(copies.go_on)
    assert copies.go_on or name in ("flip", "turn", "resolution")
    assert len(copies.go_on) < 8


def test_normalisation_on_a_device_waits_for_nothing():
    scales = ChannelScales(np.array([[[-1.0, 1.0, 0.5, 2.0]]] * 3))
    with Copies() as copies:
        scales.apply_on_device(torch.empty(2, 1, 4, 4, 4, device=META), np.array([0, 2]))
    assert copies.go_on == [True]


def test_no_other_devices_random_numbers_are_changed_for_a_users_function(monkeypatch):
    """The model's dropout draws from its device's generator, which is not put back."""

    def seeded_all(seed):
        raise AssertionError("the generators of every device were seeded")

    for kind in ("cuda", "xpu", "mtia"):
        monkeypatch.setattr(getattr(torch, kind), "manual_seed_all", seeded_all)
    numbers = np.arange(2)
    plan = SamplePlan(
        numbers, numbers, numbers, numbers, np.zeros((2, 3), int), np.zeros((2, 3, 2)), None
    )
    before, drawn = torch.get_rng_state(), []
    for _ in range(2):
        apply_to_batch(lambda batch: drawn.append(torch.rand(3)), batch_of(2), [plan], 5)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_default_device_of_the_users_changes_nothing():
    elastic, samples = Elastic((2.0, 2.0), 4, p=1), np.arange(2)
    want = elastic(batch_of(2), SampleRandom(0, 0, samples))["image"]
    batch = batch_of(2)
    with torch.device("meta"):
        assert torch.equal(elastic(batch, SampleRandom(0, 0, samples))["image"], want)
        assert PrivateBuffers(4096, 1).take(8192).device.type == "cpu"


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
@pytest.mark.parametrize("augmentation", [ALWAYS["affine"], ALWAYS["elastic"], ALWAYS["flip"]])
def test_masks_of_unsigned_labels_move_as_others_do(augmentation, dtype):
    batch, random = batch_of(4), SampleRandom(0, 0, np.arange(4))
    want = augmentation(batch, random)["mask"]
    batch["mask"] = batch["mask"].to(dtype)
    done = augmentation(batch, random)["mask"]
    assert done.dtype == dtype
    assert torch.equal(done.to(torch.int32), want)


def test_an_unsigned_label_may_come_in_from_outside():
    far = Affine(translation_mm=1000.0, p_rotation=0, p_scale=0, p_translation=1, mask_fill=40_000)
    batch = batch_of(6)
    batch["mask"] = batch["mask"].to(torch.uint16)
    found = far(batch, SampleRandom(0, 0, np.arange(6)))["mask"]
    assert 40_000 in found.to(torch.int32).unique().tolist()


@pytest.mark.parametrize(
    "augmentation", [GaussianBlur((0.8, 0.8), p=1), LowResolution((0.5, 0.5), p=1)]
)
def test_each_volume_of_a_series_is_changed_in_space_alone(augmentation):
    image = torch.rand(2, 3, *SIDES, 5)
    random = SampleRandom(0, 0, np.arange(2))
    done = augmentation({"image": image}, random)["image"]
    for frame in range(5):
        alone = augmentation({"image": image[..., frame].contiguous()}, random)["image"]
        assert torch.allclose(done[..., frame], alone, atol=1e-6)
