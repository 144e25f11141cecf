"""Intensity scales: exact in integers or left to the reader."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from radiobject.formats.rescale import apply_if_lossless

INTEGERS = [np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)]


@st.composite
def scaled(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    dtype = draw(st.sampled_from(INTEGERS))
    bounds = np.iinfo(dtype)
    values = draw(st.lists(st.integers(int(bounds.min), int(bounds.max)), min_size=1, max_size=8))
    slope = draw(st.integers(-300, 300).filter(bool))
    return np.array(values, dtype=dtype), slope, draw(st.integers(-70_000, 70_000))


@settings(max_examples=400, deadline=None)
@given(scaled())
def test_integers_are_exact_or_untouched(case: tuple[np.ndarray, int, int]) -> None:
    data, slope, intercept = case
    out, rescale = apply_if_lossless(data, float(slope), float(intercept))
    exact = [int(value) * slope + intercept for value in data]
    if rescale is None:
        assert out.tolist() == exact
        assert out.dtype.itemsize == data.dtype.itemsize
    else:
        assert rescale == (slope, intercept)
        assert out is data
        bits = 8 * data.dtype.itemsize
        signed = -(1 << bits - 1) <= min(exact) and max(exact) < 1 << bits - 1
        unsigned = min(exact) >= 0 and max(exact) < 1 << bits
        assert not signed, "it would have fitted"
        assert not unsigned, "it would have fitted"


def test_no_scale() -> None:
    data = np.arange(3, dtype=np.int16)
    for slope, intercept in ((1, 0), (0, 7), (np.nan, 0), (1, np.nan), (np.inf, 0)):
        out, rescale = apply_if_lossless(data, slope, intercept)
        assert out is data
        assert rescale is None


def test_fractions_and_floats_are_left_to_the_reader() -> None:
    assert apply_if_lossless(np.arange(3, dtype=np.int16), 0.5, 0)[1] == (0.5, 0.0)
    assert apply_if_lossless(np.ones(3, np.float32), 2, 0)[1] == (2.0, 0.0)


def test_only_steps_far_below_one_that_hit_nothing_but_whole_numbers_are_labels() -> None:
    spread = np.array([-32768, 0, 32767], np.int16)
    labels, rescale = apply_if_lossless(spread, 2 / 65535, 65536 / 65535)
    assert (labels.tolist(), rescale) == ([0, 1, 2], None)
    halves = (1 / 65535, 32768 / 65535)
    assert apply_if_lossless(spread, *halves)[1] == halves, "0, 0.5 and 1 are no labels"
    even = np.array([0, 2, 4], np.int16)
    assert apply_if_lossless(even, 0.5, 0)[1] == (0.5, 0.0), "a coincidence"
