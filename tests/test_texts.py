"""Compact texts and their look-up, against a list and a dictionary."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiobject import texts
from radiobject.texts import Lookup, Texts

# Names of files that are no UTF-8 have lone surrogates; few letters make repeats.
words = st.text(st.sampled_from(["a", "b", "é", "日", "\0", "\udc80", "😀"]), max_size=3)
foreign = st.one_of(words, st.integers(), st.none(), st.floats(), st.binary(max_size=2))


@given(st.lists(words, max_size=12), st.data())
def test_texts_are_a_list_of_them(values, data):
    found = Texts(values)
    assert found == values
    assert list(found) == values
    assert [found[i] for i in range(-len(values), len(values))] == values * 2
    assert found.to_array().tolist() == values
    places = st.integers(0, len(values) - 1) if values else st.nothing()
    rows = np.array(data.draw(st.lists(places)), np.intp)
    expected = [values[row] for row in rows]
    assert found.take(rows).tolist() == expected
    assert found.at(rows) == expected
    with pytest.raises(IndexError):
        found[len(values)]


@given(st.lists(words, max_size=12), st.lists(foreign, max_size=6))
def test_a_look_up_is_a_dictionary(values, asked):
    found, expected = Lookup(Texts(values)), {text: row for row, text in enumerate(values)}
    wanted = np.empty(len(values) + len(asked), object)
    wanted[:] = [*values, *asked]
    by_one = [expected.get(text, -1) if isinstance(text, str) else -1 for text in wanted]
    assert [found.get(text, -1) for text in wanted] == by_one
    assert found.rows(wanted).tolist() == by_one


def test_texts_of_one_hash_are_not_confused(monkeypatch):
    monkeypatch.setattr(texts, "_hashes", lambda encoded, count: np.zeros(count, np.uint32))
    found = Lookup(Texts(["a", "b", "a"]))
    assert [found["a"], found["b"], found.get("c", -1)] == [2, 1, -1]
    assert found.rows(["b", "c", "a"]).tolist() == [1, -1, 2]
