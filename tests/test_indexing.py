"""`Index` as documented, and positions as NumPy and pandas have them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiobject import Index, align
from radiobject.indexing import Groups, positions_of, positions_of_keys
from radiobject.rows.indexers import first_positions, last_positions, sampled

KEYS = st.lists(st.sampled_from("abcdef"), unique=True)


def test_lookups_and_their_errors():
    index = Index.build(["s1", "s2", "s3"], "obs_id")
    assert (len(index), list(index), "s2" in index, "d" in index) == (
        3, ["s1", "s2", "s3"], True, False,
    )  # fmt: skip
    assert index.get_index("s3") == 2
    assert index.get_key(0) == "s1"
    with pytest.raises(KeyError, match="Key 'd' not found in index"):
        index.get_index("d")
    with pytest.raises(IndexError, match=r"Index -1 out of range \[0, 3\)"):
        index.get_key(-1)
    with pytest.raises(ValueError, match="Duplicate keys detected"):
        Index.build(["a", "b", "a"])


def test_take_and_mask():
    index = Index.build("abc", "n")
    assert index.take([2, 0]).to_list() == ["c", "a"]
    assert index.mask(np.array([True, False, True])).to_list() == ["a", "c"]
    with pytest.raises(IndexError):
        index.take([-1])
    with pytest.raises(IndexError):
        index.take([3])
    with pytest.raises(ValueError, match="Duplicate"):
        index.take([0, 0])
    with pytest.raises(ValueError, match="Boolean array length 2 != index length 3"):
        index.mask(np.array([True, False]))


@given(KEYS, KEYS)
def test_set_operations_keep_order_and_name(first, second):
    a, b = Index.build(first, "x"), Index.build(second, "y")
    assert (a & b).to_list() == [k for k in first if k in second]
    assert (a - b).to_list() == (a - b.to_set()).to_list() == [k for k in first if k not in second]
    assert (a | b).to_list() == [*first, *(k for k in second if k not in first)]
    assert set(a ^ b) == set(first) ^ set(second)
    assert (a | b).name == (a ^ b).name == "x"
    assert (a <= b) == (set(first) <= set(second))
    assert (a >= b) == (set(first) >= set(second))
    assert align(a, b) == a & b
    assert a.is_aligned(b) == (first == second)


def test_equality_hash_and_repr():
    assert Index.build("ab", "x") == Index.build("ab", "x")
    assert Index.build("ab", "x") != Index.build("ab", "y")
    assert Index.build("ab").__eq__("ab") is NotImplemented
    assert len({Index.build("ab"), Index.build("ab")}) == 1
    assert repr(Index.build("abc", "obs_id")) == "Index('obs_id', 3 keys)"
    assert repr(Index.build("ab")) == "Index(2 keys)"
    assert align() == Index.build([])


@given(st.data(), st.integers(0, 8))
def test_positions_follow_numpy(data, length):
    key = data.draw(
        st.one_of(
            st.integers(-10, 10),
            st.slices(length),
            st.lists(st.integers(-10, 10)),
            st.lists(st.booleans(), max_size=9).map(lambda m: np.array(m, dtype=bool)),
        )
    )
    items = np.arange(length)
    try:
        if isinstance(key, np.ndarray) and len(key) != length:
            raise IndexError("NumPy takes an empty mask for any length")
        expected = items[slice(0) if isinstance(key, list) and not key else key]
    except IndexError:
        with pytest.raises((IndexError, ValueError)):
            positions_of(key, length)
        return
    np.testing.assert_array_equal(positions_of(key, length), expected)


@pytest.mark.parametrize("key", [True, 1.5, "a", [0.5], None, np.zeros((2, 2), int)])
def test_other_keys_are_type_errors(key):
    with pytest.raises(TypeError):
        positions_of(key, 3)


@given(st.integers(0, 6), st.integers(-8, 8))
def test_head_and_tail_follow_pandas(length, n):
    series = pd.Series(np.arange(length))
    np.testing.assert_array_equal(first_positions(length, n), series.head(n))
    np.testing.assert_array_equal(last_positions(length, n), series.tail(n))


def test_sample_is_without_replacement_capped_and_reproducible():
    assert sorted(sampled(4, 9, 1)) == [0, 1, 2, 3]
    np.testing.assert_array_equal(sampled(50, 5, 3), sampled(50, 5, 3))
    with pytest.raises(ValueError, match="at least 0"):
        sampled(3, -1, None)


@given(
    st.lists(st.sampled_from("abcd"), max_size=8), st.lists(st.sampled_from("abcde"), max_size=6)
)
def test_groups_come_in_the_order_asked_with_repeats(labels, wanted):
    expected = [i for w in wanted for i, label in enumerate(labels) if label == w]
    assert Groups(labels).positions(wanted).tolist() == expected


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), unique=True), st.data())
def test_keys_are_found_whole(keys, data):
    some = data.draw(st.lists(st.sampled_from(keys), unique=True)) if keys else []
    columns = [np.array([k[i] for k in keys], dtype=object) for i in (0, 1)]
    found = [np.array([k[i] for k in some], dtype=object) for i in (0, 1)]
    names = ("s", "o")
    got = positions_of_keys(
        dict(zip(names, columns, strict=True)), dict(zip(names, found, strict=True))
    )
    assert got.tolist() == [i for i, key in enumerate(keys) if key in some]
