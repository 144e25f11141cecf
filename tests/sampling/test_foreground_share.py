import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiobject.sampling.foreground_share import foreground_bounds, foreground_share
from radiobject.sampling.labels import build_label_index


def true_share(mask, start, patch, classes):
    cut = tuple(slice(max(a, 0), max(a + n, 0)) for a, n in zip(start, patch, strict=True))
    return np.isin(mask[cut], classes).sum() / np.prod(patch)


def noise(seed, shape, share):
    """Blocks of class 1 and speckles of class 2."""
    rng = np.random.default_rng(seed)
    coarse = rng.random([-(-n // 6) for n in shape]) < share
    mask = np.kron(coarse, np.ones((6,) * len(shape)))[tuple(slice(n) for n in shape)]
    mask[rng.random(shape) < 0.05] = 2
    return mask.astype(np.uint8)


@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(*[st.integers(4, 30)] * 3),
    patch=st.tuples(*[st.integers(1, 34)] * 3),
    extent=st.sampled_from([4, 8, 32]),
    classes=st.sampled_from([None, [1], [2], [1, 2], [9]]),
)
def test_the_truth_lies_within_the_bounds(seed, shape, patch, extent, classes):
    mask = noise(seed, shape, 0.4)
    summary = build_label_index(mask, extent=extent)
    rng = np.random.default_rng(seed)
    starts = np.stack([rng.integers(-5, n, 6) for n in shape], axis=-1)
    low, high = foreground_bounds(summary, starts, patch, classes)
    for k, start in enumerate(starts.tolist()):
        true = true_share(mask, start, patch, classes or [1, 2])
        assert low[k] - 1e-12 <= true <= high[k] + 1e-12


def test_bounds_of_whole_tiles_are_exact():
    mask = noise(1, (64, 96, 64), 0.5)
    summary = build_label_index(mask)
    starts = np.array([[0, 0, 0], [0, 32, 0], [32, 64, 32]])
    low, high = foreground_bounds(summary, starts, (32, 32, 32))
    assert np.array_equal(low, high)
    assert low.tolist() == [true_share(mask, s, (32, 32, 32), [1, 2]) for s in starts.tolist()]


def test_volumes_with_time():
    mask = np.zeros((20, 20, 20, 3), np.uint8)
    mask[4:9, 5:9, 6:9, 1:] = 9
    summary = build_label_index(mask, extent=8)
    low, high = foreground_bounds(summary, np.array([[0, 0, 0, 0]]), (16, 16, 16, 3))
    assert low[0] == high[0] == 5 * 4 * 3 * 2 / (16**3 * 3)


def two_organs():
    mask = np.zeros((64, 64, 64), np.uint8)
    mask[0:32, 0:32, 0:32] = 1
    mask[60:62, 60:62, 60:62] = 2
    return mask


def test_share_is_exact_for_small_structures_and_close_for_large_ones():
    mask = two_organs()
    summary = build_label_index(mask)
    starts = np.array([[0, 0, 0], [16, 16, 16], [32, 32, 32]])
    share = foreground_share(summary, starts, (32, 32, 32))
    assert share[0] == pytest.approx(1.0)
    assert share[1] == pytest.approx(0.125, rel=0.3)
    assert share[2] == pytest.approx(8 / 32**3)
    assert foreground_share(summary, starts, (32, 32, 32), [1])[2] == 0
