"""What a cached batch costs while the interpreter is held, counted; and it is the same batch."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from ml_shelf import coordinates, make_mask, store

from radiobject.geometry.box import Box
from radiobject.geometry.rescale import Rescale
from radiobject.ml import create_training_dataloader
from radiobject.ml.config import DatasetConfig, LoadingMode
from radiobject.ml.datasets.fields import read_requests
from radiobject.ml.datasets.volumes import VolumeCollectionDataset
from radiobject.ml.device.source import DeviceSource
from radiobject.ml.loaders.buffers import PrivateBuffers
from radiobject.ml.loaders.lookahead import _read_into
from radiobject.storage.read.open_volumes import complete
from radiobject.storage.read.reader import ReadRequest, read_batch
from radiobject.storage.read.volume_tiles import VolumeTiles
from radiobject.texts import Texts

SHAPE = (40, 36, 34)
SUBJECTS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("warm")
    same = [np.eye(4)] * 3
    shelves = {
        "CT": store(
            folder, "CT", [coordinates(i, SHAPE, np.int16) for i in range(3)], SUBJECTS,
            affines=same,
        ),
        "seg": store(
            folder, "seg", [make_mask(i, SHAPE) for i in range(3)], SUBJECTS, affines=same
        ),
    }  # fmt: skip
    for shelf in shelves.values():
        for locator in shelf.locators():
            complete(locator)
    return shelves


def calls_of(function):
    """Return how many functions are called, of Python and of others."""
    count = 0

    def look(_, event, __):
        nonlocal count
        count += event in ("call", "c_call")

    function()
    sys.setprofile(look)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_a_cached_batch_makes_no_object_for_a_sample(warm, monkeypatch):
    loader = create_training_dataloader(
        warm["CT"], batch_size=16, patch_size=(16, 16, 16), patches_per_volume=16, num_workers=0
    )
    dataset, buffers = loader.dataset, PrivateBuffers(1 << 20, 2)
    plan = dataset.plan(range(16), 0)

    def refuse(*_, **__):
        raise AssertionError("an object for one sample")

    with monkeypatch.context() as patch:
        patch.setattr(Box, "__post_init__", refuse)
        patch.setattr(ReadRequest, "__init__", refuse)
        for _ in range(16):  # by then every volume is known to be complete
            _read_into(dataset, buffers, [plan])
    assert calls_of(lambda: _read_into(dataset, buffers, [plan])) < 400  # 537 before
    source = DeviceSource(dataset, torch.device("cpu"), buffers)
    source._gather = Launched()
    # 225 before, when ids were a list, and 234 when each was decoded.
    assert calls_of(lambda: source.hand_over(source.read(plan))) < 225
    assert source.report().registered == 32


def test_texts_of_rows_are_those_one_by_one():
    ids = ["a", "", "é\ud800", "sub-01_CT"]
    rows = np.array([3, 0, 2, 2, 1])
    assert Texts(ids).at(rows) == [ids[row] for row in rows]
    assert Texts(ids).at(rows[:0]) == []
    texts = Texts(ids)
    assert [texts.at(rows) for _ in range(2)] == [[ids[row] for row in rows]] * 2


def test_texts_that_are_kept_are_few(monkeypatch):
    texts = Texts([f"sub-{n}" for n in range(5000)])
    for first in range(0, 5000, 100):
        rows = np.arange(first, first + 100)
        assert texts.at(rows) == [f"sub-{n}" for n in rows]
    assert len(texts._known) <= 4096


class Launched:
    """Where the kernel would be launched."""

    slower = None

    def __init__(self):
        self.plans = []

    def __call__(self, plan, memories, out):
        self.plans.append((plan, plan.packed([1 << 30] * len(memories))))
        return True


CONFIGS = {
    "patches": DatasetConfig(LoadingMode.PATCH, (8, 9, 10), patches_per_volume=4),
    "padded": DatasetConfig(
        LoadingMode.PATCH, (44, 9, 10), patches_per_volume=4, pad=True, pad_value=-3
    ),
    "reflected": DatasetConfig(
        LoadingMode.PATCH, (44, 9, 10), patches_per_volume=4, pad=True, pad_mode="reflect"
    ),
    "slices": DatasetConfig(LoadingMode.SLICE_2D),
    "neighbours": DatasetConfig(LoadingMode.SLICE_2D, neighbours=1),
    "resolutions": DatasetConfig(
        LoadingMode.PATCH, (8, 8, 8), patches_per_volume=4, resolutions=(1, 2), pad=True
    ),
    "whole": DatasetConfig(),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("rescaled", [False, True])
def test_what_is_packed_beforehand_is_what_a_plan_says(warm, name, rescaled):
    shelves = {"CT": warm["CT"], "seg": warm["seg"]}  # of two types
    config = replace(CONFIGS[name], dtype="float32")
    dataset = VolumeCollectionDataset(shelves, config, masks={"mask": warm["seg"]})
    if rescaled:
        dataset.fields[0].channels[0].rescales[:] = [Rescale(2.0, -1.0), None, Rescale(0.5, 3.0)]
    source = DeviceSource(dataset, torch.device("cpu"), PrivateBuffers(1 << 22, 2))
    source._gather = Launched()
    source.read(dataset.plan([0, 2, 1, 0], 0))
    compared = 0
    for plan, packed in source._gather.plans:
        want = replace(plan, table=None).packed([1 << 30] * 2)
        assert np.array_equal(packed, want)
        assert want[:, 1].tolist() == plan.row.tolist()
        compared += len(plan)
    assert compared == (4 if name == "neighbours" else 12)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("rescaled", [False, True])
def test_it_is_what_requests_read(warm, name, rescaled):
    dataset = VolumeCollectionDataset(
        {"CT": warm["CT"], "again": warm["CT"]}, CONFIGS[name], masks={"seg": warm["seg"]}
    )
    if rescaled:
        for table in dataset.fields[0].channels:
            table.rescales[:] = [Rescale(2.0, -1.0), None, Rescale(0.5, 3.0)]
    rng = np.random.default_rng(0)
    for epoch in range(3):
        plan = dataset.plan(rng.integers(0, len(dataset), 5), epoch)
        found, want = (
            {n: np.full(spec[0], 99, spec[1]) for n, spec in dataset.layout(plan).items()}
            for _ in range(2)
        )
        dataset.fill(plan, found)
        side = dataset.side_of(plan)
        slices = dataset._slice_axis
        read_batch(read_requests(dataset.fields, plan, side, want, slices, dataset.views))
        assert found.keys() == want.keys()
        assert all(np.array_equal(found[key], want[key]) for key in want)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("cached", [3, 2, 0])
def test_batches_that_are_filled_together_are_those_one_by_one(warm, name, cached, monkeypatch):
    dataset = VolumeCollectionDataset(
        {"CT": warm["CT"], "again": warm["CT"]}, CONFIGS[name], masks={"seg": warm["seg"]}
    )
    hidden = [locator.uri for shelf in warm.values() for locator in shelf.locators()[cached:]]
    found = VolumeTiles.read_warm
    monkeypatch.setattr(
        VolumeTiles, "read_warm", lambda v, *a: 0 if v.uri in hidden else found(v, *a)
    )
    rng = np.random.default_rng(1)
    plans = [dataset.plan(rng.integers(0, 3 * len(dataset), n), n % 2) for n in (5, 1, 3, 5, 2)]
    if name == "padded":  # of some, the box lies inside
        dataset._side = (8, 9, 10)
        plans = [replace(p, start=rng.integers(-2, 20, p.start.shape)) for p in plans]
    batches = [
        {n: np.full(spec[0], 99, spec[1]) for n, spec in dataset.layout(plan).items()}
        for plan in plans
    ]
    dataset.fill_together(list(zip(plans, batches, strict=True)))
    for plan, batch in zip(plans, batches, strict=True):
        alone = dataset.read(plan)
        assert batch.keys() <= alone.keys()
        assert all(np.array_equal(batch[key], alone[key].numpy()) for key in batch)


def test_a_batch_of_several_costs_less_than_one_alone(warm):
    loader = create_training_dataloader(
        warm["CT"], batch_size=4, patch_size=(16, 16, 16), patches_per_volume=16, num_workers=0
    )
    dataset, buffers = loader.dataset, PrivateBuffers(1 << 20, 9)
    plans = [dataset.plan(range(n, n + 4), 0) for n in range(8)]
    for _ in range(16):  # by then every volume is known to be complete
        _read_into(dataset, buffers, plans[:1])
    alone = calls_of(lambda: _read_into(dataset, buffers, plans[:1]))
    together = calls_of(lambda: _read_into(dataset, buffers, plans)) / 8
    assert together < 150  # 171 when each was placed by itself
    assert together < 0.8 * alone
