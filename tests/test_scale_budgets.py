"""What very many rows may cost: bytes a row, reads of tile indexes, terms of filters."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import tiledb
from memory_alone import alone
from stores import check_volume, scanned_again

from benchmarks.data.tables import write_tables
from radiobject import RadiObject
from radiobject.storage.schema import collection
from radiobject.storage.tables.table import Table, create_table
from radiobject.storage.tables.writer import write_volume

ROWS = 20_000


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("rows") / "store")
    write_tables(place, ROWS, index_bytes=60)
    return place


@pytest.fixture
def reads(monkeypatch):
    """The reads of tables of tile indexes, as the numbers of rows asked for; None for all."""
    seen, read = [], Table.read

    def counted(table, *args, keys=None, **kwargs):
        if table.uri.endswith("tile_index"):
            seen.append(None if keys is None else len(keys))
        return read(table, *args, keys=keys, **kwargs)

    monkeypatch.setattr(Table, "read", counted)
    return seen


def test_indexes_of_volumes_taken_one_by_one_are_read_in_growing_blocks(uri, reads):
    """Each was a read of 20 ms before: 200 volumes of 20,000 took 150."""
    radi = RadiObject(uri)
    chosen = np.random.default_rng(3).permutation(ROWS)[:200]
    for row in chosen:
        volume = radi.get_volume(f"sub-{row:06d}_CT")
        assert volume.locator.index == b"x" * 60
    assert len(reads) <= 30
    assert reads[:4] == [64, 128, 256, 512]
    asked = len(reads)
    for row in chosen:
        radi.get_volume(f"sub-{row:06d}_CT")
    assert len(reads) == asked


def test_a_loaders_workers_are_given_every_index(uri, reads):
    """Above 4,096 volumes each worker made each volume's index from its array, before."""
    locators = pickle.loads(pickle.dumps(RadiObject(uri).CT.locators()))
    assert len(locators) == ROWS
    assert {locator.index for locator in locators} == {b"x" * 60}
    assert reads == [None]


def test_what_very_many_volumes_are_given_is_made_when_asked_for(uri, reads, monkeypatch):
    monkeypatch.setattr(collection, "_WHOLE_INDEX_ROWS", ROWS - 1)
    radi = RadiObject(uri)
    lazily, listed = radi.CT.locators(), radi.CT.head(50).locators()
    assert not isinstance(lazily, list)
    assert isinstance(listed, list)
    assert (len(lazily), lazily[7].uri, lazily[-1].obs_id) == (
        ROWS, listed[7].uri, f"sub-{ROWS - 1:06d}_CT",
    )  # fmt: skip
    assert [one.obs_id for one in lazily[3:5]] == ["sub-000003_CT", "sub-000004_CT"]


def bytes_a_row(uri):
    """Return what a program keeps in memory of each row, when it has opened and chosen; and more.

    Returns
    -------
    tuple of float
        Of the tables, a volume and a filter; and with a loader.
    """
    from radiobject.ml import create_training_dataloader

    # Everything is imported, and everything that is made once is made, before it is counted.
    warm = RadiObject(uri)
    len(warm.filter("age > 88").CT)
    create_training_dataloader(warm.head(9).CT, patch_size=(8, 8, 8), num_workers=0)
    del warm
    gc.collect()
    tracemalloc.start()
    radi = RadiObject(uri)
    assert len(radi) == len(radi.CT) == ROWS
    radi.get_volume("sub-000005_CT")
    assert len(radi.filter("age > 40").CT)
    gc.collect()
    opened = tracemalloc.get_traced_memory()[0]
    # Of so many volumes tile indexes come along, 3 KB each; of more they do not.
    collection._WHOLE_INDEX_ROWS = ROWS - 1
    loader = create_training_dataloader(radi.CT, patch_size=(64, 64, 64), num_workers=0)
    gc.collect()
    both = tracemalloc.get_traced_memory()[0]
    assert len(loader.dataset) == ROWS
    return opened / ROWS, both / ROWS


def test_a_volume_is_five_files_in_six_folders(tmp_path):
    """14 entries before: three folders were empty. Any client of TileDB reads and changes it."""
    place = str(tmp_path / "volume")
    write_volume(place, np.arange(1000, dtype=np.int16).reshape(10, 10, 10), metadata={"a": 1})
    folders = [folder for folder, _, _ in os.walk(place)]
    files = [name for _, _, names in os.walk(place) for name in names]
    assert (len(folders), len(files)) == (6, 5)
    with tiledb.open(place, "w") as array:
        array.meta["b"] = 2
    with tiledb.open(place) as array:
        assert dict(array.meta) == {"a": 1, "b": 2}
        assert int(array[:]["voxels"].sum()) == 499500


@pytest.mark.slow
def test_a_row_takes_half_a_kilobyte(uri):
    opened, with_loader = alone(bytes_a_row, uri)
    assert opened <= 340
    assert with_loader <= 512


@pytest.mark.parametrize(
    ("terms", "condition"),
    [
        ("age == {}", "age in"),
        ("obs_subject_id == 'sub-{:06d}'", "obs_subject_id in"),
    ],
)
def test_a_filter_of_2000_terms_is_one_list(terms, condition):
    from radiobject.rows.expression import compile_filter

    types = {"age": np.dtype(np.int64), "obs_subject_id": np.dtype("U")}
    asked = " or ".join(terms.format(n) for n in range(2000))
    made = compile_filter(f"({asked}) and age > 3", types)
    assert made.count(condition) == 1
    assert made.count(" or ") == 0
    unlike = compile_filter(asked.replace("==", "!=").replace(" or ", " and "), types)
    assert unlike.count(" not in ") == 1
    assert unlike.count(" and ") == 0


@pytest.mark.parametrize("form", ["in", "or", "in of negative numbers"])
def test_a_filter_takes_time_in_proportion_to_its_terms(form):
    """CPU seconds of 2,000 terms over those of 500: 4 if linear, 16 if not."""
    from radiobject.rows.expression import matching_rows

    columns = {"x": list(range(50))}
    types = {"x": np.dtype(np.int64)}

    def seconds(terms):
        values = range(-terms, 0) if "negative" in form else range(terms)
        asked = " or ".join(f"x == {v}" for v in values) if form == "or" else f"x in {[*values]}"
        taken = []
        for _ in range(2):
            before = time.process_time()
            matching_rows(asked, columns, types)
            taken.append(time.process_time() - before)
        return min(taken)

    assert seconds(2000) <= 8 * seconds(500)


def test_an_append_reads_the_rows_that_it_is_about_alone(uri, scans, tmp_path, monkeypatch):
    """It read all rows of all subjects before, and made objects of every volume's id."""
    place, rows, read = tmp_path / "store", [], Table.read
    shutil.copytree(uri, place)

    def counted(*args, **kwargs):
        found = read(*args, **kwargs)
        rows.append(len(next(iter(found.values())).values))
        return found

    radi = RadiObject(place)
    monkeypatch.setattr(Table, "read", counted)
    known, new = scanned_again(scans / "a.nii", tmp_path), scanned_again(scans / "b.nii", tmp_path)
    images = [(known, "sub-000007"), (new, "new")]
    radi.append({"CT": images}, obs_meta=pd.DataFrame({"obs_subject_id": ["new"], "age": [3]}))
    assert sum(rows) <= 10
    assert len(rows) <= 8
    radi.append({"CT": [(scanned_again(known, tmp_path), "sub-000007")]})
    assert sum(rows) <= 20
    monkeypatch.undo()
    radi = RadiObject(place)
    assert (len(radi), len(radi.CT)) == (ROWS + 1, ROWS + 3)
    assert radi.loc["sub-000007"].CT.obs_ids == [
        "sub-000007_CT", "sub-000007_CT_acq-1", "sub-000007_CT_acq-2",
    ]  # fmt: skip
    check_volume(radi.get_volume("new_CT"), "b")
    rows = radi.obs_meta.read(["age", "obs_ids"]).set_index("obs_subject_id")
    assert rows.loc["new"].tolist() == [3, '["new_CT"]']
    assert rows.loc["sub-000007"].tolist() == [
        7, '["sub-000007_CT_acq-1", "sub-000007_CT_acq-2"]',
    ]  # fmt: skip


def test_rows_of_some_keys_are_those_of_a_whole_read(tmp_path):
    """Also of the second key, of missing values, of what was deleted, and of every kind of text."""
    ids = ["b", "a", "ü", "a/b", "zz", "\x7f", "日本"]
    values = [1.5, None, 3.0, None, 5.0, 6.0, 7.0]
    uri = str(tmp_path / "t")
    create_table(uri, ["subject", "id"], {"x": np.dtype(np.float64), "n": np.dtype("U")})
    table = Table(uri)
    notes = [None if v is None else f"n{v}" for v in values]
    ids_of = [f"{name}_1" for name in ids]
    table.write({"subject": ids, "id": ids_of, "x": values, "n": notes}, 10)
    table.write({"subject": ["a"], "id": ["a_2"], "x": [None], "n": ["again"]}, 11)
    table.delete_keys("subject", ["zz"], 12)
    whole = table.read(None)
    rows = list(zip(*(whole[name].to_list() for name in ("subject", "id", "x", "n")), strict=True))
    assert len(rows) == 7
    for key, wanted in (("subject", ["a", "ü", "zz", "not there", "a"]), ("id", ["日本_1", "a_2"])):
        found = table.read(None, keys=wanted, of=key)
        some = zip(*(found[name].to_list() for name in ("subject", "id", "x", "n")), strict=True)
        place = ("subject", "id").index(key)
        assert sorted(some, key=repr) == [r for r in sorted(rows, key=repr) if r[place] in wanted]
    assert len(table.read(["x"], keys=[])["x"].values) == 0
    assert table.read(["x"], keys=["a"], condition="x > 0")["x"].to_list() == []
