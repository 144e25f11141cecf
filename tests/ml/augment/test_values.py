"""What each augmentation does to a voxel, said a second time: a sign or a factor off is seen."""

import numpy as np
import pytest
import torch
from augment.test_augment import SIDES, batch_of

from radiobject.ml.augment import (
    Affine,
    Brightness,
    Contrast,
    Elastic,
    Flip,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    LowResolution,
    Rotate90,
    SampleRandom,
    nnunet_like,
)

N = 200


def done(augmentation, n=3, **arrays):
    """Return images or arrays before and after, as float64."""
    batch = batch_of(n) | arrays
    after = augmentation(batch, SampleRandom(0, 0, np.arange(n)))
    return batch["image"].double().numpy(), after["image"].double().numpy(), batch, after


def per_channel(image, function):
    return np.stack([[function(channel) for channel in sample] for sample in image])


def test_brightness_multiplies():
    before, after, *_ = done(Brightness((0.8, 0.8), p=1))
    assert np.allclose(after, 0.8 * before, atol=1e-6)


def test_contrast_stretches_about_the_mean():
    def stretched(x):
        return np.clip((x - x.mean()) * 1.3 + x.mean(), x.min(), x.max())

    before, after, *_ = done(Contrast((1.3, 1.3), p=1))
    assert np.allclose(after, per_channel(before, stretched), atol=1e-5)


@pytest.mark.parametrize("invert", [False, True])
def test_gamma_bends_towards_the_power(invert):
    def bent(x):
        x = -x if invert else x
        y = ((x - x.min()) / np.ptp(x)) ** 1.5 * np.ptp(x) + x.min()
        y = (y - y.mean()) / y.std() * x.std() + x.mean()
        return -y if invert else y

    before, after, *_ = done(Gamma((1.5, 1.5), p=1, invert=invert))
    assert np.allclose(after, per_channel(before, bent), atol=1e-4)


def test_low_resolution_takes_every_second_voxel_and_comes_back_linearly():
    def lowered(x):
        for axis, n in enumerate(SIDES):
            m = round(n * 0.5)
            x = x.take(np.floor((np.arange(m) + 0.5) * n / m).astype(int), axis)
        for axis, n in enumerate(SIDES):
            m = x.shape[axis]
            at = np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
            low = np.minimum(np.floor(at).astype(int), m - 1)
            share = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
            high = np.minimum(low + 1, m - 1)
            x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
        return x

    before, after, *_ = done(LowResolution((0.5, 0.5), p=1))
    assert np.allclose(after, per_channel(before, lowered), atol=1e-5)


def only(**what):
    """Affine changes of one kind alone; the linear part in millimetres and the centre's shift."""
    off = {f"p_{kind}": 0.0 for kind in ("rotation", "scale", "shear", "translation")}
    _, _, batch, after = done(Affine(**off | what), N)
    old, new = batch["affine"].numpy(), after["affine"].numpy()
    centre = np.append((np.array(SIDES) - 1) / 2, 1)
    return new[:, :3, :3] @ np.linalg.inv(old[:, :3, :3]), ((new - old) @ centre)[:, :3]


def test_rotations_are_rigid_in_millimetres_and_use_their_range():
    linear, shift = only(p_rotation=1.0, rotation_degrees=25.0)
    assert np.allclose(linear @ linear.transpose(0, 2, 1), np.eye(3), atol=1e-9)
    assert np.allclose(shift, 0, atol=1e-9)  # about the centre
    x, y, z = (
        np.rad2deg(a)
        for a in (
            np.arctan2(linear[:, 2, 1], linear[:, 2, 2]),
            np.arcsin(-linear[:, 2, 0]),
            np.arctan2(linear[:, 1, 0], linear[:, 0, 0]),
        )
    )
    for angle in (x, y, z):
        assert -25 <= angle.min() < -23 < 23 < angle.max() <= 25


@pytest.mark.parametrize("isotropic", [False, True])
def test_a_scale_above_one_enlarges(isotropic):
    linear, shift = only(p_scale=1.0, scale=(1.2, 2.0), isotropic=isotropic)
    sides = np.diagonal(linear, axis1=1, axis2=2)
    assert np.allclose(linear, sides[:, None] * np.eye(3), atol=1e-12)
    assert np.allclose(shift, 0, atol=1e-9)
    assert 0.5 <= sides.min() < 0.52 < 0.8 < sides.max() <= 1 / 1.2  # a voxel covers less
    assert np.allclose(sides, sides[:, :1]) is isotropic


def test_shears_and_shifts_are_in_millimetres_and_use_their_range():
    linear, shift = only(p_shear=1.0, shear=0.3)
    assert np.allclose(np.tril(linear), np.eye(3), atol=1e-12)
    assert np.allclose(shift, 0, atol=1e-9)
    linear, shift = only(p_translation=1.0, translation_mm=3.0)
    assert np.allclose(linear, np.eye(3), atol=1e-12)
    for along in shift.T:
        assert -3 <= along.min() < -2.8 < 2.8 < along.max() <= 3


def test_what_comes_in_from_outside():
    far = Affine(
        translation_mm=1000.0, p_rotation=0, p_scale=0, p_translation=1, fill=-7.0, mask_fill=9
    )
    *_, after = done(far, 20)
    outside = [i for i in range(20) if len(after["mask"][i].unique()) == 1]
    assert len(outside) > 10
    for i in outside:
        assert (after["image"][i] == -7).all()
        assert (after["mask"][i] == 9).all()


def test_elastic_moves_by_as_much_as_was_asked_either_way():
    elastic, samples = Elastic((2.0, 2.0), 6, p=1), np.arange(4)
    field = elastic._field(samples, SIDES, SampleRandom(0, 0, samples), torch.device("cpu"))
    assert -2 <= field.min() < -1.8 < 1.8 < field.max() <= 2
    assert field.mean().abs() < 0.2


@pytest.mark.parametrize("p", [0.2, 0.7])
def test_flips_come_as_often_as_was_asked(p):
    *_, after = done(Flip(p=p), N)
    signs = np.diagonal(after["affine"].numpy(), 0, 1, 2)[:, :3]
    assert np.allclose((signs < 0).mean(axis=0), p, atol=0.1)


def test_turns_are_of_every_plane_and_number():
    cube = torch.arange(64.0).view(1, 1, 4, 4, 4).repeat(N, 1, 1, 1, 1)
    *_, after = done(Rotate90(p=1), N, image=cube, mask=cube.to(torch.int32))
    assert len({sample.numpy().tobytes() for sample in after["image"]}) == 9
    assert not any(torch.equal(sample, cube[0]) for sample in after["image"])


def test_the_named_set_is_the_one_that_is_named():
    affine, *others = nnunet_like().steps
    assert (affine.rotation, affine.scale, affine.isotropic) == (30.0, (0.7, 1.4), True)
    assert affine.probabilities == (0.2, 0.2, 0.5, 0.5)
    assert (affine.shear, affine.translation) == (0.0, 0.0)
    said = [(type(step), getattr(step, "between", None), step.p) for step in others]
    assert said == [
        (GaussianNoise, (0.0, 0.1), 0.1),
        (GaussianBlur, (0.5, 1.0), 0.2),
        (Brightness, (0.75, 1.25), 0.15),
        (Contrast, (0.75, 1.25), 0.15),
        (LowResolution, (0.5, 1.0), 0.25),
        (Gamma, (0.7, 1.5), 0.1),
        (Gamma, (0.7, 1.5), 0.3),
        (Flip, None, 0.5),
    ]
    assert [step.invert for step in others if isinstance(step, Gamma)] == [True, False]


def test_a_change_of_no_size_reads_no_voxel_anew():
    still = Affine(0.0, (1.0, 1.0), p_rotation=1.0, p_scale=1.0, p_shear=1.0, p_translation=1.0)
    batch = batch_of(4)
    assert still(batch, SampleRandom(0, 0, np.arange(4))) is batch
