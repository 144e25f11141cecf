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
