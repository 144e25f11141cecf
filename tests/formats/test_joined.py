"""Joined tables have the values that they were joined from."""

import pandas as pd
import pytest

from radiobject.formats.joined import concatenated, outer_join

LONG = 2**53 + 1


def test_integers_stay_where_a_row_has_none():
    left = pd.DataFrame({"id": ["a", "b"], "number": [LONG, 3], "smoker": [True, False]})
    right = pd.DataFrame({"id": ["b", "c"], "score": pd.array([2**63, 1], "uint64")})
    joined = outer_join(left, right, "id").set_index("id")
    assert joined["number"].tolist()[:2] == [LONG, 3]  # a float has 2^53 here
    assert joined["score"].tolist()[1:] == [2**63, 1]
    assert joined["smoker"].tolist()[:2] == [True, False]
    assert joined.isna().sum().tolist() == [1, 1, 1]
    below = concatenated([left, right])
    assert below["number"].tolist()[:2] == [LONG, 3]


@pytest.mark.parametrize("kind", ["int64", "int8", "uint16", "bool", "float32", "object", "str"])
def test_types_stay_where_no_row_lacks_a_value(kind):
    table = pd.DataFrame({"id": ["a", "b"], "value": pd.Series([1, 0]).astype(kind)})
    for joined in (
        outer_join(table, pd.DataFrame({"id": ["a", "b"]}), "id"),
        concatenated([table]),
    ):
        assert joined["value"].dtype == table["value"].dtype
        assert joined["value"].tolist() == table["value"].tolist()
