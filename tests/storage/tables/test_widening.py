"""Columns whose types widen with what is appended; older states keep theirs."""

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from radiobject import RadiObject, VolumeCollection
from radiobject.exceptions import SchemaError
from radiobject.jsonable import plain
from radiobject.storage.commits.head import Clock
from radiobject.storage.commits.transaction import transaction
from radiobject.storage.records import NewVolume, write_new_volume
from radiobject.storage.schema import collection as stored
from radiobject.storage.schema import dataset
from radiobject.storage.tables.columns import TEXT
from radiobject.storage.tables.table import Table, create_table
from radiobject.storage.tables.widening import as_text, common_dtype, converted, widened
from radiobject.writers import RadiObjectWriter, VolumeCollectionWriter

LARGE = 2**53 + 1
INT, FLOAT, BOOL = np.dtype(np.int64), np.dtype(np.float64), np.dtype(bool)
TIME = np.dtype("datetime64[ns]")


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (INT, [1, None, 2.0], INT),
        (INT, [2.5], FLOAT),
        (np.dtype(np.int32), [2**40], INT),
        (INT, [2**80 + 1], TEXT),
        (INT, ["x"], TEXT),
        (FLOAT, [3, np.nan], FLOAT),
        (FLOAT, [2**53 + 1], TEXT),
        (INT, [2**53 + 1, 0.5], TEXT),
        (np.dtype(np.float32), [2**24 + 1], FLOAT),
        (np.dtype(np.float32), [2.0**24 + 1], FLOAT),
        (np.dtype(np.float32), [0.1], np.dtype(np.float32)),
        (np.dtype(np.float32), [1e300], FLOAT),
        (BOOL, [0, True], BOOL),
        (BOOL, [2], INT),
        (BOOL, ["no"], TEXT),
        (TEXT, [1, 2.5], TEXT),
        (TIME, [datetime.datetime(2020, 1, 1)], TIME),
        (TIME, [1.5], TEXT),
        (TIME, [datetime.datetime(9999, 12, 31)], TEXT),
        (TIME, [np.datetime64("1500-01-01")], TEXT),
        (TIME, [np.datetime64(1, "ps")], TEXT),
        (TIME, [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)], TEXT),
    ],
)
def test_the_narrowest_type_that_holds_the_values(dtype, values, expected):
    assert widened(dtype, values, "c") == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [([True], BOOL), ([1, 2.5], FLOAT), ([True, 3], INT), ([1, "a"], TEXT), ([None, 1], INT),
     ([1, float("nan")], FLOAT), ([2**53 + 1, 0.5], TEXT), ([0.5, 2**53 + 1], TEXT),
     ([datetime.date(9999, 12, 31)], TEXT), ([datetime.date(2020, 1, 1)], TIME)],
)  # fmt: skip
def test_the_type_of_a_new_column(values, expected):
    assert common_dtype(values, "c") == expected


def test_what_is_no_value_of_a_column():
    with pytest.raises(SchemaError, match=r"'c'.*\[1, 2\]"):
        widened(FLOAT, [[1, 2]], "c")


def test_numbers_as_text():
    assert converted([2.0, 2.5, 7, True, None, "x"], TEXT) == ["2", "2.5", "7", "True", None, "x"]
    assert as_text(np.datetime64("2020-01-01", "ns")).startswith("2020-01-01")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([LARGE]), "float64"),
        (np.array([LARGE], np.uint64), "float64"),
        ([np.int64(LARGE)], "float64"),
        (np.array([2**24 + 1]), "float32"),
        (np.array([2.0**24 + 1]), "float32"),
        ([2.0**24 + 1], "float32"),
        ([Decimal(LARGE)], "float64"),
        (np.array([1e300]), "float32"),
        (np.array([2**63 + 5], np.uint64), "int64"),
        (np.array(["9999-12-31"], "datetime64[us]"), "datetime64[ns]"),
        ([datetime.datetime(1500, 1, 1)], "datetime64[ns]"),
        ([datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)], "datetime64[ns]"),
        (["2020-01-01T10:00+02:00"], "datetime64[ns]"),
        (["2020-01-01 10:00:00.5Z"], "datetime64[ns]"),
        (["2020-01-01 10:00-0300"], "datetime64[ns]"),
        (np.array([1], "datetime64[ps]"), "datetime64[ns]"),
        ([pd.Timestamp(9999, 12, 31)], "datetime64[ns]"),
        ([pd.Timedelta("1s")], "datetime64[ns]"),
        ([np.timedelta64(1, "s")], "datetime64[ns]"),
        ([True], "datetime64[ns]"),
    ],
)
def test_no_column_takes_what_it_would_change(tmp_path, values, dtype):
    uri = str(tmp_path / "t")
    create_table(uri, ["key"], {"c": np.dtype(dtype)})
    with pytest.raises(SchemaError, match=r"'c'.*unchanged"):
        Table(uri).write({"key": ["a"], "c": values}, 1)


@pytest.mark.parametrize("value", [np.datetime64("2020-01-01"), np.timedelta64(5, "D")])
@pytest.mark.parametrize("given", [np.array, list])
def test_no_number_is_made_of_a_time(tmp_path, value, given):
    uri = str(tmp_path / "t")
    create_table(uri, ["key"], {"c": FLOAT})
    with pytest.raises(SchemaError, match=r"'c' of type float64 cannot hold a time"):
        Table(uri).write({"key": ["a"], "c": given([value])}, 1)


def test_nanoseconds_are_kept(tmp_path):
    text = "2020-01-01T00:00:00.123456789"
    uri = str(tmp_path / "t")
    create_table(uri, ["key"], {"c": TIME})
    given = [pd.Timestamp(text), np.datetime64(text), text.replace("T", " "), None]
    Table(uri).write({"key": list("abcd"), "c": given}, 1)
    assert Table(uri).read(["c"])["c"].to_list() == [np.datetime64(text)] * 3 + [None]
    assert common_dtype([pd.Timestamp(text)], "c") == TIME
    with RadiObjectWriter(str(tmp_path / "d")) as writer:
        writer.write_obs_meta(pd.DataFrame({"obs_subject_id": ["a"], "seen": [pd.Timestamp(text)]}))
    radi = RadiObject(str(tmp_path / "d"))
    assert radi.obs_meta.read()["seen"].tolist() == [pd.Timestamp(text)]
    assert [plain(v) for v in (np.datetime64(text), np.array([text], TIME), pd.NaT)] == [
        text, [text], None,
    ]  # fmt: skip


def test_what_columns_take(tmp_path):
    uri = str(tmp_path / "t")
    create_table(uri, ["key"], {"f": FLOAT, "s": np.dtype(np.float32), "t": TIME})
    values = {"f": [2**60, -(2**53), np.inf], "s": [0.1, 2**24, None], "t": [5, None, 2**60]}
    Table(uri).write({"key": ["a", "b", "c"], **values}, 1)
    found = {name: column.to_list() for name, column in Table(uri).read(["f", "s", "t"]).items()}
    assert found["f"] == values["f"]
    assert found["s"] == [np.float32(0.1), 2**24, None]
    assert found["t"] == [np.datetime64(5, "ns"), None, np.datetime64(2**60, "ns")]


def test_large_integers_meet_a_fraction_as_text(tmp_path):
    uri = str(tmp_path / "t")
    create_table(uri, ["key"], {"c": INT})
    table, clock = Table(uri), Clock()
    table.write({"key": ["a"], "c": [LARGE]}, clock.tick())
    rows = stored.fitted_columns(table, {"key": ["b"], "c": [0.5]}, clock)
    table.write(rows, clock.tick())
    assert table.read(["c"])["c"].to_list() == [str(LARGE), "0.5"]


def write_one(uri, number, **attrs):
    with VolumeCollectionWriter(str(uri)) as writer:
        writer.write_volume(np.zeros((2, 2, 2), np.uint8), f"v{number}", f"s{number}", **attrs)
    return VolumeCollection(str(uri))


def test_appended_values_widen_a_column_and_the_commit_says_so(tmp_path):
    uri = str(tmp_path / "d")
    with RadiObjectWriter(uri) as writer:
        ct = writer.add_collection("CT")
        for n in range(3):
            ct.write_volume(np.zeros((2, 2, 2), np.uint8), f"v{n}", f"s{n}", tr=2, ok=True, x=n)
    radi = RadiObject(uri)
    for n, attrs in ((3, {"tr": 2.5}), (4, {"tr": "fast", "x": 7, "ok": 3})):
        other = write_one(tmp_path / f"c{n}", n, **attrs)
        with transaction(uri, "append") as tx:
            volume = NewVolume(other.iloc[0].to_numpy(), f"s{n}", f"v{n}", columns=attrs)
            record = write_new_volume(radi.CT.uri, tx.timestamp, volume)
            stored.append_records(radi.CT.uri, [record], tx.clock)
            dataset.add_subjects(uri, {"obs_subject_id": [f"s{n}"]}, tx.clock)
            dataset.change_obs_ids(tx, added=[(f"s{n}", f"v{n}")])
            dataset.publish(tx, subjects=1, volumes=1)
    now = RadiObject(uri)
    obs = now.CT.obs.read(["tr", "ok", "x"])
    assert obs["tr"].tolist() == ["2", "2", "2", "2.5", "fast"]
    assert obs["x"].tolist()[:3] == [0, 1, 2]
    assert obs["x"].tolist()[4] == 7
    assert obs["ok"].tolist()[0] == 1
    assert obs["ok"].tolist()[4] == 3
    assert RadiObject(uri, at=-3).CT.obs.read(["tr"])["tr"].tolist() == [2, 2, 2]
    assert RadiObject(uri, at=-2).CT.obs.read(["tr"])["tr"].tolist() == [2, 2, 2, 2.5]
    assert now.CT.filter("tr == '2'").obs_ids == ["v0", "v1", "v2"]
    said = now.history()["operation"].tolist()
    assert said[1] == "append; CT: column tr widened from int64 to float64"
    assert "column tr widened from float64 to text" in said[2]
    assert "column ok widened from bool to int64" in said[2]
    now.validate(checksums=True)


@pytest.mark.parametrize("value", [2.5, "2.5"])
def test_a_declared_schema_is_kept(tmp_path, value):
    with (
        pytest.raises(SchemaError, match="tr"),
        VolumeCollectionWriter(str(tmp_path / "c"), obs_schema={"tr": int}) as writer,
    ):
        writer.write_volume(np.zeros((2, 2, 2), np.uint8), "v", "s", tr=value)
