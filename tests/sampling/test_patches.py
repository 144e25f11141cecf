import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiobject.exceptions import ConfigurationError
from radiobject.sampling.patches import (
    check_patch_size,
    grid_starts,
    padding_of,
    patch_affines,
    starts_around,
    uniform_starts,
)
from radiobject.sampling.philox import philox

side = st.integers(1, 40)
triple = st.tuples(side, side, side)


@given(shape=triple, patch=triple, seed=st.integers(0, 99))
def test_uniform_starts_stay_inside_or_centre_the_volume(shape, patch, seed):
    starts = uniform_starts(np.tile(shape, (32, 1)), patch, philox(seed, 0, np.arange(32)))
    for axis in range(3):
        slack = shape[axis] - patch[axis]
        if slack >= 0:
            assert starts[:, axis].min() >= 0
            assert starts[:, axis].max() <= slack
        else:
            assert set(starts[:, axis]) == {-(-slack // 2)}


def test_uniform_starts_are_uniform():
    n, shape, patch = 80_000, (11, 9, 8), (4, 5, 8)
    starts = uniform_starts(np.tile(shape, (n, 1)), patch, philox(2, 5, np.arange(n)))
    cells = starts[:, 0] * 5 + starts[:, 1]
    counts = np.bincount(cells, minlength=40)
    expected = n / 40
    assert set(starts[:, 2]) == {0}
    assert ((counts - expected) ** 2 / expected).sum() < 76.0  # 99.96th percentile, 39 d.o.f.


@given(shape=triple, patch=triple, seed=st.integers(0, 99), data=st.data())
def test_patches_around_a_voxel_contain_it(shape, patch, seed, data):
    voxel = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    starts = starts_around(
        np.tile(voxel, (16, 1)), np.tile(shape, (16, 1)), patch, philox(seed, 0, np.arange(16))
    )
    for axis in range(3):
        assert (starts[:, axis] <= voxel[axis]).all()
        assert (voxel[axis] < starts[:, axis] + patch[axis]).all()
        if shape[axis] >= patch[axis]:
            assert starts[:, axis].min() >= 0
            assert starts[:, axis].max() <= shape[axis] - patch[axis]


def test_a_voxel_near_a_corner_has_many_positions():
    starts = starts_around(
        np.tile((5, 5, 5), (500, 1)),
        np.tile((64, 64, 64), (500, 1)),
        (16, 16, 16),
        philox(0, 0, np.arange(500)),
    )
    assert len({tuple(s) for s in starts}) > 100


def test_padding_before_and_after():
    pad = padding_of(np.array([[-2, 0, 3]]), np.array([[3, 10, 5]]), (8, 4, 4))
    assert pad.tolist() == [[[2, 3], [0, 0], [0, 2]]]


def test_affine_of_a_patch_maps_its_first_voxel_where_it_was():
    rng = np.random.default_rng(0)
    affines = np.tile(np.eye(4), (5, 1, 1))
    affines[:, :3] = rng.normal(size=(5, 3, 4))
    starts = rng.integers(-5, 50, size=(5, 4))
    moved = patch_affines(affines, starts)
    for before, after, start in zip(affines, moved, starts, strict=True):
        assert np.allclose(after @ [1, 2, 3, 1], before @ [*np.add(start[:3], [1, 2, 3]), 1])


@given(
    shape=st.tuples(side, side, side), patch=triple, overlap=st.sampled_from([0.0, 0.25, 0.5, 0.9])
)
def test_a_grid_covers_every_voxel(shape, patch, overlap):
    seen = np.zeros(shape, bool)
    for start in grid_starts(shape, patch, overlap):
        low = np.maximum(start, 0)
        seen[tuple(slice(a, b) for a, b in zip(low, start + patch, strict=True))] = True
    assert seen.all()


@given(shape=triple, patch=triple, overlap=st.sampled_from([0.0, 0.25, 0.33, 0.5, 0.75]))
def test_a_grid_has_the_positions_of_monai(shape, patch, overlap):
    inferers = pytest.importorskip("monai.inferers.utils")
    data = pytest.importorskip("monai.data.utils")
    padded = tuple(max(n, p) for n, p in zip(shape, patch, strict=True))
    steps = inferers._get_scan_interval(padded, patch, 3, (overlap,) * 3)
    theirs = [[s.start for s in cut] for cut in data.dense_patch_slices(padded, patch, steps)]
    assert grid_starts(padded, patch, overlap).tolist() == theirs


@pytest.mark.parametrize("bad", [(1, 2), (0, 4, 4), (4.0, 4, 4), 7, (4, 4, -1)])
def test_a_patch_size_that_cannot_be_is_refused(bad):
    with pytest.raises(ConfigurationError, match="patch_size must be 3 whole numbers"):
        check_patch_size(bad, 3)


def test_an_overlap_of_one_is_refused():
    with pytest.raises(ConfigurationError, match="overlap must be in"):
        grid_starts((8, 8, 8), (4, 4, 4), 1.0)
