"""The quick ways give bit by bit what the plain ones, said here, give."""

import numpy as np
import pytest
import torch
from augment.test_augment import SIDES, batch_of

from radiobject.ml.augment import Affine, Contrast, Gamma, GaussianBlur, SampleRandom
from radiobject.ml.augment.spatial import _gathered, _positions, _reordered, _sources

SAMPLES = np.arange(7)


def random_of():
    return SampleRandom(2, 1, SAMPLES)


def per_sample(values, like):
    return torch.from_numpy(values.astype(np.float32)).view(-1, *(1,) * (like.ndim - 1))


def rotation(angles):
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return z @ y @ x


def matrix_of(wanted, angles, scale, shear, shift, spacing, sides):
    linear, (turn, zoom, slant, move) = np.eye(3), wanted
    linear = linear @ rotation(angles) if turn else linear
    linear = linear @ np.diag(1 / scale) if zoom else linear
    upper = np.eye(3)
    upper[0, 1], upper[0, 2], upper[1, 2] = shear
    linear = linear @ upper if slant else linear
    whole, centre = np.eye(4), (np.array(sides) - 1) / 2
    whole[:3, :3] = linear * spacing / spacing[:, None]
    whole[:3, 3] = centre - whole[:3, :3] @ centre
    if move:
        whole[:3, 3] -= shift / spacing
    return whole


@pytest.mark.parametrize("isotropic", [False, True])
def test_matrices_of_all_samples_are_those_of_each(isotropic):
    affine, random = Affine(30, (0.7, 1.4), 0.2, 2.0, isotropic=isotropic), random_of()
    wanted = np.arange(28).reshape(7, 4) % 3 > 0
    got = affine._moves(batch_of(7), wanted, random)
    scale = np.exp(random.uniform(2, *np.log((0.7, 1.4)))[:, :3])
    scale = np.repeat(scale[:, :1], 3, axis=1) if isotropic else scale
    angles = np.deg2rad(random.uniform(1, -30, 30)[:, :3])
    shear, shift = random.uniform(3, -0.2, 0.2)[:, :3], random.uniform(4, -2.0, 2.0)[:, :3]
    for i in SAMPLES:
        numbers = wanted[i], angles[i], scale[i], shear[i], shift[i]
        assert np.array_equal(got[i], matrix_of(*numbers, np.array([1.0, 1.0, 2.0]), SIDES))


def test_voxels_are_read_where_sums_in_their_order_say():
    moves = np.random.default_rng(0).normal(0, 1, (3, 4, 4))
    got, ends = _positions(moves, SIDES, torch.device("cpu"))
    assert [end.flatten().tolist() for end in ends] == [[7, 9, 9], [6, 8, 8]]
    x, y, z = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in SIDES), indexing="ij")
    for sample in range(3):
        for row in range(3):
            a, b, c, d = torch.from_numpy(moves[sample, row].astype(np.float32))
            assert torch.equal(got[sample, 2 - row], a * x + (b * y + (c * z + d)))


@pytest.mark.parametrize("sides", [SIDES, (1, 3, 2)])
def test_a_blur_adds_tap_by_tap(sides):
    image = torch.randn(7, 2, *sides, generator=torch.Generator().manual_seed(0))
    want, taps = image, np.arange(-3, 4)
    sigma = random_of().uniform(1, 0.5, 1.0)[:, :1]
    weights = np.exp(-0.5 * (taps / sigma) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    for axis, length in enumerate(sides, 2):
        total = torch.zeros_like(want)
        for tap, weight in zip(taps, weights.T, strict=True):
            index = (np.arange(length) + tap) % max(2 * (length - 1), 1)
            index = np.where(index < length, index, 2 * (length - 1) - index)
            moved = want.index_select(axis, torch.from_numpy(index))
            total = total + moved * per_sample(weight, moved)
        want = total
    assert torch.equal(GaussianBlur((0.5, 1.0), p=1)({"image": image}, random_of())["image"], want)


@pytest.mark.parametrize("invert", [False, True])
def test_contrast_and_gamma_round_as_they_did(invert):
    image = batch_of(7)["image"]
    signed = -image if invert else image
    parts = [torch.std_mean(one, (2, 3, 4), keepdim=True, correction=0) for one in signed.split(1)]
    deviation, mean = (torch.cat(each) for each in zip(*parts, strict=True))
    low, high = signed.amin((2, 3, 4), True), signed.amax((2, 3, 4), True)
    factor = per_sample(random_of().uniform(1, 0.7, 1.5)[:, 0], image)
    if not invert:
        want = torch.minimum(torch.maximum((image - mean) * factor + mean, low), high)
        got = Contrast((0.7, 1.5), p=1)({"image": image}, random_of())["image"]
        assert torch.equal(got, want)
    want = []
    for i in range(7):
        one, span = signed[i : i + 1] - low[i], (high - low)[i].clamp(min=1e-7)
        bent = (one / span).pow(factor[i]) * span + low[i]
        spread, now = torch.std_mean(bent, (2, 3, 4), keepdim=True, correction=0)
        want.append((bent - now) * (deviation[i] / spread.clamp(min=1e-7)) + mean[i])
    want = -torch.cat(want) if invert else torch.cat(want)
    got = Gamma((0.7, 1.5), p=1, invert=invert)({"image": image}, random_of())["image"]
    assert torch.equal(got, want)


@pytest.mark.parametrize("sides", [(5, 5, 5), (4, 4, 3), (2, 3, 5)])
def test_a_device_reorders_voxels_as_a_processor_does(sides):
    n = 12
    given = torch.arange(n * 2 * np.prod(sides), dtype=torch.int16).view(n, 2, *sides)
    rng = np.random.default_rng(0)
    axes = np.tile(np.arange(3), (n, 1))
    for sample in range(n):
        order = rng.permutation(3)
        if [sides[a] for a in order] == list(sides):
            axes[sample] = order
    mirrored = rng.random((n, 3)) < 0.5
    want = _reordered(given, np.arange(n), axes, mirrored)
    sources = _sources(axes, mirrored, sides, torch.device("cpu"))
    assert torch.equal(_gathered(given, sources), want)
    assert not torch.equal(want, given)
