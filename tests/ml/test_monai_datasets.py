"""MONAI's data sets around ours: voxels with their affine, and no patch that is frozen unsaid."""

import numpy as np
import pytest
import torch
from ml_shelf import affine_of, check_patch

from radiobject.ml import VolumeCollectionDataset, VolumeLoader
from radiobject.ml.config import DatasetConfig

monai = pytest.importorskip("monai")
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*is not a subclass of .Sequence"
)

from monai import data  # noqa: E402
from monai.transforms import (  # noqa: E402
    Compose,
    EnsureTyped,
    RandGaussianNoised,
    RandSpatialCropd,
    RandSpatialCropSamplesd,
)

PATCH = (8, 8, 8)
PATCHES = DatasetConfig("patch", PATCH, 2, seed=4)


@pytest.fixture
def volumes(shelf):
    return VolumeCollectionDataset(shelf.pick([2, 3, 5]))


def place(sample, rows=(2, 3, 5)):
    """Return volume and first voxel of a patch by its affine, and check its voxels."""
    number = rows[int(sample["idx"])]
    assert sample["obs_id"] == f"sub-0{number}_CT"
    origin = np.asarray(sample["image"].affine)[:, 3]
    start = np.rint(np.linalg.solve(affine_of(number), origin)).astype(int)[:3]
    check_patch(sample["image"], number, start)
    return number, *start.tolist()


def made(kind, source, folder, steps):
    if kind is data.PersistentDataset:
        by_id = {"hash_func": lambda sample: sample["obs_id"].encode()}
        return kind(source, steps, folder, **by_id, track_meta=True, weights_only=False)
    if kind is data.SmartCacheDataset:
        return kind(source, steps, replace_rate=0.5, cache_num=2, shuffle=False, progress=False)
    return kind(source, steps, num_workers=2, progress=False)


KINDS = (data.CacheDataset, data.SmartCacheDataset, data.PersistentDataset)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_keeps_samples_crops_whole_volumes_anew(volumes, tmp_path, kind):
    steps = Compose([EnsureTyped("image"), RandSpatialCropd("image", PATCH, random_size=False)])
    steps.set_random_state(3)
    theirs = made(kind, volumes, tmp_path, steps)
    found = [place(theirs[k]) for _ in range(3) for k in range(len(theirs))]
    assert len(set(found)) == len(found)
    if kind is data.PersistentDataset:
        assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_keeps_drawn_patches_is_warned_of(shelf, tmp_path, kind):
    """Of each sample one patch was delivered for ever, and nothing was said."""
    patches = VolumeCollectionDataset(shelf, PATCHES)
    with pytest.warns(UserWarning, match=f"MONAI's {kind.__name__} keeps the samples.*one patch"):
        made(kind, patches, tmp_path, EnsureTyped("image"))[0]
    assert not torch.equal(*(data.Dataset(patches)[0]["image"] for _ in range(2)))


def test_what_would_find_no_volume_again_is_warned_of(volumes, tmp_path):
    """Each pass made a file for each volume: PyTorch pickles equal tensors differently."""
    with pytest.warns(UserWarning, match=r"digest of its pickle.*hash_func=lambda sample"):
        data.PersistentDataset(volumes, EnsureTyped("image"), cache_dir=tmp_path)[0]


def test_patches_of_a_grid_and_by_chance(volumes):
    grid = data.GridPatchDataset(volumes, data.PatchIterd(["image"], (20, 18, 17)))
    found = []
    for patch, where in data.DataLoader(grid, batch_size=1, num_workers=2):
        number = (2, 3, 5)[int(patch["idx"])]
        start = where[0, 1:, 0].tolist()
        assert patch["obs_id"] == [f"sub-0{number}_CT"]
        check_patch(patch["image"][0], number, start)
        found.append((number, *start))
    assert len(found) == len(set(found)) == 3 * 8
    crops = RandSpatialCropSamplesd("image", PATCH, num_samples=4, random_size=False)
    crops.set_random_state(1)
    chosen = data.PatchDataset(volumes, crops, samples_per_image=4)
    found = [place(sample) for _ in range(2) for sample in chosen]
    assert len(found) == 24
    assert len(set(found)) > 20


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2, "persistent_workers": True}])
def test_its_loader_seeds_what_it_finds_in_ours(shelf, workers):
    """It walks all attributes of a data set for what draws, in each worker."""
    noise = RandGaussianNoised(["image"], prob=1.0, std=1.0)
    patches = VolumeCollectionDataset(shelf, PATCHES, transform=noise)
    loader = data.DataLoader(patches, batch_size=4, **workers)
    ours = VolumeLoader(VolumeCollectionDataset(shelf, PATCHES, transform=noise), batch_size=4)
    for _ in range(2):
        for got, want in zip(loader, ours, strict=True):
            assert torch.equal(got["image"].as_tensor(), want["image"].as_tensor())
            assert torch.equal(got["affine"], want["affine"])


def test_its_threads_in_place_of_workers(shelf):
    """They share the data set and every generator of the process.

    Their own start would seed what they share, too, at a moment that nobody knows: left out here.
    """
    noise = Compose([RandGaussianNoised(["image"], prob=1.0, std=9.0) for _ in range(3)])
    patches = VolumeCollectionDataset(shelf, PATCHES, transform=noise)
    loader = data.ThreadDataLoader(
        patches,
        batch_size=2,
        num_workers=2,
        use_thread_workers=True,
        buffer_size=2,
        worker_init_fn=int,
    )
    ours = VolumeLoader(VolumeCollectionDataset(shelf, PATCHES, transform=noise), batch_size=2)
    for _ in range(2):
        got = {p: b["image"][k].as_tensor() for b in loader for k, p in enumerate(names(b))}
        want = {p: b["image"][k].as_tensor() for b in ours for k, p in enumerate(names(b))}
        assert got.keys() == want.keys()
        assert all(torch.equal(got[key], want[key]) for key in want)


def names(batch):
    return list(zip(batch["idx"].tolist(), batch["patch_idx"].tolist(), strict=True))
