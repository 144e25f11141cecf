"""Augmented samples are functions of (seed, epoch, index); image, mask and affine agree."""

import numpy as np
import pytest
import torch
from ml_shelf import make_pair

from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.ml import (
    create_segmentation_dataloader,
    create_training_dataloader,
    create_validation_dataloader,
)
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
    Sequence,
    nnunet_like,
)
from radiobject.ml.augment.base import BatchAugmentation, groups

SIDES = (9, 9, 7)
ALWAYS = {
    "flip": Flip(p=0.7),
    "turn": Rotate90(p=1.0),
    "affine": Affine(30, (0.7, 1.4), 0.2, 2.0, p_rotation=1, p_scale=1, p_shear=1, p_translation=1),
    "elastic": Elastic((1.0, 3.0), 4, p=1.0),
    "noise": GaussianNoise((0.1, 0.2), p=1.0),
    "blur": GaussianBlur((0.5, 1.5), p=1.0),
    "brightness": Brightness((0.5, 0.9), p=1.0),
    "contrast": Contrast((0.5, 0.9), p=1.0),
    "gamma": Gamma((0.7, 1.5), p=1.0),
    "inverted gamma": Gamma((0.7, 1.5), p=1.0, invert=True),
    "resolution": LowResolution((0.4, 0.6), p=1.0),
    "nnU-Net": nnunet_like(),
}


def batch_of(n, seed=0, dtype=torch.float32):
    """Images whose voxels are smooth functions of the world, and masks that tell their voxel."""
    rng = np.random.default_rng(seed)
    affine = np.tile(np.diag([1.0, 1.0, 2.0, 1.0]), (n, 1, 1))
    affine[:, :3, 3] = rng.normal(0, 10, (n, 3))
    image = torch.from_numpy(rng.normal(0, 1, (n, 2, *SIDES))).to(dtype)
    mask = torch.arange(np.prod(SIDES), dtype=torch.int32).view(1, 1, *SIDES).repeat(n, 1, 1, 1, 1)
    return {"image": image, "mask": mask + 1, "affine": torch.from_numpy(affine)}


def part(batch, rows):
    return {key: value[rows].clone() for key, value in batch.items()}


@pytest.mark.parametrize("name", ALWAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sample_alone_equals_it_in_any_batch(name, dtype):
    batch, index = batch_of(6, dtype=dtype), np.array([5, 12, 3, 400, 7, 8])
    whole = ALWAYS[name](part(batch, slice(None)), SampleRandom(3, 2, index))
    for rows in ([0], [4], [5, 1], [2, 3, 4, 0]):
        some = ALWAYS[name](part(batch, rows), SampleRandom(3, 2, index[rows]))
        for key in batch:
            assert torch.equal(some[key], whole[key][rows]), key
    assert whole["image"].dtype == dtype
    if name != "nnU-Net":
        assert not torch.equal(whole["image"], batch["image"])


@pytest.mark.parametrize("name", ALWAYS)
def test_what_is_given_stays_as_it_is_and_numbers_depend_on_the_epoch(name):
    batch = batch_of(8)
    before = part(batch, slice(None))
    first = ALWAYS[name](batch, SampleRandom(0, 0, np.arange(8)))
    again = ALWAYS[name](batch, SampleRandom(0, 0, np.arange(8)))
    other = ALWAYS[name](batch, SampleRandom(0, 1, np.arange(8)))
    assert all(torch.equal(batch[key], before[key]) for key in batch)
    assert all(torch.equal(first[key], again[key]) for key in batch)
    assert not torch.equal(first["image"], other["image"])


@pytest.mark.parametrize("augmentation", [Flip(p=0.6), Rotate90(p=1.0)])
def test_mirrors_and_turns_move_voxels_exactly_and_the_affine_says_where(augmentation):
    batch = batch_of(40)
    batch["image"] = batch["mask"].to(torch.float32).repeat(1, 2, 1, 1, 1)
    done = augmentation(batch, SampleRandom(1, 0, np.arange(40)))
    assert torch.equal(done["image"][:, :1].to(torch.int32), done["mask"])
    index = np.stack(np.indices(SIDES), -1).reshape(-1, 3)
    for i in range(40):
        world = index @ done["affine"][i, :3, :3].numpy().T + done["affine"][i, :3, 3].numpy()
        back = np.linalg.inv(batch["affine"][i].numpy())
        old = np.rint(world @ back[:3, :3].T + back[:3, 3]).astype(int)
        want = batch["mask"][i, 0].numpy()[tuple(old.T)]
        assert np.array_equal(done["mask"][i, 0].numpy().ravel(), want)
    assert len({done["mask"][i].numpy().tobytes() for i in range(40)}) >= 5
    if isinstance(augmentation, Rotate90):
        assert np.allclose(np.linalg.det(done["affine"][:, :3, :3].numpy()), 2)


def test_the_affine_follows_an_affine_change():
    """A linear image stays the same function of the world, wherever the patch is still read."""
    batch = batch_of(10)
    weights = np.array([0.3, -0.2, 0.11])
    index = np.stack(np.indices(SIDES), -1)
    for i in range(10):
        affine = batch["affine"][i].numpy()
        world = index @ affine[:3, :3].T + affine[:3, 3]
        batch["image"][i] = torch.from_numpy(world @ weights)
    done = ALWAYS["affine"](batch, SampleRandom(0, 0, np.arange(10)))
    compared = 0
    for i in range(10):
        affine = done["affine"][i].numpy()
        world = index @ affine[:3, :3].T + affine[:3, 3]
        back = np.linalg.inv(batch["affine"][i].numpy())
        old = world @ back[:3, :3].T + back[:3, 3]
        inside = ((old >= 0.01) & (old <= np.array(SIDES) - 1.01)).all(axis=-1)
        got = done["image"][i, 0].numpy()
        assert np.allclose(got[inside], (world @ weights)[inside], atol=1e-3)
        compared += inside.sum()
    assert compared > 1000
    assert not np.allclose(done["affine"].numpy(), batch["affine"].numpy())


@pytest.mark.parametrize("name", ["affine", "elastic"])
def test_labels_are_never_mixed_and_lie_where_the_image_does(name):
    batch = batch_of(4)
    batch["mask"] = (batch["mask"] % 5 * 1_000_003 + 2**24 + 1).to(torch.int64)
    labels = set(batch["mask"].unique().tolist())
    done = ALWAYS[name](batch, SampleRandom(0, 0, np.arange(4)))
    assert set(done["mask"].unique().tolist()) <= labels | {0}
    inside = torch.zeros(4, 1, *SIDES)
    inside[:, :, 3:6, 3:6, 2:5] = 1
    batch = {**batch, "image": inside.repeat(1, 2, 1, 1, 1), "mask": inside.to(torch.uint8)}
    done = ALWAYS[name](batch, SampleRandom(0, 0, np.arange(4)))
    assert ((done["image"][:, :1] > 0.5) != (done["mask"] > 0)).float().mean() < 0.03


def test_the_blur_is_scipys():
    from scipy.ndimage import gaussian_filter

    batch = batch_of(3)
    done = GaussianBlur((0.8, 0.8), p=1.0)(batch, SampleRandom(0, 0, np.arange(3)))
    for i in range(3):
        want = gaussian_filter(batch["image"][i, 0].numpy(), 0.8, mode="mirror", radius=3)
        assert np.allclose(done["image"][i, 0].numpy(), want, atol=1e-5)


def test_what_contrast_gamma_and_noise_keep():
    batch, random = batch_of(50), SampleRandom(0, 0, np.arange(50))
    flat = lambda b: b["image"].flatten(2)  # noqa: E731
    contrast = Contrast((1.5, 2.0), p=1.0)(batch, random)
    assert torch.equal(flat(contrast).amax(-1), flat(batch).amax(-1))
    assert (flat(contrast).std(-1) > flat(batch).std(-1)).all()
    gamma = Gamma((0.7, 1.5), p=1.0)(batch, random)
    assert torch.allclose(flat(gamma).mean(-1), flat(batch).mean(-1), atol=1e-5)
    assert torch.allclose(flat(gamma).std(-1), flat(batch).std(-1), atol=1e-4)
    noise = GaussianNoise((0.09, 0.09), p=1.0)(batch, random)
    added = (noise["image"] - batch["image"]).double()
    assert added.mean().abs() < 0.01
    assert added.std() == pytest.approx(0.3, abs=0.01)
    kept = GaussianNoise(p=0.3)(batch, random)
    changed = (flat(kept) != flat(batch)).any(-1).any(-1).float().mean()
    assert 0.1 < changed < 0.5


def test_augmentations_of_a_sequence_draw_their_own_numbers():
    batch, random = batch_of(8), SampleRandom(0, 0, np.arange(8))
    twice = Sequence(Brightness((0.5, 2.0), p=1.0), Brightness((0.5, 2.0), p=1.0))(batch, random)
    once = Brightness((0.5, 2.0), p=1.0)(batch, random)
    factors = [(b["image"] / batch["image"])[:, 0, 0, 0, 0] for b in (once, twice)]
    assert not torch.allclose(factors[0] ** 2, factors[1], rtol=1e-2)


def test_a_processor_changes_one_sample_at_a_time_and_a_device_all():
    """Vector instructions round the end of an array otherwise: which ones depends on the machine,
    so that equal numbers here prove nothing about another."""
    seen = []

    class Recorded(BatchAugmentation):
        def change(self, image, samples, random):
            seen.append((len(image), samples.tolist()))
            return image

    Recorded(p=1.0)(batch_of(4), SampleRandom(0, 0, np.arange(4)))
    assert seen == [(1, [0]), (1, [1]), (1, [2]), (1, [3])]
    together = groups(np.arange(4), torch.device("cuda"))
    assert [group.tolist() for group in together] == [[0, 1, 2, 3]]


@pytest.mark.parametrize("name", ALWAYS)
def test_another_seed_gives_other_numbers(name):
    batch = batch_of(3)
    one, again, other = (ALWAYS[name](batch, SampleRandom(s, 0, np.arange(3))) for s in (1, 1, 2))
    assert torch.equal(one["image"], again["image"])
    assert not torch.equal(one["image"], other["image"])


def test_a_loaders_seed_reaches_the_augmentation_and_a_users_function(shelf):
    """The volumes are delivered whole, so that nothing else depends on the seed."""

    def drawn(batch):
        return batch | {"image": batch["image"] + torch.rand(())}

    for transform in (Brightness((0.5, 2.0), p=1.0), drawn):
        first = {}
        for seed in (1, 2):
            loader = create_validation_dataloader(
                shelf, batch_size=2, num_workers=0, seed=seed, batch_transform=transform
            )
            first[seed] = next(iter(loader))["image"]
        assert not torch.equal(first[1], first[2])


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Flip(p=1.5), ConfigurationError, "probability"),
        (lambda: Flip(axes=(3,)), ConfigurationError, "axes"),
        (lambda: Gamma((2.0, 1.0)), ConfigurationError, "gamma must be"),
        (lambda: LowResolution((0.0, 1.0)), ConfigurationError, "zoom"),
        (lambda: Elastic(control_points=1), ConfigurationError, "control_points"),
        (lambda: Sequence(3), ConfigurationError, "callable"),
        (
            lambda: Brightness(p=1)(batch_of(1, dtype=torch.int16), SampleRandom(0, 0, [0])),
            ConfigurationError,
            "dtype='float32'",
        ),
        (
            lambda: Flip(p=1)({"image": torch.zeros(1, 1, 4, 4)}, SampleRandom(0, 0, [0])),
            ShapeError,
            r"\(B, C, X, Y, Z\)",
        ),
    ],
)
def test_bad_input(make, error, match):
    with pytest.raises(error, match=match):
        make()


OPTIONS = {"patch_size": (12, 12, 12), "patches_per_volume": 3, "receipt": True}


@pytest.mark.parametrize("more", [{}, {"device": "cpu"}, {"num_workers": 1}])
def test_receipts_cover_augmentation_and_not_the_batches(tmp_path, more):
    image, mask = make_pair(tmp_path)
    receipts = set()
    for size in (2, 4):
        loader = create_segmentation_dataloader(
            image, mask, size, **OPTIONS, **({"num_workers": 0} | more),
            batch_transform=nnunet_like(),
        )  # fmt: skip
        for _ in range(2):
            for batch in loader:
                assert batch["mask"].dtype == torch.uint8
        receipts.add(loader.receipt())
    plain = create_segmentation_dataloader(image, mask, 2, num_workers=0, **OPTIONS)
    for _ in range(2):
        list(plain)
    assert len(receipts) == 1
    assert plain.receipt() not in receipts


def test_a_users_function_with_and_without_random_numbers(shelf):
    def plain(batch):
        return batch | {"image": batch["image"] + torch.rand(())}

    def per_sample(batch, random):
        factor = torch.from_numpy(random.uniform(0, 1, 2)[:, 0]).float()
        return batch | {"image": batch["image"] * factor.view(-1, 1, 1, 1, 1)}

    state = torch.get_rng_state()
    for function in (plain, per_sample, lambda batch: batch | {"extra": 1}):
        seen = []
        for _ in range(2):
            loader = create_training_dataloader(
                shelf, batch_size=2, num_workers=0, batch_transform=function, **OPTIONS
            )
            list(loader)
            seen.append(loader.receipt())
        assert seen[0] == seen[1]
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ConfigurationError, match="batch_transform must be callable"):
        create_training_dataloader(shelf, batch_transform=3, patch_size=(8, 8, 8))


def test_kornia_as_a_batch_transform(shelf):
    augmentation = pytest.importorskip("kornia.augmentation")
    blur = augmentation.RandomMotionBlur3D(3, 35.0, 0.5, p=1.0)

    def blurred(batch):
        return batch | {"image": blur(batch["image"])}

    seen = []
    for _ in range(2):
        loader = create_training_dataloader(
            shelf, batch_size=2, num_workers=0, batch_transform=blurred, **OPTIONS
        )
        list(loader)
        seen.append(loader.receipt())
    assert seen[0] == seen[1]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ALWAYS)
def test_on_a_device_a_sample_alone_equals_it_in_any_batch(name):
    batch, index = batch_of(6), np.array([5, 12, 3, 400, 7, 8])
    on = {k: v.cuda() if k != "affine" else v for k, v in batch.items()}
    whole = ALWAYS[name](part(on, slice(None)), SampleRandom(3, 2, index))
    for rows in ([0], [5, 1], [2, 3, 4, 0]):
        some = ALWAYS[name](part(on, rows), SampleRandom(3, 2, index[rows]))
        for key in batch:
            assert torch.equal(some[key], whole[key][rows]), key
    here = ALWAYS[name](batch, SampleRandom(3, 2, index))
    if "noise" not in name and name != "nnU-Net":
        assert torch.allclose(whole["image"].cpu(), here["image"], atol=1e-3)
