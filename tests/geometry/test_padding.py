"""Padding continues a volume as numpy.pad does, however far a box lies outside."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.geometry.box import Box
from radiobject.geometry.padding import PADDING_MODES, Padding, padded_source, source_positions

MODES = [mode for mode in PADDING_MODES if mode != "constant"]


@given(st.integers(1, 9), st.integers(-40, 40), st.integers(1, 50), st.sampled_from(MODES))
def test_positions_are_numpys(length, start, count, mode):
    margin = 100
    oracle = np.pad(np.arange(length), margin, mode=mode)
    got = source_positions(start, start + count, length, mode)
    np.testing.assert_array_equal(got, oracle[margin + start : margin + start + count])


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(-9, 9), st.integers(1, 9)), min_size=3, max_size=4
    ),
    st.sampled_from(MODES),
)
def test_source_holds_what_is_needed_and_no_more(axes, mode):
    shape = tuple(n for n, _, _ in axes)
    box = Box.at([a for _, a, _ in axes], [n for _, _, n in axes])
    source, positions = padded_source(box, shape, mode)
    assert source.within(shape)
    assert tuple(map(len, positions)) == box.shape
    for p, side in zip(positions, source.shape, strict=True):
        assert p.min() == 0
        assert p.max() == side - 1


def test_refusals():
    with pytest.raises(ConfigurationError, match="'mirror'"):
        Padding("mirror")
    with pytest.raises(ShapeError):
        padded_source(Box((5, 0), (5, 3)), (4, 4), "edge")
