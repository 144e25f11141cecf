"""Tiles and parts of tiles, against a volume of tile numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiobject.geometry.box import Box
from radiobject.geometry.tiling import Tiling, extents_for_patch, parts_of, tiles_covering


@st.composite
def tilings_and_boxes(draw):
    ndim = draw(st.sampled_from([3, 4]))
    shape = tuple(draw(st.integers(1, 12)) for _ in range(ndim))
    extents = tuple(draw(st.integers(1, n)) for n in shape)
    start = tuple(draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(draw(st.integers(a, n)) for a, n in zip(start, shape, strict=True))
    return Tiling(shape, extents, draw(st.sampled_from("CF"))), Box(start, stop)


@given(tilings_and_boxes())
def test_parts_cover_the_box_once(case):
    tiling, box = case
    volume = np.arange(math.prod(tiling.shape)).reshape(tiling.shape)
    padded = np.full([g * e for g, e in zip(tiling.grid, tiling.extents, strict=True)], -1)
    padded[tuple(slice(0, n) for n in tiling.shape)] = volume
    out = np.full(box.shape, -2)
    positions = set()
    for position, in_tile, in_box in parts_of(box, tiling.extents):
        tile = padded[
            tuple(slice(i * e, i * e + e) for i, e in zip(position, tiling.extents, strict=True))
        ]
        assert (out[in_box] == -2).all()
        out[in_box] = tile[in_tile]
        positions.add(position)
    np.testing.assert_array_equal(out, volume[box.slices])
    covering = tiles_covering(box, tiling.extents)
    grid = np.zeros(tiling.grid, bool)
    grid[covering] = True
    assert positions == ({tuple(map(int, p)) for p in np.argwhere(grid)} if box.size else set())


@given(tilings_and_boxes())
def test_numbers_positions_and_boxes_agree(case):
    tiling, _ = case
    numbers = tiling.numbers()
    assert sorted(numbers.ravel()) == list(range(tiling.count))
    owner = np.full(tiling.shape, -1)
    for number in range(tiling.count):
        position = tiling.position(number)
        assert numbers[position] == number
        inside = tiling.box(position)
        assert (owner[inside.slices] == -1).all()
        owner[inside.slices] = number
    assert (owner >= 0).all()


@pytest.mark.parametrize(
    ("patch", "most"), [((64, 64, 64), 64), ((32, 32, 32), 32), ((128, 128, 128), 64)]
)
def test_cubic_patches_get_cubic_tiles(patch, most):
    extents = extents_for_patch((240, 240, 155), patch)
    assert max(extents) <= 2 * min(extents)
    assert 16 <= min(extents) <= max(extents) <= most


def test_slices_get_flat_tiles():
    x, y, z = extents_for_patch((240, 240, 155), (240, 240, 1))
    assert z == 1
    assert x * y >= 2048


@given(
    st.lists(st.integers(1, 300), min_size=3, max_size=4),
    st.lists(st.integers(1, 300), min_size=3, max_size=4),
)
def test_extents_for_any_patch_fit_the_volume(shape, patch):
    extents = extents_for_patch(shape, patch)
    assert all(1 <= e <= n for e, n in zip(extents, shape, strict=True))
    assert math.prod(extents) <= 131072
