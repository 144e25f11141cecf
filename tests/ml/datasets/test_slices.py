"""Slices are of the body: one orientation is delivered, whatever the order of the voxels."""

import numpy as np
import pytest
import torch
from device.test_device_batches import check, equal, source_of
from ml_shelf import store
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.ml import (
    DatasetConfig,
    SegmentationDataset,
    VolumeCollectionDataset,
    create_validation_dataloader,
)
from radiobject.ml.device.gatherers import CudaGatherer, gather_on_processor

SIDE = (9, 8, 7)
BODY = np.arange(np.prod(SIDE), dtype=np.int16).reshape(SIDE)
TARGETS = ("RAS", "LPS", "PSR", "IAL")


def placed(target, body=BODY):
    """The same body, stored with its axes to `target`."""
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = (-4, -7, 5)
    return _stored(body, affine, target)


def _stored(body, affine, target):
    ornt = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(target))
    return apply_orientation(body, ornt), affine @ inv_ornt_aff(ornt, body.shape[:3])


@pytest.fixture
def bodies(tmp_path):
    """One body, stored four ways."""
    arrays, affines = zip(*map(placed, TARGETS), strict=True)
    return store(tmp_path, "CT", arrays, list("abcd"), affines=list(affines))


@pytest.mark.parametrize(("plane", "axis"), [("axial", 2), ("coronal", 1), ("sagittal", 0)])
def test_all_volumes_give_the_same_slices(bodies, plane, axis):
    dataset = VolumeCollectionDataset(
        bodies, DatasetConfig("slice_2d", slice_orientation=plane, dtype=None)
    )
    assert len(dataset) == 4 * SIDE[axis]
    for index in range(len(dataset)):
        sample = dataset[index]
        slice_idx = index % SIDE[axis]
        assert sample["slice_idx"] == slice_idx
        np.testing.assert_array_equal(sample["image"][0], BODY.take(slice_idx, axis))
        start = np.zeros(4)
        start[[axis, 3]] = slice_idx, 1
        np.testing.assert_allclose(
            sample["affine"][:3, 3], (placed("RAS")[1] @ start)[:3], err_msg=str(index)
        )


def test_masks_are_cut_alike_and_a_crop_is_one_of_the_body(bodies, tmp_path):
    masks = [placed(target, (BODY % 3).astype(np.uint8))[0] for target in TARGETS]
    (tmp_path / "m").mkdir()
    seg = store(tmp_path / "m", "seg", masks, list("abcd"), affines=list(bodies.affines()))
    config = DatasetConfig("slice_2d", (4, 10), slice_orientation="axial", pad_value=-1)
    dataset = SegmentationDataset(bodies, seg, config)
    expected = np.full((4, 10), -1)
    expected[:, 1:9] = BODY[3:7, :, 3]
    for volume in range(4):
        sample = dataset[volume * SIDE[2] + 3]
        np.testing.assert_array_equal(sample["image"][0], expected)
        np.testing.assert_array_equal(sample["mask"][0, :, 1:9], BODY[3:7, :, 3] % 3)
    check(dataset, gathered=True, index=[3, 10, 17, 24])


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric", "wrap"])
def test_a_device_delivers_the_same(bodies, mode):
    config = DatasetConfig("slice_2d", (12, 5), slice_orientation="sagittal", pad_mode=mode)
    dataset = VolumeCollectionDataset(bodies, config)
    check(dataset, gathered=True, index=list(range(0, 36, 3)))
    first = dataset[4]["image"]
    for volume in range(1, 4):
        assert torch.equal(dataset[volume * SIDE[0] + 4]["image"], first)


def test_an_array_axis_can_be_asked_for(bodies):
    with pytest.raises(ShapeError, match="heterogeneous"):
        VolumeCollectionDataset(bodies, DatasetConfig("slice_2d", slice_orientation=2))
    turned = bodies.pick([2])
    loader = create_validation_dataloader(turned, num_workers=0, slice_orientation=2, dtype=None)
    stored, affine = placed("PSR")
    batch = next(iter(loader))
    np.testing.assert_array_equal(batch["image"][1, 0], stored[:, :, 1])
    np.testing.assert_allclose(batch["affine"][1][:3, 3], (affine @ [0, 0, 1, 1])[:3])
    for wrong in (3, -1, True):
        with pytest.raises(ConfigurationError, match="slice_orientation"):
            DatasetConfig("slice_2d", slice_orientation=wrong)


def test_what_no_plane_of_the_body_describes_is_reported(tmp_path):
    turn = np.array([[2, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3
    oblique = np.eye(4)
    oblique[:3, :3] = turn
    shelf = store(tmp_path, "MR", [BODY, BODY], ["a", "b"], affines=[np.eye(4), oblique])
    config = DatasetConfig("slice_2d", (8, 8), slice_orientation="coronal")
    with pytest.warns(UserWarning, match=r"1 of 2 volumes .*'b_MR' by 48 degrees.*resample"):
        VolumeCollectionDataset(shelf, config)
    flat = np.diag([1.0, 1.0, 0.0, 1.0])
    broken = store(tmp_path, "PT", [BODY], ["a"], affines=[flat])
    with pytest.raises(ShapeError, match=r"(?s)'a_PT'.*slice_orientation=0, 1 or 2"):
        VolumeCollectionDataset(broken, config)


def test_a_kernel_that_is_right_is_not_doubted_where_axes_run_backwards(bodies):
    """What it had gathered of such a volume was compared beyond the volume: training ended."""
    dataset = VolumeCollectionDataset(bodies, DatasetConfig("slice_2d", slice_orientation="axial"))
    source = source_of(dataset)
    source._gather = CudaGatherer(torch.device("cpu"), gather_on_processor)
    plan = dataset.plan(range(len(dataset)), 0)
    for _ in range(2):
        equal(source.hand_over(source.read(plan)), dataset.read(plan))
        assert source.settle()
    assert source.counted["registered"] == len(dataset)
    assert source._gather.slower is None
