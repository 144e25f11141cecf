"""The box of tiles that hold more than background, against a search voxel by voxel."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radiobject.geometry.box import Box
from radiobject.geometry.content import content_box

LOOKS = {
    "C": lambda voxels: voxels,
    "F": np.asfortranarray,
    "turned": lambda voxels: np.ascontiguousarray(voxels.T).T,
    "flipped": lambda voxels: np.ascontiguousarray(voxels[::-1])[::-1],
}


def bounding_box(voxels, extents):
    """The tiles in whose bounding box every voxel lies that is not the first voxel, bit by bit."""
    bits = np.ascontiguousarray(voxels).view(np.uint8).reshape(*voxels.shape, -1)
    first = bits[(0,) * voxels.ndim]
    where = np.argwhere((bits != first).any(-1))
    low, high = where.min(0) // extents, where.max(0) // extents + 1
    stop = np.minimum(high * extents, voxels.shape)
    return Box(tuple((low * extents).tolist()), tuple(stop.tolist()))


@given(data=st.data())
@settings(deadline=None, max_examples=300)
def test_it_is_the_bounding_box_of_what_differs(data):
    shape = data.draw(st.lists(st.integers(1, 24), min_size=3, max_size=4))
    extents = [data.draw(st.integers(1, n)) for n in shape]
    dtype = data.draw(st.sampled_from(["bool", "int8", "uint16", "int64", "float32", "float64"]))
    voxels = np.full(shape, data.draw(st.sampled_from([0, 1])), dtype)
    places = st.tuples(*(st.integers(0, n - 1) for n in shape))
    for place in data.draw(st.lists(places, min_size=1, max_size=4)):
        voxels[place] = 1 - voxels[place] if dtype == "bool" else 7
    box = content_box(LOOKS[data.draw(st.sampled_from(sorted(LOOKS)))](voxels), extents)
    if voxels.tobytes() == np.full(shape, voxels[(0,) * len(shape)]).tobytes():
        assert [b - a for a, b in zip(box.start, box.stop, strict=True)] <= extents
    else:
        assert box == bounding_box(voxels, np.array(extents))


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 10, 11), (4, 4, 4), (1, 1, 1), (5, 1, 9, 2)])
def test_one_tile_is_left_of_nothing(shape):
    extents = tuple(min(4, n) for n in shape)
    box = content_box(np.zeros(shape, np.int16), extents)
    assert box.within(shape)
    assert all(a % e == 0 for a, e in zip(box.start, extents, strict=True))
    assert 0 < box.size <= math.prod(extents)


def test_every_single_voxel_counts():
    """Also those that a first look at every eighth voxel misses."""
    for place in itertools.product((0, 3, 4, 11, 12, 18), repeat=3):
        voxels = np.zeros((19, 19, 19), np.int16)
        voxels[place] = 5
        voxels[9, 9, 9] = 5
        if any(place):
            assert content_box(voxels, (4, 4, 4)) == bounding_box(voxels, np.array([4, 4, 4]))


def test_values_that_only_compare_equal_differ():
    voxels = np.zeros((8, 8, 8), np.float32)
    voxels[7, 7, 7] = -0.0
    assert content_box(voxels, (4, 4, 4)) == Box((4, 4, 4), (8, 8, 8))
    voxels = np.full((8, 8, 8), np.nan)
    voxels[5, 1, 1] = 1
    assert content_box(voxels, (4, 4, 4)) == Box((4, 0, 0), (8, 4, 4))
