import inspect
import os

import numpy as np
import pytest
import torch
from forking import needs
from ml_shelf import check_patch

from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.ml import (
    create_inference_dataloader,
    create_segmentation_dataloader,
    create_training_dataloader,
    create_validation_dataloader,
)
from radiobject.ml.datasets.draws import SampleIndex

PATCH = (16, 16, 16)


def run(loader):
    return [
        (b["obs_id"], [s.tolist() for s in b["patch_start"]], b["image"].clone()) for b in loader
    ]


def same(a, b):
    return len(a) == len(b) and all(
        x[:2] == y[:2] and torch.equal(x[2], y[2]) for x, y in zip(a, b, strict=True)
    )


def test_the_published_call(shelf):
    loader = create_training_dataloader(shelf, batch_size=4, patch_size=PATCH, num_workers=0)
    assert isinstance(loader, torch.utils.data.DataLoader)
    (batch,) = list(loader)
    assert batch["image"].shape == (4, 1, *PATCH)
    assert batch["image"].dtype == torch.float32
    assert batch["idx"].dtype == batch["patch_idx"].dtype == torch.int64
    assert [axis.shape for axis in batch["patch_start"]] == [(4,)] * 3
    assert loader.batch_size == 4
    assert len(loader) == 1
    for k in range(4):
        start = [int(axis[k]) for axis in batch["patch_start"]]
        check_patch(batch["image"][k], batch["idx"][k], start)
        assert batch["obs_id"][k] == shelf.obs_ids[batch["idx"][k]]


def test_channels(shelf, tmp_path):
    loader = create_training_dataloader(
        {"a": shelf, "b": shelf}, batch_size=2, patch_size=PATCH, num_workers=0
    )
    for batch in loader:
        assert batch["image"].shape == (2, 2, *PATCH)
        assert torch.equal(batch["image"][:, 0], batch["image"][:, 1])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_patches_are_equal_for_any_number_of_workers(shelf, workers):
    options = {"batch_size": 4, "patch_size": PATCH, "patches_per_volume": 5, "receipt": True}
    alone = create_training_dataloader(shelf, num_workers=0, **options)
    many = create_training_dataloader(
        shelf, num_workers=workers, persistent_workers=workers == 2, **options
    )
    first, second = run(alone), run(alone)
    assert not same(first, second)
    assert same(first, run(many))
    assert same(second, run(many))
    assert alone.receipt() == many.receipt()


def test_no_worker_is_started_before_batches_were_measured(shelf, pair):
    """Warnings are errors here: PyTorch's, about more workers than cores, would end the test."""
    from radiobject.ml.distributed import create_distributed_dataloader

    cores = len(os.sched_getaffinity(0))
    for make in (
        lambda: create_training_dataloader(shelf, batch_size=2, patch_size=PATCH),
        lambda: create_validation_dataloader(shelf, patch_size=PATCH),
        lambda: create_inference_dataloader(shelf),
        lambda: create_segmentation_dataloader(*pair, patch_size=PATCH),
        lambda: create_distributed_dataloader(shelf, 0, 2, batch_size=2, patch_size=PATCH),
    ):
        assert make().num_workers == 0
        assert make().workers_at_most == (cores if cores > 2 else 0)
    assert inspect.signature(create_training_dataloader).parameters["num_workers"].default == 4
    if cores < 4:
        with pytest.warns(UserWarning, match="will create 4 worker processes"):
            create_training_dataloader(shelf, patch_size=PATCH, num_workers=4)
    assert len(run(create_training_dataloader(shelf, batch_size=2, patch_size=PATCH))) == 3


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=needs(m)) for m in ("fork", "forkserver", "spawn")]
)
def test_every_start_method(shelf, method):
    options = {"batch_size": 2, "patch_size": PATCH}
    alone = create_training_dataloader(shelf, num_workers=0, **options)
    many = create_training_dataloader(
        shelf, num_workers=1, multiprocessing_context=method, **options
    )
    assert same(run(alone), run(many))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_is_kept_never_changes(shelf, workers):
    loader = create_training_dataloader(
        shelf, batch_size=2, patch_size=PATCH, num_workers=workers, patches_per_volume=20
    )
    kept, copies = [], []
    for batch in loader:
        image = batch["image"]
        kept.append(image[1:, :, 3:].numpy() if len(kept) % 2 else image)
        copies.append(np.copy(image[1:, :, 3:].numpy() if len(kept) % 2 == 0 else image.numpy()))
    assert len(kept) == 60
    for view, copy in zip(kept, copies, strict=True):
        assert np.array_equal(view, copy)


@pytest.mark.parametrize("workers", [0, 2])
def test_memory_of_dropped_batches_is_used_again(shelf, workers):
    loader = create_training_dataloader(
        shelf, batch_size=2, patch_size=PATCH, num_workers=workers, patches_per_volume=20
    )
    places = {batch["image"].data_ptr() for batch in loader}
    # In threads what is made ahead; with workers messages under way, of four batches.
    assert len(places) <= ((2 * workers + 1) * 4 if workers else loader._ahead) + 8 < 60


def test_an_iteration_left_early_does_not_disturb_the_next(shelf):
    options = {"batch_size": 2, "patch_size": PATCH, "patches_per_volume": 4}
    alone = create_training_dataloader(shelf, num_workers=0, **options)
    many = create_training_dataloader(shelf, num_workers=2, **options)
    for loader in (alone, many):
        for _ in range(5):
            next(iter(loader))
    assert same(run(alone), run(many))


def test_two_iterations_at_once(shelf):
    options = {"batch_size": 2, "patch_size": PATCH}
    for workers in (0, 1):
        loader = create_training_dataloader(
            shelf, num_workers=workers, persistent_workers=False, **options
        )
        pairs = list(zip(loader, loader, strict=True))
        loader.set_epoch(0)
        assert all(
            torch.equal(a["image"], b["image"]) for (a, _), b in zip(pairs, loader, strict=True)
        )


def test_validation_and_inference_come_in_order_and_stay_equal(shelf):
    loader = create_validation_dataloader(shelf, batch_size=4, patch_size=PATCH, num_workers=0)
    first = run(loader)
    assert [i for b in first for i in b[0]] == shelf.obs_ids
    assert same(first, run(loader))
    whole = create_inference_dataloader(shelf, num_workers=0)
    assert len(whole) == 6
    for row, batch in enumerate(whole):
        assert batch["image"].shape == (1, 1, 40, 36, 34)
        check_patch(batch["image"][0], row, (0, 0, 0))


def test_mixed_shapes_and_padding(mixed):
    loader = create_training_dataloader(
        mixed, batch_size=3, patch_size=(24, 24, 24), num_workers=0, pad_value=-1000
    )
    (batch,) = list(loader)
    for k in range(3):
        start = [int(axis[k]) for axis in batch["patch_start"]]
        padding = batch["padding"][k].numpy()
        rim = check_patch(batch["image"][k], batch["idx"][k], start, padding)
        assert (rim == -1000).all()
        assert rim.size or not padding.any()
    assert batch["padding"].any()


def test_whole_volumes_of_mixed_shapes_come_one_by_one(mixed):
    shapes = [
        tuple(b["image"].shape[2:]) for b in create_inference_dataloader(mixed, num_workers=0)
    ]
    assert shapes == [(40, 36, 34), (20, 50, 41), (10, 9, 33)]
    with pytest.raises(ShapeError, match="heterogeneous"):
        create_inference_dataloader(mixed, batch_size=2, num_workers=0)


@pytest.mark.parametrize(("plane", "axis"), [("axial", 2), ("coronal", 1), ("sagittal", 0)])
def test_slices(shelf, plane, axis):
    loader = create_validation_dataloader(
        shelf, batch_size=5, num_workers=0, slice_orientation=plane
    )
    side = (40, 36, 34)
    assert len(loader.dataset) == 6 * side[axis]
    batch = next(iter(loader))
    want = [n for a, n in enumerate(side) if a != axis]
    assert list(batch["image"].shape) == [5, 1, *want]
    start = [0, 0, 0]
    start[axis] = int(batch["slice_idx"][3])
    check_patch(np.expand_dims(batch["image"][3], axis + 1), 0, start)
    assert np.allclose(batch["affine"][3][:3, 3], [start[0], -5 + 2 * start[1], 7 + 3 * start[2]])


def test_stored_type(shelf):
    loader = create_training_dataloader(
        shelf, batch_size=2, patch_size=PATCH, num_workers=0, dtype=None
    )
    assert next(iter(loader))["image"].dtype == torch.int32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 7}, "larger than the data set"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"num_workers": -1}, "num_workers"),
        ({"patch_size": (8, 8)}, "patch_size must be 3 whole numbers"),
        ({"patch_size": (8, 8, 0)}, "patch_size must be 3 whole numbers"),
        ({"patch_size": (64, 64, 64), "pad": False}, "smaller than patch_size"),
        ({"pad_mode": "mirror"}, "padding mode"),
        ({"patches_per_volume": 0}, "patches_per_volume"),
        ({"slice_orientation": "oblique"}, "slice_orientation"),
        ({"dtype": "complex64"}, "dtype"),
        ({"dtype": torch.float8_e4m3fn}, "dtype must be a type that NumPy knows"),
        ({"dtype": "uint8", "pad_value": -1000}, r"pad_value -1000 .*uint8.*\[0, 255\]"),
        ({"patch_size": 16}, "patch_size must be 3 whole numbers"),
        ({"patches_per_volume": 1.5}, "patches_per_volume must be a whole number"),
        ({"seed": None}, "seed must be a whole number"),
        ({"volumes_per_block": 0}, "groups_per_block must be at least 1"),
        ({"volume_weights": [-1.0] * 6}, "weights must be one finite number >= 0"),
        ({"volume_weights": [1.0]}, "one number per volume"),
        ({"transform": 3}, "callable"),
    ],
)
def test_bad_input_is_refused_before_the_first_batch(shelf, options, words):
    given = {"batch_size": 2, "patch_size": PATCH, "num_workers": 0} | options
    with pytest.raises((ConfigurationError, ShapeError), match=words):
        create_training_dataloader(shelf, **given)


def test_what_means_the_same_is_the_same_data_set(shelf):
    import json

    plain = {"batch_size": 2, "patch_size": PATCH, "num_workers": 0, "pad_value": 0}
    other = {"patch_size": np.array(PATCH), "dtype": torch.float32, "seed": np.int64(0)}
    state = create_training_dataloader(shelf, **plain).state_dict()
    same_loader = create_training_dataloader(shelf, **plain | other)
    same_loader.load_state_dict(json.loads(json.dumps(state)))
    assert same_loader.dataset.config.dtype == "float32"


def test_unknown_options_and_empty_collections(shelf):
    with pytest.raises(TypeError, match="patchsize"):
        create_training_dataloader(shelf, patchsize=(1, 1, 1))
    with pytest.raises(ConfigurationError, match="no volumes"):
        create_training_dataloader(shelf.pick([]), num_workers=0)
    with pytest.raises(ConfigurationError, match="At least one collection"):
        create_training_dataloader([], num_workers=0)


def test_a_rank_that_is_left_nothing_is_warned(shelf):
    from radiobject.ml.distributed import create_distributed_dataloader

    with pytest.warns(UserWarning, match="delivers nothing"):
        create_distributed_dataloader(shelf, 0, 4, batch_size=4, patch_size=PATCH, num_workers=0)


def test_delivered_patches_are_uniform_over_positions(shelf):
    patch, free = (38, 34, 32), 3
    loader = create_training_dataloader(
        shelf, batch_size=8, patch_size=patch, num_workers=0, patches_per_volume=100
    )
    counts = np.zeros((free,) * 3, int)
    for _ in range(4):
        for batch in loader:
            first = batch["image"][:, 0, 0, 0, 0].long().numpy() % 10**6
            np.add.at(counts, (first // 10**4, first // 100 % 100, first % 100), 1)
    expected = 2400 / counts.size
    assert counts.sum() == 2400
    assert ((counts - expected) ** 2 / expected).sum() < 61.7  # 99.99th percentile, 26 d.o.f.


def test_samples_asked_for_together_lie_in_one_buffer(shelf):
    dataset = create_training_dataloader(
        shelf, batch_size=2, patch_size=PATCH, num_workers=0
    ).dataset
    samples = dataset.__getitems__([4, 1, 5])
    assert len({s["image"].untyped_storage().data_ptr() for s in samples}) == 1
    for sample, index in zip(samples, [4, 1, 5], strict=True):
        alone = dataset[SampleIndex(index, 0)]
        assert torch.equal(sample["image"], alone["image"])
        assert sample["patch_start"] == alone["patch_start"]
    batch = torch.utils.data.default_collate(samples)
    assert batch["image"].shape == (3, 1, *PATCH)
    with pytest.raises(IndexError, match="dataset of 6"):
        dataset[6]
    with pytest.raises(IndexError, match="numbered from 0"):
        dataset.__getitems__([-1, 0])


def test_report(shelf):
    loader = create_training_dataloader(shelf, batch_size=2, patch_size=PATCH, num_workers=0)
    for _ in loader:
        pass
    report = loader.report()
    assert (report.batches, report.samples) == (3, 6)
    assert 0 < report.wait_share <= 1
    assert report.samples_per_second > 0
    assert report.bytes_delivered >= 6 * 16**3 * 4
    assert report.hint
    assert "samples in" in str(report)


def test_weights_draw_volumes_in_proportion_and_never_the_same_patch_twice(shelf):
    loader = create_training_dataloader(
        shelf,
        batch_size=4,
        patch_size=PATCH,
        num_workers=0,
        patches_per_volume=50,
        volume_weights=[0, 0, 1, 0, 0, 3],
    )
    seen = [
        (int(i), tuple(int(axis[k]) for axis in b["patch_start"]))
        for b in loader
        for k, i in enumerate(b["idx"])
    ]
    volumes = [v for v, _ in seen]
    assert set(volumes) == {2, 5}
    assert abs(volumes.count(5) / len(volumes) - 0.75) < 0.1
    assert len(set(seen)) > 0.95 * len(seen)


def test_blocks(shelf):
    loader = create_training_dataloader(
        shelf,
        batch_size=4,
        patch_size=PATCH,
        num_workers=0,
        patches_per_volume=4,
        volumes_per_block=2,
    )
    assert all(len(set(b["idx"].tolist())) <= 2 for b in loader)


def test_volumes_with_time(tmp_path):
    from ml_shelf import affine_of, make_mask, make_shelf, store

    bold = make_shelf(tmp_path, [(20, 18, 16, 3), (20, 18, 24, 3)], name="bold", dtype=np.float32)
    options = {"batch_size": 2, "num_workers": 0}
    batch = next(iter(create_training_dataloader(bold, patch_size=(8, 8, 8), **options)))
    assert batch["image"].shape == (2, 1, 8, 8, 8, 3)
    for k in range(2):
        start = [int(axis[k]) for axis in batch["patch_start"]]
        assert len(start) == 3
        check_patch(batch["image"][k, ..., 2] / 4 - 0.5, int(batch["idx"][k]), start)
    batch = next(iter(create_training_dataloader(bold, patch_size=(8, 8, 8, 2), **options)))
    assert batch["image"].shape == (2, 1, 8, 8, 8, 2)
    assert len(batch["patch_start"]) == 4
    masks = store(
        tmp_path,
        "seg",
        [make_mask(1, (20, 18, 16)), make_mask(1, (20, 18, 24))],
        bold.subject_ids,
        affines=[affine_of(0), affine_of(1)],
    )
    loader = create_segmentation_dataloader(
        bold, masks, patch_size=(8, 8, 8), foreground_sampling=True, **options
    )
    for batch in loader:
        assert batch["image"].shape == (2, 1, 8, 8, 8, 3)
        assert batch["mask"].shape == (2, 1, 8, 8, 8)
        assert batch["mask"].any()
    with pytest.raises(ShapeError, match="time"):
        create_training_dataloader({"a": bold, "b": masks}, **options)
    longer = make_shelf(tmp_path, [(20, 18, 16, 3), (20, 18, 24, 5)], name="longer")
    with pytest.raises(ShapeError, match=r"sub-01_bold.*24, 3.*24, 5"):
        create_training_dataloader({"a": bold, "b": longer}, patch_size=(8, 8, 8), **options)


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap"])
def test_padding_modes(mixed, mode):
    loader = create_validation_dataloader(
        mixed, batch_size=1, patch_size=(24, 24, 24), num_workers=0, pad_mode=mode
    )
    small = list(loader)[2]
    before = small["padding"][0, :, 0].tolist()
    inside = small["image"][0, 0].numpy()[before[0] : before[0] + 10, before[1] : before[1] + 9, :]
    wide = [(a, b) for a, b in small["padding"][0].tolist()]
    assert np.array_equal(np.pad(inside, wide, mode=mode), small["image"][0, 0].numpy())


def test_a_stored_rescale_is_applied(shelf):
    from dataclasses import replace

    scaled = shelf.pick(range(6))
    scaled._locators = [replace(loc, rescale=(0.5, -3.0)) for loc in scaled._locators]
    options = {"batch_size": 6, "patch_size": PATCH, "num_workers": 0}
    (plain,) = create_training_dataloader(shelf, **options)
    for dtype in ("float32", None):
        (batch,) = create_training_dataloader(scaled, dtype=dtype, **options)
        assert batch["image"].dtype == torch.float32
        assert torch.allclose(batch["image"], plain["image"] * 0.5 - 3)


def test_slices_of_mixed_shapes_with_a_size(mixed):
    loader = create_validation_dataloader(
        mixed, batch_size=4, patch_size=(24, 24), num_workers=0, slice_orientation="axial"
    )
    assert {tuple(b["image"].shape[1:]) for b in loader} == {(1, 24, 24)}
    with pytest.raises(ShapeError, match="two sides"):
        create_validation_dataloader(mixed, num_workers=0, slice_orientation="axial")
