"""Masks of another grid than their image: resampled on request, patch by patch."""

import numpy as np
import pytest
import torch
from ml_shelf import check_patch, coordinates, store
from scipy.ndimage import map_coordinates

from radiobject.exceptions import AlignmentError, ConfigurationError, ShapeError
from radiobject.geometry.orientation import reorient_to_canonical
from radiobject.ml import (
    Foreground,
    PercentForeground,
    SegmentationDataset,
    VolumeCollectionSubjectsDataset,
    create_segmentation_dataloader,
)
from radiobject.ml.distributed import create_distributed_segmentation_dataloader
from radiobject.storage.io.stats import totals

SHAPE, MASK_SHAPE, PATCH = (40, 36, 34), (30, 44, 24), (12, 10, 14)
SUBJECTS = ["sub-00", "sub-01", "sub-02"]
OPTIONS = {"batch_size": 3, "patch_size": PATCH, "num_workers": 0, "patches_per_volume": 6}


def image_affine():
    turned, _ = np.linalg.qr(np.eye(3) + 0.2 * np.random.default_rng(0).normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = turned * [1.0, 1.1, 0.9]
    return matrix


def mask_affines():
    """One oblique and coarser, one flipped and shifted, one that shares the image's grid."""
    oblique = image_affine()
    oblique[:3, :3] = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0] * 1.5
    oblique[:3, 3] = image_affine()[:3] @ [20, 18, 17, 1] - oblique[:3, :3] @ [15, 22, 12]
    flipped = image_affine() @ np.diag([-1, 1, 2, 1.0])
    flipped[:3, 3] = image_affine()[:3] @ [32, 1.25, -3, 1]
    return [oblique, flipped, image_affine()]


def blob(shape):
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(n // 4, 3 * n // 4) for n in shape)] = 1
    mask[tuple(slice(n // 2, n // 2 + 4) for n in shape)] = 7
    return mask


@pytest.fixture(scope="module")
def shapes():
    return [MASK_SHAPE, MASK_SHAPE, SHAPE]


@pytest.fixture(scope="module")
def apart(tmp_path_factory, shapes):
    """Images, and masks of other grids in another order."""
    folder = tmp_path_factory.mktemp("apart")
    image = store(
        folder,
        "CT",
        [coordinates(i, SHAPE) for i in range(3)],
        SUBJECTS,
        affines=[image_affine()] * 3,
    )
    masks = store(
        folder,
        "seg",
        [blob(s) for s in shapes[::-1]],
        SUBJECTS[::-1],
        affines=mask_affines()[::-1],
    )
    return image, masks


@pytest.fixture(scope="module")
def resampled(shapes):
    """The whole masks in their image's grid, by SciPy."""
    index = np.stack([*np.indices(SHAPE), np.ones(SHAPE)]).reshape(4, -1)
    return [
        map_coordinates(
            blob(shape),
            # Half a ten-thousandth up: the tolerance within which a position counts as halfway.
            (np.linalg.solve(stored, image_affine() @ index)[:3] + 1e-4).reshape(3, *SHAPE),
            order=0,
            mode="grid-constant",
        )
        for shape, stored in zip(shapes, mask_affines(), strict=True)
    ]


def test_refused_unless_asked_for(apart):
    with pytest.raises((ShapeError, AlignmentError), match="resample_masks=True"):
        SegmentationDataset(*apart)
    image = apart[0]
    moved = image.pick(range(3))
    moved._affines = moved._affines + np.eye(4) * 0.1
    with pytest.raises(AlignmentError, match=r"mm apart.*resample_masks=True"):
        SegmentationDataset(image, moved)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("foreground", [False, 0.5])
def test_every_patch_is_cut_from_the_resampled_mask(apart, resampled, workers, foreground):
    loader = create_segmentation_dataloader(
        *apart,
        foreground_sampling=foreground,
        resample_masks=True,
        **OPTIONS | {"num_workers": workers},
    )
    seen = 0
    for batch in loader:
        assert batch["mask"].dtype == torch.uint8
        for k, volume in enumerate(batch["idx"].tolist()):
            start = [int(axis[k]) for axis in batch["patch_start"]]
            check_patch(batch["image"][k], volume, start)
            cut = tuple(slice(a, a + n) for a, n in zip(start, PATCH, strict=True))
            assert np.array_equal(batch["mask"][k, 0].numpy(), resampled[volume][cut])
            seen += 1
    assert seen == 18


def test_whole_volumes_and_slices(apart, resampled):
    dataset = SegmentationDataset(*apart, resample_masks=True)
    for row in range(3):
        sample = dataset[row]
        assert sample["mask"].shape == sample["image"].shape == (1, *SHAPE)
        assert np.array_equal(sample["mask"][0].numpy(), resampled[row])
    slices = create_segmentation_dataloader(
        *apart, batch_size=4, num_workers=0, slice_orientation="coronal", resample_masks=True
    )
    for batch in slices:
        for k, (row, y) in enumerate(zip(batch["idx"], batch["slice_idx"], strict=True)):
            seen, _ = reorient_to_canonical(resampled[row], image_affine())
            assert np.array_equal(batch["mask"][k, 0].numpy(), seen[:, y])


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_image_and_mask_are_padded_alike(apart, resampled, mode):
    loader = create_segmentation_dataloader(
        *apart,
        batch_size=3,
        patch_size=(46, 30, 40),
        num_workers=0,
        pad_mode=mode,
        mask_pad_value=9,
        resample_masks=True,
    )
    (batch,) = loader
    for k, row in enumerate(batch["idx"].tolist()):
        widths = batch["padding"][k].tolist()
        first = int(batch["patch_start"][1][k])
        more = {"constant_values": 9} if mode == "constant" else {}
        want = np.pad(resampled[row][:, first : first + 30], widths, mode=mode, **more)
        assert np.array_equal(batch["mask"][k, 0].numpy(), want)


@pytest.mark.parametrize(
    ("rule", "least"),
    [(Foreground(1.0), 0.99), (Foreground(1.0, class_weights={7: 1}), 0.99)],
)
def test_foreground_is_still_found(apart, rule, least):
    loader = create_segmentation_dataloader(
        *apart,
        foreground_sampling=rule,
        resample_masks=True,
        **OPTIONS | {"patches_per_volume": 60},
    )
    wanted = [1, 7] if rule.class_weights is None else [7]
    held = [np.isin(mask.numpy(), wanted).any() for batch in loader for mask in batch["mask"]]
    assert np.mean(held) >= least


def test_classes_are_seen_alike_and_shares_are_met(apart):
    few = OPTIONS | {"patches_per_volume": 80, "patch_size": (4, 4, 4)}
    loader = create_segmentation_dataloader(
        *apart, foreground_sampling=PercentForeground(0.6), resample_masks=True, **few
    )
    shares = [(m > 0).float().mean() for b in loader for m in b["mask"]]
    assert np.mean(np.array(shares) >= 0.5) > 0.9
    loader = create_segmentation_dataloader(
        *apart, foreground_sampling=1.0, resample_masks=True, **few
    )
    has = [[bool((m == v).any()) for v in (1, 7)] for b in loader for m in b["mask"]]
    assert np.mean(has, axis=0).min() > 0.45


def test_only_the_voxels_of_the_patch_are_read(tmp_path):
    """A mask of half the spacing: a patch of 8 needs 15 of its voxels a side, in eight tiles."""
    image = store(tmp_path, "CT", [np.zeros((64, 64, 64), np.int16)], ["s"], affines=[np.eye(4)])
    fine = np.random.default_rng(0).integers(1, 5, (128, 128, 128)).astype(np.uint8)
    mask = store(tmp_path, "seg", [fine], ["s"], affines=[np.diag([0.5, 0.5, 0.5, 1])])
    dataset = SegmentationDataset(
        image,
        mask,
        create_segmentation_dataloader(
            image, mask, 1, (8, 8, 8), num_workers=0, resample_masks=True
        ).dataset.config,
        resample_masks=True,
    )
    before = totals()
    sample = dataset[0]
    assert totals().bytes_decoded - before.bytes_decoded <= (1 + 2) * 8 * 32**3
    start = np.array(sample["patch_start"])
    index = [np.arange(2 * a, 2 * a + 16, 2) for a in start]
    assert np.array_equal(sample["mask"][0].numpy(), fine[np.ix_(*index)])


def test_a_mask_elsewhere_is_background(tmp_path):
    image = store(tmp_path, "CT", [np.ones((8, 8, 8), np.int16)], ["s"], affines=[np.eye(4)])
    far = np.eye(4)
    far[:3, 3] = 1000
    mask = store(tmp_path, "seg", [np.ones((8, 8, 8), np.uint8)], ["s"], affines=[far])
    loader = create_segmentation_dataloader(
        image, mask, 1, (4, 4, 4), num_workers=0, foreground_sampling=True, resample_masks=True
    )
    assert not next(iter(loader))["mask"].any()
    broken = store(tmp_path, "b", [np.ones((8, 8, 8), np.uint8)], ["s"], affines=[np.zeros((4, 4))])
    with pytest.raises(AlignmentError, match=r"s_b.*s_CT.*no inverse"):
        SegmentationDataset(image, broken, resample_masks=True)


def test_a_state_knows_how_its_masks_were_seen(apart):
    image, mask = apart
    loader = create_segmentation_dataloader(image, mask, resample_masks=True, **OPTIONS)
    other = mask.pick(range(3))
    other._affines = other._affines @ np.diag([1, 1, 1.01, 1])
    with pytest.raises(ConfigurationError, match="another data set"):
        create_segmentation_dataloader(
            image, other, resample_masks=True, **OPTIONS
        ).load_state_dict(loader.state_dict())


def test_ranks(apart):
    seen = [
        (int(i), int(p))
        for rank in range(2)
        for batch in create_distributed_segmentation_dataloader(
            *apart, rank, 2, resample_masks=True, **OPTIONS
        )
        for i, p in zip(batch["idx"], batch["patch_idx"], strict=True)
    ]
    assert len(seen) == len(set(seen)) == 18


def test_torchio_subjects(apart, resampled):
    tio = pytest.importorskip("torchio")
    image, mask = apart
    subjects = VolumeCollectionSubjectsDataset(
        {"CT": image, "seg": mask}, masks=["seg"], resample_masks=True
    )
    for row, subject in enumerate(subjects):
        assert isinstance(subject["seg"], tio.LabelMap)
        assert np.allclose(subject["seg"].affine, image_affine())
        assert np.array_equal(subject["seg"].data[0].numpy(), resampled[row])
        subject.check_consistent_space()


@pytest.mark.s3
def test_from_an_object_store(s3_bucket, tmp_path, resampled, shapes):
    image, masks = (
        store(
            tmp_path,
            name,
            arrays,
            SUBJECTS,
            root=f"s3://{s3_bucket}",
            affines=affines,
        )
        for name, arrays, affines in (
            ("CT", [coordinates(i, SHAPE) for i in range(3)], [image_affine()] * 3),
            ("seg", [blob(s) for s in shapes], mask_affines()),
        )
    )
    loader = create_segmentation_dataloader(image, masks, resample_masks=True, **OPTIONS)
    for batch in loader:
        for k, volume in enumerate(batch["idx"].tolist()):
            cut = tuple(
                slice(int(a[k]), int(a[k]) + n)
                for a, n in zip(batch["patch_start"], PATCH, strict=True)
            )
            assert np.array_equal(batch["mask"][k, 0].numpy(), resampled[volume][cut])
