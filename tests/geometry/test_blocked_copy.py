"""Transposing in blocks, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radiobject.geometry import blocked_copy
from radiobject.geometry.blocked_copy import copy_in_blocks
from radiobject.storage.tiles.c_order import c_ordered

DTYPES = ["?", "i1", "u1", "<i2", ">i2", "u2", "<f4", ">f4", "<i4", "u4", "<f8", ">f8", "i8"]


@st.composite
def fortran_arrays(draw: st.DrawFn) -> np.ndarray:
    """Return an array of random bits in Fortran order, or a window or reflection of one."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    ndim = draw(st.sampled_from([3, 4]))
    longest = 40 if ndim == 3 else 20
    shape = draw(st.lists(st.integers(1, longest), min_size=ndim, max_size=ndim))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits = rng.integers(0, 2 if dtype.kind == "b" else 256, int(np.prod(shape)) * dtype.itemsize)
    # An odd place in memory, as behind a header of any length.
    lead = draw(st.sampled_from([0, 1, 8, 352]))
    memory = np.concatenate([np.zeros(lead, np.uint8), bits.astype(np.uint8)])
    array = np.frombuffer(memory.tobytes(), dtype, offset=lead).reshape(shape, order="F")
    window = tuple(
        slice(draw(st.integers(0, n - 1)), None, draw(st.sampled_from([1, 1, 1, 1, 2])))
        for n in shape
    )
    flipped = draw(st.lists(st.integers(0, ndim - 1), max_size=1))
    return np.flip(array[window], flipped)


@settings(max_examples=300, deadline=None)
@given(fortran_arrays(), st.integers(6, 19))
def test_every_bit_arrives(array: np.ndarray, cached_bits: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(blocked_copy, "_CACHED_BYTES", 1 << cached_bits)
        got = c_ordered(array)
        assert got.flags.c_contiguous
        assert got.dtype == array.dtype
        assert got.tobytes() == array.tobytes()
        untouched = array.dtype.type(7)
        whole = np.full((*array.shape[:-1], array.shape[-1] + 3), untouched, array.dtype)
        copy_in_blocks(array, whole[..., 1:-2])
        assert whole[..., 1:-2].tobytes() == array.tobytes()
        assert (whole[..., [0, -2, -1]] == untouched).all()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_neighbours_may_lie_along_any_axis(data: st.DataObject) -> None:
    array = data.draw(fortran_arrays())
    turned = array.transpose(data.draw(st.permutations(range(array.ndim))))
    got = c_ordered(turned)
    assert got.flags.c_contiguous
    assert got.tobytes() == turned.tobytes()


@settings(max_examples=50, deadline=None)
@given(fortran_arrays())
def test_type_and_byte_order_change_in_the_same_copy(array: np.ndarray) -> None:
    native = np.empty(array.shape, array.dtype.newbyteorder("="))
    copy_in_blocks(array, native)
    assert native.tobytes() == array.astype(native.dtype).tobytes()
    if array.dtype.kind != "f":
        wide = np.empty(array.shape, np.float64)
        copy_in_blocks(array, wide)
        np.testing.assert_array_equal(wide, array.astype(np.float64))


@settings(max_examples=50, deadline=None)
@given(fortran_arrays())
def test_c_order_into_fortran_order(array: np.ndarray) -> None:
    out = np.empty(array.shape, array.dtype, order="F")
    copy_in_blocks(np.ascontiguousarray(array), out)
    assert out.tobytes() == array.tobytes()


def test_no_copy_of_what_is_in_order() -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    assert c_ordered(array) is array
