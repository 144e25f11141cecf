"""Any basic index means what it means to NumPy, and reads no more than the box it needs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

from radiobject.geometry.numpy_index import box_of_index

SHAPES = st.lists(st.integers(1, 6), min_size=3, max_size=4).map(tuple)


def through_the_box(data, key):
    box, cut = box_of_index(key, data.shape)
    part = data[tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))]
    return part[cut], box


@given(st.data(), SHAPES)
def test_any_index_equals_numpy(data, shape):
    volume = np.arange(np.prod(shape)).reshape(shape)
    key = data.draw(basic_indices(shape, allow_newaxis=False, allow_ellipsis=True))
    found, box = through_the_box(volume, key)
    expected = volume[key]
    np.testing.assert_array_equal(found, expected)
    assert found.shape == expected.shape
    if expected.size == volume.size:
        assert box.shape == shape


@given(SHAPES, st.integers(-9, 9))
def test_integers_are_in_range_or_an_index_error(shape, position):
    volume = np.zeros(shape)
    for kind in (int, np.int16, np.int64):
        try:
            expected = volume[kind(position)]
        except IndexError:
            with pytest.raises(IndexError, match="out of bounds for axis 0"):
                box_of_index(kind(position), shape)
        else:
            assert through_the_box(volume, kind(position))[0].shape == expected.shape


@pytest.mark.parametrize("key", [None, [0, 1], np.array([0]), True, np.zeros((2, 2, 2), bool), "x"])
def test_fancy_indices_are_refused_with_the_way_out(key):
    with pytest.raises(TypeError, match=r"to_numpy\(\)"):
        box_of_index(key, (2, 2, 2))


@pytest.mark.parametrize(("key", "said"), [((..., ...), "ellipsis"), ((0, 0, 0, 0), "too many")])
def test_impossible_indices_say_why(key, said):
    with pytest.raises(IndexError, match=said):
        box_of_index(key, (2, 2, 2))


def test_only_the_needed_box_is_read():
    box, cut = box_of_index((slice(8, 2, -3), 5, ...), (10, 10, 10))
    assert (box.start, box.stop) == ((5, 5, 0), (9, 6, 10))
    assert cut == (slice(None, None, -3), 0, slice(None, None, 1))
