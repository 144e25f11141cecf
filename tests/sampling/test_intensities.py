"""Summaries of intensities against plain NumPy over the voxels themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from radiobject.exceptions import ConfigurationError
from radiobject.sampling.intensities import (
    MAX_VALUES,
    as_arrays,
    from_arrays,
    pooled,
    summarise,
)

KINDS = st.sampled_from([np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.bool_])
VOXELS = KINDS.flatmap(
    lambda kind: arrays(
        kind,
        st.integers(1, 60),
        elements={"allow_nan": False, "allow_infinity": False, "min_value": -1e6, "max_value": 1e6}
        if kind == np.float32
        else None,
    )
)


@given(VOXELS, st.integers(1, 5), st.sampled_from([None, (2.0, -1024.0), (-0.5, 3.0)]))
@settings(max_examples=60, deadline=None)
def test_equal_to_numpy(voxels, parts, rescale):
    slope, intercept = rescale or (1.0, 0.0)
    plain = voxels.astype(np.float64) * slope + intercept
    found = summarise(np.array_split(voxels, parts), rescale)
    assert found.count == len(voxels)
    assert np.allclose([found.mean, found.std], [plain.mean(), plain.std()], rtol=1e-9, atol=1e-6)
    for percent in (0, 0.5, 37, 99.5, 100):
        want = np.percentile(plain, percent)
        assert np.isclose(found.percentile(percent), want, rtol=1e-9, atol=1e-9)
    again = from_arrays(as_arrays(found))
    assert again.percentile(10) == found.percentile(10)


@given(st.lists(VOXELS, min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_pooled_is_that_of_all_voxels(volumes):
    whole = np.concatenate([v.astype(np.float64) for v in volumes])
    found = pooled(summarise([v]) for v in volumes)
    assert found.count == len(whole)
    assert np.allclose([found.mean, found.std], [whole.mean(), whole.std()], rtol=1e-9, atol=1e-6)
    for percent in (0.5, 50, 99.5):
        assert np.isclose(found.percentile(percent), np.percentile(whole, percent), rtol=1e-9)


def test_many_values_cost_a_bounded_share_of_a_percentile():
    values = np.random.default_rng(0).gamma(2.0, 100.0, 200_000).astype(np.float32)
    found = summarise([values])
    assert len(found.values) == MAX_VALUES
    order = np.sort(values)
    for percent in (0.5, 50, 99.5):
        rank = np.searchsorted(order, found.percentile(percent)) / len(order) * 100
        assert abs(rank - percent) <= 100 / (2 * MAX_VALUES) + 1e-3


def test_what_is_not_finite_does_not_count():
    found = summarise([np.array([1.0, np.nan, 3.0, np.inf], np.float32)])
    assert (found.count, found.mean, found.percentile(50)) == (2, 2.0, 2.0)
    nothing = summarise([np.full(3, np.nan)])
    assert nothing.count == 0
    with pytest.raises(ConfigurationError, match="no voxel"):
        nothing.percentile(50)
    assert pooled([nothing, found]).mean == 2.0


def test_damaged_arrays_are_none():
    head, values, weights = as_arrays(summarise([np.arange(5)]))
    for broken in (
        (head, values[:-1], weights),
        (head, values[::-1], weights),
        (head[:2], *[values] * 2),
    ):
        with pytest.raises(ValueError, match="no intensities"):
            from_arrays(broken)


@pytest.mark.parametrize("axis", range(4))
def test_a_large_volume_is_drawn_from_everywhere(monkeypatch, axis):
    """Every 2^k-th voxel would be of one plane or time point alone."""
    monkeypatch.setattr("radiobject.sampling.intensities._MAX_GATHERED", 4096)
    ramp = np.arange(32, dtype=np.float32).reshape([32 if a == axis else 1 for a in range(4)])
    volume = np.broadcast_to(ramp, (32, 32, 32, 32))[..., :: 1 if axis == 3 else 4]
    found = summarise(np.array_split(np.ascontiguousarray(volume), 5))
    assert found.values.tolist() == list(range(32))
    share = found.weights / found.weights.sum() * 32
    assert np.abs(share - 1).max() < 0.5
    for percent in (0, 1, 25, 50, 99, 100):
        assert abs(found.percentile(percent) - np.percentile(ramp, percent)) <= 1


def test_every_voxel_of_a_large_volume_has_the_same_chance(monkeypatch):
    monkeypatch.setattr("radiobject.sampling.intensities._MAX_GATHERED", 1024)
    ids = np.arange(100_003, dtype=np.int32)
    found = summarise([ids])
    drawn = found.values[1:-1].astype(int)  # The smallest and the largest are always there.
    assert len(drawn) == len(set(drawn))
    assert 512 <= len(drawn) <= 1024
    apart = np.diff(drawn // 128)
    assert set(apart.tolist()) == {1}, "one of each stratum of 128"
    for bit in range(7):  # Each half, quarter ... of a stratum is drawn from about alike.
        assert abs((drawn >> bit & 1).mean() - 0.5) < 0.08


def test_what_is_drawn_does_not_depend_on_slabs(monkeypatch):
    monkeypatch.setattr("radiobject.sampling.intensities._MAX_GATHERED", 1000)
    values = np.random.default_rng(3).normal(size=50_021).astype(np.float32)
    whole = summarise([values])
    for cuts in ([1, 2, 5, 4096], [777], range(300, 50_000, 301)):
        cut = summarise(np.split(values, cuts))
        assert np.array_equal(cut.values, whole.values)
        assert np.array_equal(cut.weights, whole.weights)
    assert (whole.percentile(0), whole.percentile(100)) == (values.min(), values.max())
