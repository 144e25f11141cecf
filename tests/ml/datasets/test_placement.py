"""Where samples lie: at positions, around labels, in each batch, in patches and in slices."""

import numpy as np
import pytest
import torch
from ml_shelf import affine_of, check_patch, coordinates, make_mask, store
from torch.utils.data import DataLoader, RandomSampler

from radiobject.exceptions import BoundsError, ConfigurationError
from radiobject.ml import (
    At,
    DatasetConfig,
    EpochSampler,
    Foreground,
    PercentForeground,
    SegmentationDataset,
    VolumeCollectionDataset,
    VolumeLoader,
    Weighted,
    create_segmentation_dataloader,
    create_training_dataloader,
    create_validation_dataloader,
)
from radiobject.ml.distributed import create_distributed_segmentation_dataloader

SIZE = (40, 36, 34)
LESIONS = {
    "sub-00_CT": [(9, 9, 9), (20, 18, 30), (1, 2, 33)],
    "sub-02_CT": [((10, 10, 10), (14, 13, 12))],
    "of another set": [(0, 0, 0)],
}


def starts(batch):
    rows = torch.stack(batch["patch_start"], 1).tolist()
    return [(i, tuple(s)) for i, s in zip(batch["obs_id"], rows, strict=True)]


def test_each_position_once_in_an_epoch(shelf):
    loader = create_validation_dataloader(
        shelf, batch_size=2, patch_size=(6, 6, 6), num_workers=0, placement=At(LESIONS, each=True)
    )
    found = [s for batch in loader for s in starts(batch)]
    assert found[:3] == [("sub-00_CT", s) for s in ((6, 6, 6), (17, 15, 27), (0, 0, 28))]
    assert [i for i, _ in found[3:]] == ["sub-02_CT"]
    assert all(a <= low and high <= a + 6 for a, low, high in
               zip(found[3][1], (10, 10, 10), (14, 13, 12), strict=True))  # fmt: skip


def test_positions_one_after_the_other_from_epoch_to_epoch(shelf):
    options = {"batch_size": 2, "patch_size": (6, 6, 6), "placement": At(LESIONS)}
    loader = create_training_dataloader(shelf, num_workers=0, **options)
    seen = [dict(s for batch in loader for s in starts(batch)) for _ in range(3)]
    assert {s["sub-00_CT"] for s in seen} == {(6, 6, 6), (17, 15, 27), (0, 0, 28)}
    assert len({s["sub-01_CT"] for s in seen}) == 3  # none there: anywhere
    workers = create_training_dataloader(shelf, num_workers=2, **options)
    assert [dict(s for batch in workers for s in starts(batch)) for _ in range(3)] == seen


def test_the_same_places_in_millimetres(shelf):
    matrices = dict(zip(shelf.obs_ids, shelf.affines(), strict=True))
    ras = {
        key: [
            (matrices[key] @ [*p, 1])[:3] if np.ndim(p) == 1
            else [(matrices[key] @ [*(np.array(corner) - 0.5), 1])[:3] for corner in p]
            for p in found
        ]
        for key, found in LESIONS.items() if key in matrices
    }  # fmt: skip
    passes = []
    for rule in (At(LESIONS), At(ras, space="ras")):
        config = DatasetConfig("patch", (6, 5, 7), 3, placement=rule)
        dataset = VolumeCollectionDataset(shelf, config)
        batch = dataset.read(dataset.plan(range(len(dataset)), 1))
        for k, row in enumerate(batch["idx"].tolist()):
            check_patch(batch["image"][k], row, [int(a[k]) for a in batch["patch_start"]])
        passes.append(starts(batch))
    assert passes[0] == passes[1]


def test_positions_that_cannot_be(shelf):
    def make(positions, **more):
        return create_training_dataloader(
            shelf, num_workers=0, placement=At(positions, **more), patch_size=(6, 6, 6)
        )

    with pytest.raises(BoundsError, match=r"outside volume 'sub-00_CT'.*is `space` right"):
        make({"sub-00_CT": [(40, 0, 0)]})
    with pytest.raises(ConfigurationError, match="keys are volume ids, got 'sub-00'"):
        make({"sub-00": [(4, 0, 0)]})
    with pytest.raises(ConfigurationError, match="names no position"):
        make({"sub-00_CT": []}, each=True)
    with pytest.raises(ConfigurationError, match="give patch_size or"):
        create_training_dataloader(shelf, num_workers=0, placement=At(LESIONS))
    with pytest.raises(ConfigurationError, match="needs a mask"):
        create_training_dataloader(
            shelf, num_workers=0, placement=Foreground(), patch_size=(6, 6, 6)
        )


def test_volumes_with_time_are_placed_in_space(tmp_path):
    shelf = store(tmp_path, "CT", [coordinates(0, (20, 18, 16, 5))], ["sub-00"])
    config = DatasetConfig("patch", (4, 4, 4, 2), 40, placement=At({"sub-00_CT": [(9, 9, 9)]}))
    dataset = VolumeCollectionDataset(shelf, config)
    plan = dataset.plan(range(40), 0)
    assert plan.start[:, :3].tolist() == [[7, 7, 7]] * 40
    assert set(plan.start[:, 3].tolist()) == set(range(4))


@pytest.mark.parametrize("rule", [Foreground(1.0, centred=True), Foreground(1.0, classes=[2])])
def test_centred_and_by_class(pair, rule):
    image, mask = pair
    dataset = SegmentationDataset(image, mask, DatasetConfig("patch", (8, 7, 6), 30), None, rule)
    for row in range(1, 4):
        plan = dataset.plan(range(30 * row, 30 * row + 30), 2)
        batch = dataset.read(plan)
        whole = make_mask(row, SIZE)
        for start, found in zip(plan.start.tolist(), batch["mask"], strict=True):
            if rule.centred:
                centre = whole[tuple(a + s // 2 for a, s in zip(start, (8, 7, 6), strict=True))]
                inside = all(0 < a < n - s for a, s, n in zip(start, (8, 7, 6), SIZE, strict=True))
                assert centre > 0 or not inside
            else:
                assert (found == 2).any()
    with pytest.raises(ConfigurationError, match=r"classes \[7\]; there are \[1, 2\]"):
        SegmentationDataset(image, mask, dataset.config.__class__("patch", (8, 8, 8)), None,
                            Foreground(classes=[7]))  # fmt: skip
    with pytest.raises(ConfigurationError, match="list of label values or names"):
        Foreground(classes="tumour")


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Eight images, and masks of which every second is empty."""
    folder = tmp_path_factory.mktemp("half")
    subjects = [f"sub-{i:02d}" for i in range(8)]
    ct = [coordinates(i, (20, 18, 16)) for i in range(8)]
    seg = [make_mask(0, (20, 18, 16)) * (i % 2) for i in range(8)]
    affines = [affine_of(i) for i in range(8)]
    return [
        store(folder, name, arrays, subjects, affines=affines)
        for name, arrays in (("CT", ct), ("seg", seg))
    ]


RULE = Foreground(1 / 3, per_batch=True, centred=True)


@pytest.mark.parametrize(("size", "needed"), [(2, 1), (3, 1), (4, 2), (6, 2)])
@pytest.mark.parametrize("workers", [0, 1])
def test_every_batch_holds_its_share_of_foreground(half, size, needed, workers):
    options = {"patch_size": (3, 3, 3), "patches_per_volume": 3, "foreground_sampling": RULE}
    for world in (1, 2):
        receipts = []
        for rank in range(world):
            loader = create_distributed_segmentation_dataloader(
                *half, rank, world, batch_size=size, num_workers=workers, receipt=True, **options
            )
            for batch in loader:
                can = sum(int(i[-2:]) % 2 for i in batch["obs_subject_id"])
                held = int((batch["mask"] > 0).flatten(1).any(1).sum())
                assert held >= min(needed, can)
            receipts.append(loader.receipt())
        assert len(set(receipts)) == world
    # chance alone does not do it: the patch is small, and the foreground too
    chance = create_segmentation_dataloader(
        *half, batch_size=size, num_workers=0, patch_size=(3, 3, 3), patches_per_volume=3
    )
    held = [int((batch["mask"] > 0).flatten(1).any(1).sum()) for batch in chance]
    assert min(held) == 0


def test_a_guaranteed_sample_is_the_same_in_every_loader(half):
    def make():
        config = DatasetConfig("patch", (5, 5, 5), 2, placement=RULE, seed=4)
        return SegmentationDataset(*half, config)

    dataset = make()
    loader = VolumeLoader(dataset, EpochSampler(dataset), batch_size=4)
    want = [batch for _ in range(2) for batch in loader]
    plain = make()
    other = DataLoader(
        plain, batch_size=4, sampler=EpochSampler(plain, batch_size=4), num_workers=1
    )
    found = [batch for _ in range(2) for batch in other]
    assert len(found) == len(want) == 8
    for a, b in zip(found, want, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["mask"], b["mask"])
    resumed = VolumeLoader(make(), EpochSampler(make()), batch_size=4)
    resumed = make()
    resumed = VolumeLoader(resumed, EpochSampler(resumed), batch_size=4, num_workers=1)
    for number, _ in enumerate(loader):
        if number == 1:
            break
    resumed.load_state_dict(loader.state_dict())
    straight = make()
    straight = VolumeLoader(straight, EpochSampler(straight), batch_size=4)
    straight.set_epoch(2)
    rest = [batch["image"] for batch in resumed]
    assert all(torch.equal(a, b["image"]) for a, b in zip(rest, list(straight)[2:], strict=True))
    with pytest.raises(ConfigurationError, match="needs the batch size"):
        next(iter(EpochSampler(plain)))


@pytest.mark.parametrize("kind", [DataLoader, VolumeLoader])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_guarantee_holds_with_a_sampler_of_somebody_else(half, kind, workers):
    def make():
        config = DatasetConfig("patch", (3, 3, 3), 3, placement=RULE, seed=4)
        return SegmentationDataset(*half, config)

    def batches():
        dataset = make()
        sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(3))
        loader = kind(dataset, sampler=sampler, batch_size=6, num_workers=workers)
        return [batch for _ in range(3) for batch in loader]

    found = batches()
    assert len(found) == 12
    for batch in found:
        can = sum(int(i[-2:]) % 2 for i in batch["obs_subject_id"])
        assert int((batch["mask"] > 0).flatten(1).any(1).sum()) >= min(2, can)
    assert all(torch.equal(a["mask"], b["mask"]) for a, b in zip(found, batches(), strict=True))


def test_where_samples_are_asked_for_one_by_one_it_says_that_nothing_is_guaranteed(half):
    config = DatasetConfig("patch", (3, 3, 3), 3, placement=RULE)
    dataset = SegmentationDataset(*half, config)
    with pytest.warns(UserWarning, match="can guarantee nothing"):
        dataset[0]
    dataset[1]  # once is enough: warnings are errors here
    sampler = EpochSampler(dataset, batch_size=4)
    dataset[next(iter(sampler))]  # an index that says what it is


@pytest.mark.parametrize("orientation", ["axial", "sagittal", 1])
@pytest.mark.parametrize("turned", [False, True])
def test_slices_through_foreground(tmp_path, orientation, turned):
    psr = np.array([[0, 0, 2, 0], [-1, 0, 0, 9], [0, 3, 0, -4], [0, 0, 0, 1.0]])
    affines = [psr if turned else affine_of(0)] * 2
    shape = (20, 18, 16)
    ct = store(tmp_path, "CT", [coordinates(i, shape) for i in range(2)], "ab", affines=affines)
    lesion = np.zeros(shape, np.uint8)
    lesion[4, 11:13, 13] = 1
    lesion[15, 2, 1] = 2
    seg = store(tmp_path, "seg", [lesion, lesion * 0], "ab", affines=affines)
    options = {"batch_size": 1, "num_workers": 0, "slice_orientation": orientation}
    for rule in (Foreground(1.0), Weighted({1: 1, 2: 1}), Foreground(1.0, classes=[2])):
        for crop in (None, (6, 5)):
            seen = set()
            for device in (None, "cpu"):
                loader = create_segmentation_dataloader(
                    ct, seg, patch_size=crop, foreground_sampling=rule, device=device, **options
                )
                for batch in loader:
                    there = batch["mask"].unique().tolist()
                    if batch["obs_subject_id"] == ["b"]:
                        seen.add(int(batch["slice_idx"]))
                        continue
                    assert (2 in there) if getattr(rule, "classes", None) else max(there) > 0
                    where = batch["affine"][0].numpy()
                    lit = np.argwhere(batch["mask"][0, 0].numpy() > 0)
                    axis = {"axial": 2, "sagittal": 0}.get(orientation, orientation)
                    full = [np.insert(p, axis, 0) for p in lit]
                    stored = [np.linalg.solve(affines[0], where @ [*p, 1])[:3] for p in full]
                    assert all(lesion[tuple(np.rint(p).astype(int))] > 0 for p in stored)
            assert len(seen) == len(loader.dataset) // 2  # every slice of the other
    with pytest.raises(ConfigurationError, match="PercentForeground places patches"):
        create_segmentation_dataloader(ct, seg, foreground_sampling=PercentForeground(), **options)


@pytest.mark.parametrize("turned", [False, True])
def test_slices_through_positions(tmp_path, turned):
    psr = np.array([[0, 0, 2, 0], [-1, 0, 0, 9], [0, 3, 0, -4], [0, 0, 0, 1.0]])
    affine = psr if turned else affine_of(0)
    shape = (20, 18, 16)
    ct = store(tmp_path, "CT", [coordinates(0, shape)], "a", affines=[affine])
    points = [(3, 12, 9), (17, 2, 14)]
    for space in ("index", "ras"):
        given = [p if space == "index" else (affine @ [*p, 1])[:3] for p in points]
        loader = create_validation_dataloader(
            ct, batch_size=1, num_workers=0, slice_orientation="coronal", patch_size=(1, 1),
            placement=At({"a_CT": given}, space=space, each=True), neighbours=1,
        )  # fmt: skip
        values = [int(batch["image"][0, 1, 0, 0]) for batch in loader]
        assert values == [int(coordinates(0, shape)[p]) for p in points]
    box = ((8, 11, 3), (10, 14, 5))
    config = DatasetConfig("slice_2d", (6, 6), slice_orientation="axial", placement=At(
        {"a_CT": [box]}))  # fmt: skip
    dataset = VolumeCollectionDataset(ct, config)
    for index in range(len(dataset)):
        value = (dataset[index]["image"].numpy() % 10**6).astype(int).ravel()
        held = {(v // 10**4, v // 100 % 100, v % 100) for v in value.tolist()}
        inside = [p for p in held if all(a <= x < b for a, x, b in
                  zip(box[0], p, box[1], strict=True))]  # fmt: skip
        across = np.argmax(abs(affine[2, :3]))  # the stored axis that runs to the head
        assert len(inside) == 2 * 3 * 2 // (box[1][across] - box[0][across])


def test_views_of_a_position(shelf):
    rule = At({"sub-00_CT": [(9, 9, 9), (30, 30, 30)]}, jitter=2, each=True)
    config = DatasetConfig("patch", (6, 6, 6), 4, placement=rule, views=2)
    dataset = VolumeCollectionDataset(shelf, config)
    assert len(dataset) == 8
    plan = dataset.plan(range(8), 0)
    first, second = plan.start[::2], plan.start[1::2]
    assert (abs(first - second) <= 5).all()
    assert not np.array_equal(first, second)
