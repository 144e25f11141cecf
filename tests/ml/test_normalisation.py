"""Normalised intensities: equal to plain NumPy wherever voxels are delivered."""

import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_shelf import make_mask, store

from radiobject.exceptions import AlignmentError, ConfigurationError
from radiobject.ml import (
    Normalization,
    create_segmentation_dataloader,
    create_training_dataloader,
    create_validation_dataloader,
)
from radiobject.ml.normalisation import ChannelScales, intensity_statistics
from radiobject.storage.schema import intensity_index

SHAPE = (20, 18, 16)
SUBJECTS = ["a", "b", "c"]


def ct(number):
    rng = np.random.default_rng(number)
    return rng.integers(-1024, 2000, SHAPE).astype(np.int16)


def mri(number):
    rng = np.random.default_rng(number)
    return (rng.gamma(2, 50 + 90 * number, SHAPE) * (rng.random(SHAPE) > 0.4)).astype(np.float32)


@pytest.fixture(scope="module")
def shelves(tmp_path_factory):
    folder = tmp_path_factory.mktemp("normalised")
    same = [np.eye(4)] * 3
    return {
        "CT": store(folder, "CT", [ct(i) for i in range(3)], SUBJECTS, affines=same),
        "MR": store(folder, "MR", [mri(i) for i in range(3)], SUBJECTS, affines=same),
        "seg": store(
            folder,
            "seg",
            [make_mask(i, SHAPE) for i in (2, 1, 0)],
            SUBJECTS[::-1],
            affines=same,
        ),
    }


def foreground(rows):
    return np.concatenate([ct(i)[make_mask(i, SHAPE) > 0] for i in rows]).astype(np.float64)


def reference(voxels, low, high, mean, std):
    """The scheme in one line of float32."""
    kept = np.clip(voxels.astype(np.float32), np.float32(low), np.float32(high))
    return (kept - np.float32(mean)) / np.float32(std)


def of_ct(rule, number):
    return reference(ct(number), rule.low, rule.high, rule.mean, rule.std)


def test_ct_is_nnunets_scheme_over_the_foreground_of_the_selection(shelves):
    for rows in ([0, 1, 2], [0, 2]):
        rule = Normalization.ct(
            shelves["CT"].pick(rows), shelves["seg"].pick([2 - i for i in rows])
        )
        voxels = foreground(rows)
        want = [voxels.mean(), voxels.std(), *np.percentile(voxels, [0.5, 99.5])]
        assert np.allclose([rule.mean, rule.std, rule.low, rule.high], want, rtol=1e-9)
    above = Normalization.ct(shelves["CT"], above=-500)
    body = np.concatenate([ct(i)[ct(i) > -500] for i in range(3)])
    assert np.isclose(above.mean, body.mean())


def test_statistics_are_read_once_and_again_when_the_mask_changed(shelves, monkeypatch):
    made = []
    plain = intensity_index.summary_of
    monkeypatch.setattr(
        intensity_index, "summary_of", lambda *given: made.append(1) or plain(*given)
    )
    image, masks = shelves["CT"], shelves["seg"]
    intensity_statistics(image, masks, above=3)
    first = len(made)
    intensity_statistics(image, masks, above=3)
    assert (first, len(made)) == (3, 3)
    other = store(
        Path(masks.uri).parent,
        "seg2",
        [make_mask(1, SHAPE)] * 3,
        SUBJECTS,
        affines=[np.eye(4)] * 3,
    )
    found = intensity_statistics(image, other, above=3)
    assert len(made) > 3
    assert found["a_CT"].count == np.count_nonzero(ct(0)[make_mask(1, SHAPE) > 0] > 3)


def test_statistics_of_voxels_chosen_otherwise_are_made_again(shelves, monkeypatch):
    """Those of large volumes were of every 2^k-th voxel, and may lie in a store as such."""
    made = []
    plain = intensity_index.summary_of
    for kind, again in (("MR", 3), ("CT", 0)):  # Of 16 bits each value is counted.
        monkeypatch.undo()
        intensity_statistics(shelves[kind], above=7.5)
        monkeypatch.setattr(
            intensity_index, "summary_of", lambda *given: made.append(1) or plain(*given)
        )
        monkeypatch.setattr("radiobject.sampling.intensities._MAX_GATHERED", 100)
        made.clear()
        intensity_statistics(shelves[kind], above=7.5)
        assert len(made) == again
        intensity_statistics(shelves[kind], above=7.5)
        assert len(made) == again


@pytest.mark.parametrize("more", [{}, {"num_workers": 1}, {"device": "cpu"}])
def test_loaders_give_what_numpy_says(shelves, more):
    """Look-ahead thread, worker process, and the device's path: the same bits."""
    options = {"num_workers": 0, "batch_size": 2, "patch_size": (8, 8, 8)} | more
    rule = Normalization.ct(shelves["CT"], above=-500)
    for batch in create_training_dataloader(
        shelves["CT"], normalization=rule, patches_per_volume=3, drop_last=False, **options
    ):
        for i, image in enumerate(batch["image"].numpy()):
            start = [int(axis[i]) for axis in batch["patch_start"]]
            cut = tuple(slice(a, a + 8) for a in start)
            assert np.array_equal(image[0], of_ct(rule, int(batch["idx"][i]))[cut])


def test_zscore_takes_each_volumes_own_statistics_per_channel(shelves):
    loader = create_validation_dataloader(
        {"CT": shelves["CT"], "MR": shelves["MR"]},
        num_workers=0,
        batch_size=3,
        normalization={"MR": Normalization.zscore(above=0, percentiles=(1, 99))},
    )
    batch = next(iter(loader))
    for i, (plain, image) in enumerate(batch["image"].numpy()):
        assert np.array_equal(plain, ct(i).astype(np.float32))
        inside = mri(i)[mri(i) > 0].astype(np.float64)
        low, high = np.percentile(inside, [1, 99])
        want = reference(mri(i), low, high, inside.mean(), inside.std())
        assert np.allclose(image, want, rtol=1e-5, atol=1e-6)


def test_a_transform_sees_normalised_intensities_and_padding_is_normalised(shelves):
    rule = Normalization(mean=100.0, std=50.0, low=-200.0, high=300.0)
    seen = []

    def look(sample):
        seen.append(sample["image"].clone())
        return sample

    loader = create_segmentation_dataloader(
        shelves["CT"],
        shelves["seg"],
        batch_size=3,
        patch_size=(24, 8, 8),
        num_workers=0,
        transform=look,
        pad_value=-1000,
        normalization=rule,
    )
    batch = next(iter(loader))
    assert torch.equal(torch.stack(seen), batch["image"])
    assert (batch["image"][:, 0, 0] == (-200 - 100) / 50).all()
    assert set(batch["mask"].unique().tolist()) <= {0, 1, 2}


@given(
    st.lists(
        st.tuples(*[st.floats(-1e3, 1e3, width=32)] * 3, st.floats(0.125, 1e3, width=32)),
        min_size=2,
        max_size=4,
    ),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_the_batch_stage_is_the_reference_bit_by_bit(numbers, dtype, seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(numbers), 3)
    table = np.array([[min(a, b), max(a, b), m, s] for a, b, m, s in numbers])[:, None]
    voxels = rng.normal(0, 800, (3, 1, 4, 5, 6)).astype(dtype)
    want = np.stack(
        [
            (np.clip(v, *table[r, 0, :2].astype(dtype)) - dtype(table[r, 0, 2]))
            / dtype(table[r, 0, 3])
            for v, r in zip(voxels, rows, strict=True)
        ]
    )
    here, there = voxels.copy(), torch.from_numpy(voxels.copy())
    ChannelScales(table).apply(here, rows)
    ChannelScales(table).apply_on_device(there, rows)
    assert np.array_equal(here, want)
    assert np.array_equal(there.numpy(), want)


def test_it_is_kept_as_plain_numbers_and_belongs_to_the_samples(shelves):
    rule = Normalization.zscore(above=0, percentiles=(0.5, 99.5))
    assert Normalization(**json.loads(json.dumps(rule.to_dict()))) == rule
    assert pickle.loads(pickle.dumps(rule)) == rule
    options = {"batch_size": 1, "patch_size": (8, 8, 8), "num_workers": 0}
    plain = create_training_dataloader(shelves["CT"], **options)
    other = create_training_dataloader(
        shelves["CT"], normalization=Normalization(mean=0.0, std=2.0), **options
    )
    with pytest.raises(ConfigurationError):
        other.load_state_dict(plain.state_dict())


def test_bfloat16_is_normalised_before_it_is_narrowed(shelves):
    rule = Normalization(mean=30.0, std=70.0)
    options = {"batch_size": 3, "num_workers": 0, "dtype": "bfloat16", "normalization": rule}
    for more in ({}, {"device": "cpu"}):
        batch = next(iter(create_validation_dataloader(shelves["CT"], **options, **more)))
        want = torch.from_numpy(reference(ct(1), -np.inf, np.inf, 30, 70)).bfloat16()
        assert torch.equal(batch["image"][1, 0], want)


def test_what_cannot_be_meant_is_refused(shelves, tmp_path):
    for wrong, message in (
        ({"mean": 1.0}, "go together"),
        ({"mean": 1.0, "std": 0.0}, "above 0"),
        ({"mean": 1.0, "std": np.inf}, "above 0, got inf"),
        ({"mean": np.nan, "std": 1.0}, "mean must be a finite number, got nan"),
        ({"low": np.nan}, "low must be a number, got nan"),
        ({"high": np.nan, "mean": 1.0, "std": 1.0}, "high must be a number"),
        ({"above": np.nan}, "above must be a number"),
        ({"mean": 1.0, "std": 1.0, "above": 0.0}, "statistics of each volume"),
        ({"low": 2.0, "high": 1.0}, "low must not"),
        ({"percentiles": (99, 1)}, "ascend"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            Normalization(**wrong)
    image = shelves["CT"]
    for rule, message in (
        (Normalization.zscore(above=1e9), "no voxel above"),
        ({"PET": Normalization.zscore()}, "no channel 'PET'"),
        ([Normalization.zscore()] * 2, "one normalization for each"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            create_validation_dataloader(image, num_workers=0, normalization=rule)
    with pytest.raises(ConfigurationError, match="need a dtype"):
        create_validation_dataloader(
            image, num_workers=0, dtype=None, normalization=Normalization.zscore()
        )
    with pytest.raises(ConfigurationError, match="no voxel of any volume"):
        Normalization.ct(image, above=1e9)
    with pytest.raises(AlignmentError):
        Normalization.ct(image, shelves["seg"].pick([0, 1]))


def test_a_store_that_cannot_be_written_is_no_obstacle(shelves, monkeypatch, caplog):
    from radiobject.exceptions import StorageError

    def refuse(*_, **__):
        raise StorageError("read-only")

    monkeypatch.setattr(intensity_index, "write_derived", refuse)
    with caplog.at_level(logging.WARNING):
        found = intensity_statistics(shelves["CT"], above=123)
    assert found["b_CT"].count == np.count_nonzero(ct(1) > 123)
    assert "worked out anew" in caplog.text
