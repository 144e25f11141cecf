import numpy as np
import pytest
import torch
from ml_shelf import affine_of, check_patch, coordinates, make_mask, make_shelf, store

from radiobject.exceptions import AlignmentError, ConfigurationError, SchemaError, ShapeError
from radiobject.ml import (
    DatasetConfig,
    Foreground,
    PercentForeground,
    SegmentationDataset,
    create_segmentation_dataloader,
)
from radiobject.storage.io.stats import totals
from radiobject.storage.schema.label_index import label_index_uri

PATCH = (10, 10, 10)


def test_image_and_mask_are_cut_alike_and_pair_by_subject(pair):
    image, mask = pair
    loader = create_segmentation_dataloader(
        image, mask, batch_size=4, patch_size=PATCH, num_workers=0, patches_per_volume=5
    )
    for batch in loader:
        assert batch["image"].dtype == torch.float32
        assert batch["mask"].dtype == torch.uint8
        for k, volume in enumerate(batch["idx"].tolist()):
            start = [int(axis[k]) for axis in batch["patch_start"]]
            check_patch(batch["image"][k], volume, start)
            cut = tuple(slice(a, a + 10) for a in start)
            want = make_mask(volume, (40, 36, 34))[cut]
            assert np.array_equal(batch["mask"][k, 0].numpy(), want)


def test_sample_keys(pair):
    dataset = SegmentationDataset(*pair)
    sample = dataset[2]
    assert {"image", "mask", "idx", "obs_id", "obs_subject_id"} <= set(sample)
    assert sample["image"].shape == sample["mask"].shape == (1, 40, 36, 34)
    assert dataset.volume_shape == (40, 36, 34)
    assert dataset.n_volumes == 4


def test_foreground_reads_no_mask_once_indexed(pair):
    image, mask = pair
    options = {"batch_size": 4, "patch_size": PATCH, "num_workers": 0, "patches_per_volume": 25}
    loader = create_segmentation_dataloader(image, mask, foreground_sampling=True, **options)
    assert all((b["mask"] > 0).flatten(1).any(1).all() for b in loader)
    before = totals().patches
    create_segmentation_dataloader(image, mask, foreground_sampling=1 / 3, **options)
    assert totals().patches == before
    import tiledb

    assert tiledb.object_type(label_index_uri(mask.uri)) == "array"


def test_placement_rules(pair):
    options = {"batch_size": 4, "patch_size": PATCH, "num_workers": 0, "patches_per_volume": 50}
    rule = Foreground(ratio=1.0, class_weights={2: 1.0})
    loader = create_segmentation_dataloader(*pair, foreground_sampling=rule, **options)
    has_two = {0: [], 1: []}
    for batch in loader:
        for volume, mask in zip(batch["idx"].tolist(), batch["mask"], strict=True):
            has_two[int(volume > 0)].append(bool((mask == 2).any()))
    assert all(has_two[1])
    assert not any(has_two[0])
    percent = PercentForeground(0.02)
    shares = [
        (mask > 0).float().mean()
        for batch in create_segmentation_dataloader(*pair, foreground_sampling=percent, **options)
        for mask in batch["mask"]
    ]
    assert np.mean(np.array(shares) >= 0.02) > 0.9


def test_a_volume_smaller_than_the_patch_is_padded_alike(pair):
    loader = create_segmentation_dataloader(
        *pair, batch_size=2, patch_size=(44, 36, 40), num_workers=0, pad_value=-5, mask_pad_value=9
    )
    batch = next(iter(loader))
    outside = batch["mask"] == 9
    assert outside.any()
    assert ((batch["image"] == -5) == outside).all()


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap"])
def test_every_mode_pads_image_and_mask_alike(pair, mode):
    dataset = SegmentationDataset(
        *pair, DatasetConfig(loading_mode="patch", patch_size=(44, 36, 40), pad_mode=mode)
    )
    sample = dataset[1]
    widths = sample["padding"].tolist()
    assert np.any(widths)
    want = np.pad(make_mask(1, (40, 36, 34)), widths, mode=mode)
    assert np.array_equal(sample["mask"][0].numpy(), want)
    want = np.pad(coordinates(1, (40, 36, 34)), widths, mode=mode)
    assert np.array_equal(sample["image"][0].numpy(), want)


def test_several_channels_and_a_mask(pair):
    image, mask = pair
    loader = create_segmentation_dataloader(
        {"T1": image, "T2": image.pick([3, 1, 0, 2])},
        mask,
        batch_size=4,
        patch_size=PATCH,
        num_workers=0,
    )
    (batch,) = loader
    assert batch["image"].shape == (4, 2, *PATCH)
    assert batch["mask"].shape == (4, 1, *PATCH)
    assert torch.equal(batch["image"][:, 0], batch["image"][:, 1])


def test_slices_of_image_and_mask(pair):
    loader = create_segmentation_dataloader(
        *pair, batch_size=4, num_workers=0, slice_orientation="sagittal"
    )
    assert len(loader.dataset) == 4 * 40
    batch = next(iter(loader))
    assert batch["image"].shape == batch["mask"].shape == (4, 1, 36, 34)
    for k, (volume, x) in enumerate(zip(batch["idx"], batch["slice_idx"], strict=True)):
        want = make_mask(int(volume), (40, 36, 34))[x]
        assert np.array_equal(batch["mask"][k, 0].numpy(), want)


def test_scans_pair_by_what_follows_the_collections_name(tmp_path):
    image = make_shelf(tmp_path, [(12, 12, 12)] * 3)
    mask = store(tmp_path, "seg", [make_mask(i, (12, 12, 12)) for i in (0, 1, 2)], list("xyz"))
    rename(image, ["s_CT", "s_CT_acq-1", "t_CT"], ["s", "s", "t"])
    rename(mask, ["s_seg_acq-1", "t_seg", "s_seg"], ["s", "t", "s"])
    mask._affines = np.array([affine_of(1), affine_of(2), affine_of(0)])
    dataset = SegmentationDataset(image, mask)
    assert dataset.fields[1].channels[0].obs_ids == ["s_seg", "s_seg_acq-1", "t_seg"]
    rename(mask, ["first", "t_seg", "second"], ["s", "t", "s"])
    with pytest.raises(AlignmentError, match="cannot be paired"):
        SegmentationDataset(image, mask)


def test_a_repeated_volume_keeps_its_partner(pair):
    image, mask = pair
    twice = image.pick([0, 0, 1])
    ids = ["sub-00_seg", "sub-00_seg", "sub-01_seg"]
    for masks in (mask.pick([3, 2]), mask.pick([2, 3, 3]), mask.pick([2, 2, 3])):
        dataset = SegmentationDataset(twice, masks)
        assert dataset.fields[1].channels[0].obs_ids == ids
    loader = create_segmentation_dataloader(
        twice,
        mask.pick([3, 2]),
        batch_size=3,
        patch_size=PATCH,
        num_workers=0,
        foreground_sampling=True,
    )
    (batch,) = loader
    assert sorted(batch["obs_id"]) == ["sub-00_CT", "sub-00_CT", "sub-01_CT"]
    starts = torch.stack(batch["patch_start"], 1)
    assert len({tuple(s.tolist()) for s in starts}) == 3
    for k, volume in enumerate(batch["obs_subject_id"]):
        cut = tuple(slice(a, a + 10) for a in starts[k].tolist())
        want = make_mask(int(volume[-2:]), (40, 36, 34))[cut]
        assert np.array_equal(batch["mask"][k, 0].numpy(), want)
    with pytest.raises(AlignmentError, match="has 3 volumes, expected 2"):
        SegmentationDataset(twice, mask.pick([3, 2, 1]))


def rename(shelf, ids, subjects):
    from dataclasses import replace

    shelf._locators = [replace(loc, obs_id=i) for loc, i in zip(shelf._locators, ids, strict=True)]
    shelf.subject_ids = subjects


def test_what_does_not_belong_together_is_refused(pair, tmp_path):
    image, mask = pair
    with pytest.raises(AlignmentError, match="has 3 volumes, expected 4"):
        SegmentationDataset(image, mask.pick([0, 1, 2]))
    with pytest.raises(AlignmentError, match="Subject mismatch"):
        SegmentationDataset(image.pick([0, 1]), mask.pick([0, 1]))
    moved = mask.pick(range(4))
    moved._affines = moved._affines + np.eye(4) * 0.01
    with pytest.raises(AlignmentError, match="mm apart"):
        SegmentationDataset(image, moved)
    assert len(SegmentationDataset(image, moved, check_geometry=False)) == 4
    other = store(tmp_path, "other", [np.ones((8, 8, 8), np.uint8)] * 4, image.subject_ids)
    with pytest.raises(ShapeError, match="Shape mismatch"):
        SegmentationDataset(image, other)


def test_foreground_needs_patches_and_labels(pair):
    image, mask = pair
    with pytest.raises(ConfigurationError, match="patch_size"):
        SegmentationDataset(image, mask, foreground_sampling=True)
    config = DatasetConfig(loading_mode="patch", patch_size=PATCH)
    with pytest.raises(SchemaError, match=r"'sub-00_CT'|classes"):
        SegmentationDataset(mask, image, config, foreground_sampling=True)
    for rule in (Foreground(1.0, class_weights={9: 1}), PercentForeground(0.1, classes=[8, 9])):
        with pytest.raises(ConfigurationError, match=r"no mask has .*9.*there are \[1, 2\]"):
            SegmentationDataset(image, mask, config, foreground_sampling=rule)
    with pytest.raises(ConfigurationError, match="mask_pad_value -1 is not a value of uint8"):
        SegmentationDataset(image, mask, DatasetConfig(mask_pad_value=-1))
    with pytest.raises(ConfigurationError, match="ratio"):
        SegmentationDataset(image, mask, config, foreground_sampling=2.0)


def test_a_loader_across_splits_is_refused(pair):
    image, mask = pair
    parts = {"sub-00": "train", "sub-01": "train", "sub-02": "val", "sub-03": "train"}
    image = image.pick(range(4))
    image._splits = parts
    with pytest.raises(AlignmentError, match="several parts of the split"):
        SegmentationDataset(image, mask)
    assert len(SegmentationDataset(image, mask, across_splits=True)) == 4
    assert len(SegmentationDataset(image.pick([0, 1]), mask.pick([2, 3]))) == 2
