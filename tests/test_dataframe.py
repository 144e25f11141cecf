"""Tables as pandas sees them, alone and as part of a data set."""

import numpy as np
import pandas as pd
import pytest
from stores import make_dataset

from radiobject import Dataframe, RadiObject
from radiobject.dataframe import INDEX_COLUMNS
from radiobject.exceptions import SchemaError, ViewError


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "obs_subject_id": ["s2", "s1", "é"],
            "obs_id": ["i2", "i1", "i3"],
            "age": [30, 61, 45],
            "dose": [0.5, np.nan, 2.0],
            "site": ["x", None, "日本"],
            "ok": [True, False, True],
            "seen": pd.to_datetime(["2020-01-01", None, "2021-02-03"]),
            "score": pd.array([1, None, 3], dtype="Int64"),
        }
    )


@pytest.fixture
def table(frame, tmp_path):
    return Dataframe.from_pandas(str(tmp_path / "t"), frame)


def test_what_was_written_comes_back_sorted_and_typed(table, frame):
    found = table.read()
    expected = frame.sort_values(list(INDEX_COLUMNS)).reset_index(drop=True)
    assert found["obs_subject_id"].tolist() == ["s1", "s2", "é"]
    for name in frame.columns:
        assert found[name].isna().tolist() == expected[name].isna().tolist(), name
        assert found[name].dropna().tolist() == expected[name].dropna().tolist(), name
    assert len(table) == 3
    assert table.shape == (3, 6)
    assert table.index_columns == INDEX_COLUMNS
    assert table.columns == ["age", "dose", "site", "ok", "seen", "score"]
    assert table.all_columns == [*INDEX_COLUMNS, *table.columns]
    assert {n: str(d) for n, d in table.dtypes.items()} == {
        "age": "int64", "dose": "float64", "site": "<U0", "ok": "bool", "seen": "datetime64[ns]",
        "score": "int64",
    }  # fmt: skip
    assert repr(table).startswith("Dataframe(uri=")
    assert "<table" in table._repr_html_()


def test_reading_parts(table):
    assert list(table.read(["site", "obs_id", "age"]).columns) == [*INDEX_COLUMNS, "site", "age"]
    assert list(table.read(["age"], include_index=False).columns) == ["age"]
    assert table.read(value_filter="age > 40")["age"].tolist() == [61, 45]
    assert table.read(["age"], value_filter="obs_subject_id == 'é'")["age"].tolist() == [45]
    assert list(table.read([]).columns) == list(INDEX_COLUMNS)
    with pytest.raises(KeyError, match="no column 'nope'"):
        table.read(["nope"])
    with pytest.raises(ValueError, match="there is no column 'nope'"):
        table.read(value_filter="nope == 1")


def test_columns_come_and_go_and_never_come_back(table):
    table.add_column("arm", "U8", fill="control")
    assert table.read(["arm"])["arm"].tolist() == ["control"] * 3
    table.drop_column("arm")
    assert "arm" not in table.columns
    table.add_column("arm", str)
    assert table.read(["arm"])["arm"].isna().all()
    with pytest.raises(SchemaError, match="already exists"):
        table.add_column("arm", int)
    with pytest.raises(SchemaError, match="conflicts with index column"):
        table.add_column("obs_id", int)
    with pytest.raises(SchemaError, match="Cannot drop index column"):
        table.drop_column("obs_id")
    with pytest.raises(SchemaError, match="does not exist"):
        table.drop_column("nope")
    with pytest.raises(SchemaError):
        table.add_column("", int)
    with pytest.raises(TypeError, match="type"):
        table.add_column("c", complex)


def test_update_inserts_replaces_and_keeps_the_rest(table):
    rows = {"obs_subject_id": ["s1", "s9"], "obs_id": ["i1", "i9"], "age": [62, 9]}
    table.update(pd.DataFrame(rows))
    found = table.read().set_index("obs_subject_id")
    assert found["age"].to_dict() == {"s1": 62, "s2": 30, "s9": 9, "é": 45}
    assert found.loc["s2", "site"] == "x"
    assert pd.isna(found.loc["s9", "site"])
    with pytest.raises(ValueError, match="must contain index column 'obs_id'"):
        table.update(pd.DataFrame({"obs_subject_id": ["s1"]}))
    with pytest.raises(ValueError, match="unknown column 'new'"):
        table.update(pd.DataFrame({**rows, "new": [1, 2]}))
    with pytest.raises(ValueError, match="several rows"):
        table.update(pd.DataFrame({"obs_subject_id": ["s1"] * 2, "obs_id": ["i1"] * 2}))
    for wrong in ("text", 2.5, 2**70):
        with pytest.raises(SchemaError, match="'age'"):
            table.update(pd.DataFrame({**rows, "age": [1, wrong]}))
    assert table.read(value_filter="obs_subject_id == 's1'")["age"].tolist() == [62]


def test_delete_by_condition(table):
    table.delete("age < 40 or site is None")
    assert table.read()["obs_subject_id"].tolist() == ["é"]


def test_create_refuses_what_cannot_be(tmp_path):
    for bad in ("obs_id", "", "a\0b"):
        with pytest.raises(SchemaError):
            Dataframe.create(str(tmp_path / "t"), {bad: int})
    with pytest.raises(TypeError):
        Dataframe.create(str(tmp_path / "t"), {"c": np.complex128})
    with pytest.raises(ValueError, match="must contain index column 'obs_id'"):
        Dataframe.from_pandas(str(tmp_path / "t"), pd.DataFrame({"obs_subject_id": ["a"]}))
    with pytest.raises(SchemaError, match="mixes"):
        Dataframe.from_pandas(
            str(tmp_path / "t"),
            pd.DataFrame({"obs_subject_id": ["a", "b"], "obs_id": ["a", "b"], "m": [1, "x"]}),
        )
    empty = Dataframe.create(str(tmp_path / "t"), {"age": "i4"}, index_columns=("k",))
    assert (len(empty), empty.index_columns, empty.read().columns.tolist()) == (
        0,
        ("k",),
        ["k", "age"],
    )


def test_a_data_sets_own_columns_stay_its_own(tmp_path):
    make_dataset(tmp_path / "store")
    radi = RadiObject(str(tmp_path / "store"))
    rows = radi.CT.obs.read()
    assert rows["spacing_z"].tolist() == [2.0] * 4
    assert rows["dim_x"].tolist() == [6] * 4
    assert rows["voxel_spacing"].tolist() == ["(0.5, 1.0, 2.0)"] * 4
    assert rows["dimensions"].tolist() == ["(6, 5, 4)"] * 4
    assert not [name for name in rows.columns if name.startswith("_")]
    rows["kvp"] = 7
    radi.CT.obs.update(rows)
    assert radi.CT.obs.read(["kvp"])["kvp"].tolist() == [7] * 4
    with pytest.raises(SchemaError, match="kept by the store"):
        radi.CT.obs.update(rows.assign(dim_x=9))
    with pytest.raises(SchemaError, match="kept by the store"):
        radi.CT.obs.drop_column("dim_x")
    with pytest.raises(SchemaError, match="kept by the store"):
        radi.obs_meta.update(radi.obs_meta.read().assign(obs_ids="[]"))
    with pytest.raises(SchemaError, match="kept by the store"):
        radi.CT.obs.add_column("_array", str)
    with pytest.raises(ViewError, match="belong to a data set"):
        radi.CT.obs.delete("kvp == 7")
    with pytest.raises(ViewError, match="view"):
        radi.filter("age > 40").obs_meta.drop_column("age")
    radi.validate()


def test_a_stale_object_does_not_undo_what_another_wrote(tmp_path):
    make_dataset(tmp_path / "store")
    first, second = (RadiObject(str(tmp_path / "store")) for _ in range(2))
    table = first.obs_meta
    assert len(table) == 4
    second.obs_meta.update(pd.DataFrame({"obs_subject_id": ["a"], "site": ["new"]}))
    table.update(pd.DataFrame({"obs_subject_id": ["a"], "age": [1.0]}))
    found = table.read(value_filter="obs_subject_id == 'a'").iloc[0]
    assert (found["site"], found["age"]) == ("new", 1.0)
