"""Cells are what tiledb-py's own reading gives, without setting the type of an array in place."""

import numpy as np
import pytest
import tiledb
from tiledb.multirange_indexing import MultiRangeIndexer

from radiobject.exceptions import SchemaError
from radiobject.storage.tables.cells import read_cells
from radiobject.storage.tables.columns import BLOB, TEXT, TIME
from radiobject.storage.tables.table import Table, create_table, own_context, stored_key

COLUMNS = {
    "text": TEXT,
    "blob": BLOB,
    "time": TIME,
    "yes": np.dtype(bool),
    "small": np.dtype(np.int8),
    "large": np.dtype(np.uint64),
    "real": np.dtype(np.float32),
}
ROWS = {
    "obs_subject_id": ["b", "a", "ä", "b"],
    "obs_id": ["b2", "a1", "ä1", "b1"],
    "text": ["one", None, "", "zwölf"],
    "blob": [b"\x00\xff", b"", b"x" * 300, b"\x00"],
    "time": np.array(["2026-11-26T10:00", "NaT", "1999-01-01", "2000-02-02"], "datetime64[ns]"),
    "yes": [True, None, False, True],
    "small": [-128, 127, None, 0],
    "large": [2**64 - 1, 0, 1, None],
    "real": [0.5, None, np.inf, -1.5],
}


@pytest.fixture(scope="module", params=[4, 0], ids=["rows", "empty"])
def table(request, tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("cells") / "table")
    create_table(uri, ("obs_subject_id", "obs_id"), COLUMNS)
    Table(uri).write({name: values[: request.param] for name, values in ROWS.items()}, 7)
    return uri


def rows_of(found):
    """Return cells as a set: libtiledb gives them in no order that would hold."""
    columns = []
    for values in found.values():
        values = values.filled(77) if isinstance(values, np.ma.MaskedArray) else values
        columns.append([_plain(value) for value in values])
    return sorted(map(repr, zip(*columns, strict=True)))


def _plain(value):
    if isinstance(value, memoryview):
        return bytes(value)
    return value.item() if isinstance(value, np.generic) else value


@pytest.mark.parametrize("condition", [None, "small >= 0", "obs_id == 'b1'"])
@pytest.mark.parametrize("names", [[*COLUMNS], ["time"], ["obs_id", "yes"], ["obs_subject_id"]])
def test_they_are_what_tiledb_py_reads(table, condition, names):
    with own_context() as ctx, tiledb.open(table, ctx=ctx) as array:
        dims = [name for name in names if name in ("obs_subject_id", "obs_id")]
        attrs = [name for name in names if name not in dims]
        theirs = array.query(attrs=attrs, dims=dims or False, cond=condition)[:]
        ours = read_cells(array, names, condition=condition)
    assert set(ours) == set(names)
    assert rows_of({name: ours[name] for name in theirs}) == rows_of(theirs)
    for name, values in theirs.items():
        if len(values):
            assert ours[name].dtype == values.dtype
        assert isinstance(ours[name], np.ma.MaskedArray) == isinstance(values, np.ma.MaskedArray)


def test_rows_of_some_keys_and_of_none(table):
    other = stored_key("ä").encode()
    with own_context() as ctx, tiledb.open(table, ctx=ctx) as array:
        there = len(read_cells(array, ["obs_id"])["obs_id"])
        found = read_cells(array, ["obs_id", "text"], keys=[b"b", other, b"nobody"])
        nobody = read_cells(array, ["obs_id", "small"], keys=[b"nobody"])
    wanted = [b"b1", b"b2", stored_key("ä1").encode()]
    assert sorted(found["obs_id"]) == (sorted(wanted) if there else [])
    assert {name: len(values) for name, values in nobody.items()} == {"obs_id": 0, "small": 0}


def test_no_table_is_read_by_what_sets_types_in_place(table, monkeypatch):
    """NumPy 2.5 deprecates that, and warnings are errors for some of our users."""

    def refuse(*_, **__):
        raise AssertionError("tiledb-py's own reading")

    monkeypatch.setattr(tiledb.SparseArray, "_read_sparse_subarray", refuse)
    monkeypatch.setattr(tiledb.SparseArray, "read_subarray", refuse)
    monkeypatch.setattr(MultiRangeIndexer, "_run_query", refuse)
    stored = Table(table)
    whole = stored.read(None)
    count = len(whole["obs_id"].values)
    assert [len(column.values) for column in whole.values()] == [count] * len(ROWS)
    assert len(stored.read(("text",), keys=["b"])["text"].values) == count // 2
    assert len(stored.read((), keys=[])["obs_id"].values) == 0
    assert len(stored.read(("small",), condition="small > 0")["obs_id"].values) == count // 4


@pytest.mark.parametrize(
    ("dtype", "value"), [("float64", 2**53 + 1), ("float32", 2**24 + 1), ("float32", 1e300)]
)
def test_a_number_that_a_column_would_change_is_refused(tmp_path, dtype, value):
    uri = str(tmp_path / "table")
    create_table(uri, ("obs_subject_id",), {"x": np.dtype(dtype)})
    with pytest.raises(SchemaError, match=r"cannot hold .* unchanged"):
        Table(uri).write({"obs_subject_id": ["a", "b"], "x": [0.1, value]}, 7)
