import numpy as np
import pytest
import torch
from ml_shelf import affine_of, check_patch

from radiobject.ml import (
    VolumeCollectionDataset,
    collate,
    create_segmentation_dataloader,
    create_training_dataloader,
)
from radiobject.ml.config import DatasetConfig

monai = pytest.importorskip("monai")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

from monai.data import MetaTensor, decollate_batch, list_data_collate  # noqa: E402
from monai.transforms import (  # noqa: E402
    Compose,
    FlipD,
    OneOf,
    RandFlipd,
    RandGaussianNoised,
    RandRotate90d,
    RandScaleIntensityd,
    RandSpatialCropSamplesd,
    Spacingd,
)

PATCH = (12, 12, 12)
OPTIONS = {"batch_size": 3, "patch_size": PATCH, "patches_per_volume": 3}


def augment():
    return Compose(
        [
            RandFlipd(keys=["image"], prob=0.5, spatial_axis=0),
            RandRotate90d(keys=["image"], prob=0.5),
            RandGaussianNoised(keys=["image"], prob=0.7),
        ]
    )


def test_one_metatensor_per_batch_is_what_monais_collate_makes(shelf):
    loader = create_training_dataloader(shelf, num_workers=0, meta_tensor=True, **OPTIONS)
    plain = create_training_dataloader(shelf, num_workers=0, **OPTIONS)
    for batch, reference in zip(loader, plain, strict=True):
        image = batch["image"]
        assert isinstance(image, MetaTensor)
        samples = [
            {"image": MetaTensor(v, affine=a, meta={"filename_or_obj": i})}
            for v, a, i in zip(
                reference["image"], reference["affine"], reference["obs_id"], strict=True
            )
        ]
        theirs = list_data_collate(samples)["image"]
        assert torch.equal(image.as_tensor(), theirs.as_tensor())
        assert torch.equal(image.affine, theirs.affine)
        assert image.is_batch
        assert image.meta["filename_or_obj"] == theirs.meta["filename_or_obj"]
        for k, one in enumerate(decollate_batch(batch)):
            assert torch.allclose(one["image"].affine, reference["affine"][k])
            assert one["obs_id"] == reference["obs_id"][k]
            start = [int(axis) for axis in one["patch_start"]]
            assert torch.allclose(
                one["image"].affine[:3, 3],
                torch.tensor([10 * int(one["idx"]), -5, 7])
                + torch.tensor(start) * torch.tensor([1, 2, 3.0], dtype=torch.float64),
            )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_transform_gets_metatensors_and_depends_on_the_sample_alone(shelf, workers):
    loader = create_training_dataloader(shelf, num_workers=workers, transform=augment(), **OPTIONS)
    again = create_training_dataloader(shelf, num_workers=0, transform=augment(), **OPTIONS)
    state = torch.get_rng_state()
    kept = []
    for ours, theirs in zip(loader, again, strict=True):
        assert isinstance(ours["image"], MetaTensor)
        assert torch.equal(ours["image"].as_tensor(), theirs["image"].as_tensor())
        assert torch.equal(ours["image"].affine, theirs["image"].affine)
        assert torch.equal(ours["affine"], ours["image"].affine.to(ours["affine"].dtype))
        assert len(decollate_batch(ours)) == 3
        kept.append((ours["image"], ours["image"].as_tensor().clone()))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a.as_tensor(), b) for a, b in kept)
    epochs = [next(iter(again))["image"].as_tensor() for _ in range(2)]
    assert not torch.equal(*epochs)


def test_a_flip_moves_the_affine_so_that_voxels_keep_their_place(shelf):
    flip = RandFlipd(keys=["image"], prob=1.0, spatial_axis=0)
    config = DatasetConfig(loading_mode="patch", patch_size=PATCH)
    before = VolumeCollectionDataset(shelf, config)[4]
    after = VolumeCollectionDataset(shelf, config, transform=flip)[4]
    first = after["image"].affine @ torch.tensor([0.0, 0, 0, 1], dtype=torch.float64)
    last = before["affine"] @ torch.tensor([11.0, 0, 0, 1], dtype=torch.float64)
    assert torch.allclose(first, last)
    assert torch.equal(torch.flip(after["image"].as_tensor(), (1,)), before["image"])


def test_image_and_mask_go_through_together(pair):
    keys = ["image", "mask"]
    spacing = Spacingd(keys=keys, pixdim=(2, 2, 2), mode=("bilinear", "nearest"))
    loader = create_segmentation_dataloader(
        *pair, batch_size=2, patch_size=(20, 20, 20), num_workers=0, transform=spacing
    )
    for batch in loader:
        assert batch["image"].shape[2:] == batch["mask"].shape[2:] == (10, 20, 30)
        assert set(np.unique(batch["mask"].as_tensor())) <= {0, 1, 2}


@pytest.mark.parametrize("workers", [0, 1])
def test_several_samples_from_one(shelf, workers):
    crops = RandSpatialCropSamplesd(
        keys=["image"], roi_size=(8, 8, 8), num_samples=4, random_size=False
    )
    loader = create_training_dataloader(shelf, batch_size=2, num_workers=workers, transform=crops)
    assert next(iter(loader))["image"].shape == (8, 1, 8, 8, 8)


def test_a_monai_script_moves_over_by_its_data_set_line(shelf):
    from monai.data import DataLoader

    config = DatasetConfig(loading_mode="patch", patch_size=PATCH)
    dataset = VolumeCollectionDataset(shelf, config, transform=augment())
    loader = DataLoader(dataset, batch_size=2, num_workers=0, shuffle=True)
    for batch in loader:
        assert isinstance(batch["image"], MetaTensor)
        assert batch["image"].shape == (2, 1, *PATCH)


def test_without_transform_the_plain_patch_arrives(shelf):
    from monai.data import DataLoader

    config = DatasetConfig(loading_mode="patch", patch_size=PATCH)
    for batch in DataLoader(VolumeCollectionDataset(shelf, config), batch_size=2):
        for k in range(2):
            start = [int(axis[k]) for axis in batch["patch_start"]]
            check_patch(batch["image"][k], batch["idx"][k], start)


def test_monais_own_data_sets_get_the_affine(shelf):
    """They read it off a MetaTensor, and take the identity where there is none."""
    data, transforms = pytest.importorskip("monai.data"), pytest.importorskip("monai.transforms")
    from radiobject.ml import VolumeCollectionDataset

    ours = VolumeCollectionDataset(shelf.pick([1, 2]))
    steps = transforms.Compose(
        [transforms.EnsureTyped("image"), transforms.Spacingd("image", pixdim=(2, 2, 3))]
    )
    for theirs in (
        data.CacheDataset(ours, steps, num_workers=0, progress=False),
        data.Dataset(ours, steps),
        data.Dataset(torch.utils.data.Subset(ours, [0, 1]), steps),
    ):
        for number in range(2):
            image = theirs[number]["image"]
            assert image.shape == (1, 20, 36, 34)  # the stored spacing is (1, 2, 3)
            assert np.allclose(image.affine, affine_of(number + 1) @ np.diag([2, 1, 1, 1]))
    assert type(ours[0]["image"]) is torch.Tensor  # nobody of MONAI's asks here
    together = ours.__getitems__([0, 1])
    assert [type(s["image"]) for s in together] == [torch.Tensor] * 2


def chain():
    """Transforms within transforms, and a generator that a user shares between two."""
    shared = np.random.RandomState(3)
    loners = [RandGaussianNoised(keys=["image"], prob=1.0) for _ in range(2)]
    for loner in loners:
        loner.set_random_state(state=shared)
    return Compose(
        [
            *augment().transforms,
            OneOf([RandFlipd(["image"], 0.5, 1), RandScaleIntensityd(["image"], 0.3, 0.9)]),
            *loners,
        ]
    )


def test_generators_that_are_seeded_again_give_the_numbers_of_new_ones(shelf, monkeypatch):
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2), transform=chain())
    made, count = np.random.RandomState, []

    def counted(*given):
        count.append(given)
        return made(*given)

    got = dataset.samples(dataset.plan(range(4), 5))
    monkeypatch.setattr(np.random, "RandomState", counted)
    again = dataset.samples(dataset.plan(range(4), 5))
    assert count == []  # making one takes as long as seeding sixty
    monkeypatch.undo()
    for index, (one, other) in enumerate(zip(got, again, strict=True)):
        fresh = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2), transform=chain())
        (want,) = fresh.samples(fresh.plan([index], 5))
        assert torch.equal(one["image"].as_tensor(), want["image"].as_tensor())
        assert torch.equal(other["image"].as_tensor(), want["image"].as_tensor())


def test_a_generator_that_a_user_has_set_since_is_not_seeded(shelf):
    transform = augment()
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2), transform=transform)
    dataset.samples(dataset.plan([0], 0))
    mine = np.random.RandomState(11)
    for step in transform.transforms:
        step.set_random_state(state=mine)
    dataset.samples(dataset.plan([1], 0))
    assert mine.randint(1 << 30) == np.random.RandomState(11).randint(1 << 30)
    mine = transform.R
    transform.set_random_state(seed=4)  # a user's call makes new ones, as ever
    assert transform.R is not mine


def test_what_no_transform_touched_is_not_collated_anew(shelf):
    dataset = VolumeCollectionDataset(
        shelf,
        DatasetConfig("patch", PATCH, 2),
        {i: n for n, i in enumerate(shelf.obs_ids)},
        transform=augment(),
    )
    samples = dataset.samples(dataset.plan(range(4), 5))
    assert set(samples.unchanged()) >= {"obs_id", "patch_start", "idx", "padding", "label"}
    assert not {"image", "affine"} & set(samples.unchanged())
    quick, plain = collate(samples), collate(list(samples))
    assert list(quick) == list(plain)
    for key, value in plain.items():
        assert type(quick[key]) is type(value), key
        if isinstance(value, torch.Tensor):
            assert quick[key].dtype == value.dtype
            assert torch.equal(quick[key], value), key
        elif key == "patch_start":
            assert all(torch.equal(a, b) for a, b in zip(quick[key], value, strict=True))
        else:
            assert quick[key] == value, key
    samples[1] = {**samples[1], "obs_id": "another"}
    assert collate(samples)["obs_id"][1] == "another"


def test_samples_stay_plain_where_monai_is_asked_to_track_no_meta(shelf):
    monai.data.set_track_meta(False)
    try:
        dataset = VolumeCollectionDataset(
            shelf, DatasetConfig("patch", PATCH, 2), transform=augment()
        )
        (sample,) = dataset.samples(dataset.plan([0], 5))
        assert type(sample["image"]) is torch.Tensor
    finally:
        monai.data.set_track_meta(True)


def test_monai_gets_the_affine_of_each_array(pair):
    image, mask = pair
    keys = ["image", "tumour", "image_x2"]
    loader = create_segmentation_dataloader(
        image,
        {"tumour": mask},
        batch_size=2,
        patch_size=(4, 4, 4),
        resolutions=(1, 2),
        num_workers=0,
        transform=FlipD(keys, spatial_axis=0),
    )
    batch = next(iter(loader))
    assert torch.allclose(batch["image"].affine[0], batch["affine"][0])
    assert torch.allclose(batch["image_x2"].affine[0], batch["affine_x2"][0])
    spacing = [torch.linalg.norm(batch[k][0, :3, 0]) for k in ("affine", "affine_x2")]
    assert torch.isclose(spacing[1], 2 * spacing[0])
