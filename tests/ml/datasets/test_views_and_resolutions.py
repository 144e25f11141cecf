"""Views, neighbours, resolutions, masks and what is missing, against a slow reference in NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_shelf import affine_of, coordinates, make_mask, make_shelf, store
from torch.utils.data import DataLoader

from radiobject.exceptions import ConfigurationError
from radiobject.geometry.orientation import axis_directions
from radiobject.geometry.rescale import Rescale
from radiobject.ml import (
    DatasetConfig,
    EpochSampler,
    SegmentationDataset,
    VolumeCollectionDataset,
    VolumeLoader,
    collate,
    create_segmentation_dataloader,
    create_training_dataloader,
)
from radiobject.ml.device.source import DeviceSource
from radiobject.ml.loaders.buffers import PrivateBuffers

SHAPE = (22, 20, 18)
PSR = np.array([[0, 0, 2, 0], [-1, 0, 0, 9], [0, 3, 0, -4], [0, 0, 0, 1.0]])
"""Voxels that run to the back, the head and the right."""


class World(dict):
    """Does not print its arrays when an example fails."""

    def __repr__(self):
        return "the world"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two channels, the second scaled, and two masks: of 3 axes and of 4, and as arrays."""
    made = World()
    for kind, shape, affine in (
        ("plain", SHAPE, None),
        ("time", (*SHAPE, 3), None),
        ("turned", SHAPE, PSR),
    ):
        folder = tmp_path_factory.mktemp(kind)
        subjects = ["sub-00", "sub-01"]
        affines = [affine_of(i) if affine is None else affine for i in range(2)]
        ct = [coordinates(i, shape, np.int32) for i in range(2)]
        pet = [(a % 251 - 99).astype(np.int16) for a in ct]
        tumour = [make_mask(i, SHAPE) for i in range(2)]
        organ = [(a % 3 > 0).astype(np.int16) - 1 for a in ct]
        sources = {
            name: store(folder, name, arrays, subjects, affines=affines)
            for name, arrays in (("CT", ct), ("PET", pet), ("tumour", tumour), ("organ", organ))
        }
        made[kind] = sources, (ct, pet, tumour, organ), affines
    return made


def dataset_of(sources, config):
    dataset = VolumeCollectionDataset(
        {"CT": sources["CT"], "PET": sources["PET"]},
        config,
        masks={"tumour": sources["tumour"], "organ": sources["organ"]},
    )
    for field in dataset.fields:
        if not field.labels:
            field.channels[1].rescales[0] = Rescale(0.5, -3.0)
    return dataset


def mode_pad(array, before, after, mode, value):
    if mode == "constant":
        return np.pad(array, list(zip(before, after, strict=True)), mode, constant_values=value)
    return np.pad(array, list(zip(before, after, strict=True)), mode)


def cut(array, start, side, config, value):
    """Return a box of an array, padded as far as it is needed."""
    before = [max(-a, 0) for a in start]
    after = [max(a + s - n, 0) for a, s, n in zip(start, side, array.shape, strict=True)]
    padded = mode_pad(array, before, after, config.pad_mode, value)
    return padded[
        tuple(slice(a + b, a + b + s) for a, b, s in zip(start, before, side, strict=True))
    ]


def block_means(fine, factor, dtype):
    """Return means of blocks, summed one number after the other in float64."""
    shape = [n // factor for n in fine.shape[:3]] + list(fine.shape[3:])
    out = np.empty(shape, dtype)
    for place in np.ndindex(*shape):
        x, y, z = (slice(p * factor, (p + 1) * factor) for p in place[:3])
        block = fine[(x, y, z, *place[3:])].astype(np.float64)
        total = None
        for plane in block:
            rows = None
            for row in plane:
                line = None
                for number in row:
                    line = number if line is None else line + number
                rows = line if rows is None else rows + line
            total = rows if total is None else total + rows
        mean = total / factor**3
        out[place] = np.rint(mean) if np.dtype(dtype).kind in "iu" else mean
    return out


def seen(array, affine):
    """Return an array with its axes to the right, the front and the head."""
    directions = axis_directions(affine)
    order = sorted(range(3), key=lambda axis: directions[axis][0])
    turned = array.transpose(*order, *range(3, array.ndim))
    flips = [seen_axis for seen_axis, axis in enumerate(order) if directions[axis][1] < 0]
    return np.flip(turned, flips)


def reference(dataset, config, arrays, affines, plan):
    """Return the arrays of voxels of a batch, sample by sample and voxel by voxel."""
    ct, pet, tumour, organ = arrays
    slice_axis = None
    if config.loading_mode == "slice_2d":
        slice_axis = {"sagittal": 0, "coronal": 1, "axial": 2}[str(config.slice_orientation)]
    found = {field.name: [] for field in dataset.fields}
    for i, row in enumerate(plan.volume.tolist()):
        images = [ct[row].astype(np.float32)]
        scaled = pet[row].astype(np.float32)
        images.append(scaled * np.float32(0.5) + np.float32(-3.0) if row == 0 else scaled)
        masks = {"tumour": tumour[row], "organ": organ[row]}
        if slice_axis is not None:
            images = [seen(a, affines[row]) for a in images]
            masks = {name: seen(a, affines[row]) for name, a in masks.items()}
        start = plan.start[i].tolist()
        side = list(dataset.side_of(plan))
        for factor in config.resolutions:
            first = [a - s * (factor - 1) // 2 for a, s in zip(start[:3], side[:3], strict=True)]
            first += start[3:]
            fine = [s * factor for s in side[:3]] + side[3:]
            name = "" if factor == 1 else f"_x{factor}"
            channels = []
            for array in images:
                for step in range(-config.neighbours, config.neighbours + 1):
                    at = list(first)
                    if slice_axis is not None:
                        at[slice_axis] += step
                    box = cut(array, at, fine, config, np.float32(config.pad_value))
                    if factor > 1:
                        box = block_means(box, factor, np.float32)
                    channels.append(box if slice_axis is None else box.take(0, axis=slice_axis))
            found[f"image{name}"].append(np.stack(channels))
            for key, array in masks.items():
                axes = array.ndim
                box = cut(array, first[:axes], fine[:axes], config, config.mask_pad_value)
                middle = factor // 2
                box = box[middle::factor, middle::factor, middle::factor]
                box = box if slice_axis is None else box.take(0, axis=slice_axis)
                found[f"{key}{name}"].append(box[None])
    return {name: np.stack(values) for name, values in found.items()}


def equal_bits(got, want):
    assert got.keys() == want.keys()
    for name, value in want.items():
        found = np.ascontiguousarray(got[name])
        assert found.dtype == value.dtype, name
        assert found.shape == value.shape, name
        assert found.tobytes() == np.ascontiguousarray(value).tobytes(), name


CONFIGS = st.one_of(
    st.builds(
        DatasetConfig,
        loading_mode=st.just("patch"),
        patch_size=st.tuples(*[st.integers(1, 26)] * 3).filter(lambda s: np.prod(s) < 600),
        patches_per_volume=st.integers(1, 3),
        resolutions=st.sampled_from([(1,), (1, 2), (1, 3), (1, 2, 4)]),
        views=st.integers(1, 3),
        pad_mode=st.sampled_from(["constant", "edge", "reflect", "symmetric", "wrap"]),
        pad_value=st.just(-7.0),
        mask_pad_value=st.just(3.0),
        seed=st.integers(0, 9),
    ),
    st.builds(
        DatasetConfig,
        loading_mode=st.just("slice_2d"),
        patch_size=st.one_of(st.none(), st.tuples(st.integers(2, 26), st.integers(2, 26))),
        slice_orientation=st.sampled_from(["axial", "coronal", "sagittal"]),
        neighbours=st.integers(0, 3),
        views=st.integers(1, 2),
        pad_mode=st.sampled_from(["constant", "edge", "reflect", "symmetric", "wrap"]),
        mask_pad_value=st.just(3.0),
    ),
)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    config=CONFIGS,
    kind=st.sampled_from(["plain", "time", "turned"]),
    chosen=st.lists(st.integers(0, 999), min_size=1, max_size=2),
    epoch=st.integers(0, 3),
)
def test_every_batch_is_that_of_the_slow_reference(world, config, kind, chosen, epoch):
    sources, arrays, affines = world[kind]
    dataset = dataset_of(sources, config)
    plan = dataset.plan([number % (3 * len(dataset)) for number in chosen], epoch)
    assert len(plan) == len(chosen) * config.views
    got = dataset.read(plan)
    want = reference(dataset, config, arrays, affines, plan)
    equal_bits({n: got[n].numpy() for n in dataset.voxel_names}, want)
    source = DeviceSource(dataset, torch.device("cpu"), PrivateBuffers(1 << 16, 2))
    for _ in range(2):
        again = source.hand_over(source.read(plan))
        equal_bits({n: again[n].numpy() for n in dataset.voxel_names}, want)
        assert list(again) == list(got)
        assert source.settle()
    source.close()


@pytest.mark.parametrize("kind", ["plain", "time"])
def test_affines_say_where_every_resolution_lies(world, kind):
    sources, _, affines = world[kind]
    config = DatasetConfig("patch", (6, 5, 4), 2, resolutions=(1, 2, 3))
    dataset = dataset_of(sources, config)
    batch = dataset.read(dataset.plan([0, 3], 5))
    for name, key, factor in (("image", "affine", 1), ("image_x3", "affine_x3", 3)):
        for i, row in enumerate(batch["idx"].tolist()):
            # the mean of a block is the value at its centre: coordinates are linear
            voxel = np.linalg.solve(affines[row], batch[key][i].numpy() @ [1, 2, 2, 1])[:3]
            inside = np.all((voxel > factor) & (voxel < np.array(SHAPE) - 1 - factor))
            value = float(batch[name][i, 0, 1, 2, 2].ravel()[0])
            want = row * 10**6 + voxel @ [10**4, 100, 1]
            if kind == "time":
                want *= 4
            assert not inside or abs(value - want) <= 1, (name, value, want)
    plain = batch["affine"].numpy() @ np.array([2.5, 2, 1.5, 1])
    coarse = batch["affine_x3"].numpy() @ np.array([2.5, 2, 1.5, 1])
    assert np.allclose(plain, coarse)  # one centre


def test_views_are_new_draws_in_every_loader(shelf):
    config = DatasetConfig("patch", (8, 8, 8), 2, views=2, seed=3)
    dataset = VolumeCollectionDataset(shelf, config)
    loaders = [
        VolumeLoader(dataset, EpochSampler(dataset), batch_size=3, num_workers=n) for n in (0, 2)
    ]
    loaders.append(
        DataLoader(dataset, batch_size=3, sampler=EpochSampler(dataset), collate_fn=collate)
    )
    loaders.append(
        VolumeLoader(dataset, EpochSampler(dataset), batch_size=3, device="cpu", num_workers=0)
    )
    passes = [[batch for _ in range(2) for batch in loader] for loader in loaders]
    for batches in passes:
        assert [len(b["image"]) for b in batches] == [6] * 8
        for batch, first in zip(batches, passes[0], strict=True):
            assert batch["view"].tolist() == [0, 1] * 3
            assert batch["idx"][::2].tolist() == batch["idx"][1::2].tolist()
            assert torch.equal(batch["image"], first["image"])
            assert torch.equal(batch["affine"], first["affine"])
    starts = [tuple(row) for b in passes[0] for row in torch.stack(b["patch_start"], 1).tolist()]
    assert len(set(starts)) > 40  # of 48
    both = next(iter(DataLoader(dataset, batch_size=3)))  # PyTorch's own collate: one batch a view
    assert [b["image"].shape for b in both] == [(3, 1, 8, 8, 8)] * 2


def test_each_view_has_random_numbers_of_its_own(shelf):
    def noisy(sample):
        return {**sample, "image": sample["image"] * 0 + torch.rand(())}

    loader = create_training_dataloader(
        shelf, batch_size=2, num_workers=0, views=2, transform=noisy
    )
    seen = [float(image.mean()) for batch in loader for image in batch["image"]]
    assert len(set(seen)) == 12


def test_receipts_cover_every_array(world):
    sources, _, _ = world["plain"]
    config = DatasetConfig("patch", (4, 4, 4), 2, resolutions=(1, 2), views=2)
    receipts = set()
    for workers, device in ((0, None), (1, None), (0, "cpu")):
        dataset = dataset_of(sources, config)
        loader = VolumeLoader(
            dataset,
            EpochSampler(dataset),
            batch_size=2,
            num_workers=workers,
            device=device,
            receipt=True,
        )
        assert len(list(loader)) == 2
        receipts.add(loader.receipt())
    assert len(receipts) == 1
    without = SegmentationDataset(
        {n: sources[n] for n in ("CT", "PET")}, {"tumour": sources["tumour"]}, config
    )
    loader = VolumeLoader(without, EpochSampler(without), batch_size=2, receipt=True)
    assert len(list(loader)) == 2
    assert loader.receipt() not in receipts


def test_resumed_in_the_middle(shelf):
    def make(workers):
        return create_training_dataloader(
            shelf, batch_size=2, patch_size=(6, 6, 6), patches_per_volume=2, num_workers=workers,
            views=2, resolutions=(1, 2), receipt=True,
        )  # fmt: skip

    straight, first, rest = make(0), make(0), make(1)
    for number, _ in enumerate(first):
        if number == 2:
            break
    rest.load_state_dict(first.state_dict())
    assert len(list(rest)) == 3
    assert len(list(straight)) == 6
    assert rest.receipt() == straight.receipt()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"views": 0}, "views must be >= 1"),
        ({"neighbours": 1}, "neighbours are those of slices"),
        ({"neighbours": 1, "slice_orientation": "axial", "pad": False}, "leave pad=True"),
        ({"resolutions": (2, 1)}, "1 first"),
        ({"resolutions": (1, 2)}, "give patch_size"),
        ({"resolutions": (1, 2), "slice_orientation": "axial"}, "give patch_size"),
        ({"resolutions": (1, 1.5), "patch_size": (4, 4, 4)}, "whole numbers"),
    ],
)
def test_what_cannot_be_is_refused(shelf, options, said):
    with pytest.raises(ConfigurationError, match=said):
        create_training_dataloader(shelf, num_workers=0, **options)


def test_states_of_before_stay_valid(shelf):
    """Options at their defaults do not change what identifies a data set."""
    config = DatasetConfig("patch", (8, 8, 8))
    assert "views" not in config.described()
    assert config.described() == repr(config)[: repr(config).index(", views=")] + ")"
    assert "views=2" in replace(config, views=2).described()


def test_flips_reach_every_mask_and_resolution(world):
    from radiobject.ml.augment import Affine, Flip, Gamma, Sequence

    sources, _, _ = world["plain"]
    options = {
        "batch_size": 2,
        "patch_size": (4, 4, 4),
        "num_workers": 0,
        "resolutions": (1, 2),
        "seed": 1,
    }
    pair = sources["CT"], {"tumour": sources["tumour"], "organ": sources["organ"]}
    plain = next(iter(create_segmentation_dataloader(*pair, **options)))
    flip = Sequence(Flip(axes=(0,), p=1.0), Gamma(p=0.0))
    flipped = next(iter(create_segmentation_dataloader(*pair, batch_transform=flip, **options)))
    for name in ("image", "tumour", "organ", "image_x2", "tumour_x2", "organ_x2"):
        assert torch.equal(flipped[name], plain[name].flip(2)), name
    corner = torch.tensor([3, 0, 0, 1.0], dtype=torch.float64)
    for key in ("affine", "affine_x2"):
        assert torch.allclose(flipped[key] @ corner, plain[key][:, :, 3])
    with pytest.raises(ConfigurationError, match=r"image_x2.*use Flip"):
        next(iter(create_segmentation_dataloader(*pair, batch_transform=Affine(), **options)))


def test_a_shelf_is_left_alone(tmp_path):
    shelf = make_shelf(tmp_path, [(12, 11, 10)])
    config = DatasetConfig("slice_2d", neighbours=1)
    sample = VolumeCollectionDataset(shelf, config)[0]
    assert sample["image"].shape == (3, 12, 11)
    assert torch.equal(sample["image"][0], torch.zeros(12, 11))
