"""Names, clocks, heads and tables below the nouns."""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import tiledb
from hypothesis import given
from hypothesis import strategies as st

from radiobject.exceptions import SchemaError, StorageError
from radiobject.storage.commits.head import ROOT, Clock, Commit, Head
from radiobject.storage.io import layout, owned
from radiobject.storage.tables.columns import BLOB, TEXT
from radiobject.storage.tables.table import Table, create_table, stored_key, worth_merging

IDS = st.text(min_size=1, max_size=60).filter(lambda t: "\0" not in t and _encodable(t))


def _encodable(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@given(IDS, IDS)
def test_names_are_safe_bounded_and_different(first, second):
    for identifier in (first, second):
        name = layout.array_name(layout.checked_id(identifier, "id"), 0x1F)
        assert len(name) < 120
        assert os.sep not in name
        assert not name.startswith(".")
        assert layout.array_timestamp(name) == 0x1F
    same = layout.safe_name(first).casefold() == layout.safe_name(second).casefold()
    assert same == (first == second)


@given(st.lists(IDS, max_size=6, unique_by=str.casefold), IDS)
def test_a_collections_directory_is_always_free(taken, name):
    directories = []
    for earlier in [*taken, name, name, name]:
        directories.append(layout.collection_directory(earlier, directories))
    assert len({d.casefold() for d in directories}) == len(directories)
    assert not [d for d in directories if "/" in d or d.startswith(".")]


@given(IDS, IDS)
def test_keys_are_stored_in_ascii_and_in_order(first, second):
    a, b = stored_key(first), stored_key(second)
    assert a.isascii()
    assert (a < b) == (first < second)
    assert (a == b) == (first == second)


@pytest.mark.parametrize(
    ("given_uri", "expected"),
    [
        ("s3://bucket/a/", "s3://bucket/a"),
        ("/x/y/", "/x/y"),
        ("file:///x/y", "/x/y"),
        ("~/x", os.path.expanduser("~/x")),
        ("x", os.path.abspath("x")),
        ("study:2026/x", os.path.abspath("study:2026/x")),
        ("//[x]/y", "//[x]/y"),
    ],
)
def test_uris(given_uri, expected):
    assert layout.normalise_uri(given_uri) == expected


@pytest.mark.parametrize(("bad", "error"), [("", ValueError), (" ", ValueError), (3, TypeError)])
def test_impossible_uris(bad, error):
    with pytest.raises(error):
        layout.normalise_uri(bad)


def test_a_clock_only_rises():
    clock = Clock(after=int(time.time() * 1000) + 10**9)
    ticks = [clock.now, *(clock.tick() for _ in range(50))]
    assert ticks == sorted(set(ticks))
    assert ticks[0] > time.time() * 1000 + 9 * 10**8
    assert Clock().now > int(time.time() * 1000) - 1000


def test_states_by_timestamp_time_and_count():
    now = datetime.now(UTC)
    stamps = [int((now + timedelta(hours=h)).timestamp() * 1000) for h in range(3)]
    head = Head("u", ROOT, None, None, tuple(Commit(s, "", "") for s in stamps))
    assert head.at(None) is head.at(-1) is head.last
    assert head.at(-3).timestamp == stamps[0]
    assert head.at(stamps[1]).timestamp == stamps[1]
    assert head.at(stamps[1] + 5).timestamp == stamps[1]
    assert head.at(now + timedelta(minutes=90)).timestamp == stamps[1]
    for wrong in (-4, stamps[0] - 1, now - timedelta(days=1)):
        with pytest.raises(StorageError, match="no commit at"):
            head.at(wrong)


@pytest.fixture
def table(tmp_path):
    uri = str(tmp_path / "t")
    create_table(uri, ["k"], {"n": np.dtype(np.int16), "s": TEXT, "raw": BLOB})
    return Table(uri)


def rows(*keys, n=1):
    return {"k": list(keys), "n": [n] * len(keys), "s": list(keys), "raw": [b"\0\xff"] * len(keys)}


def test_a_row_written_twice_is_one_row_for_any_key(table):
    keys = ["a", "é", "../x", "日本", "\x7f", "Z"]
    table.write(rows(*keys), 10)
    table.write(rows(*keys, n=2), 20)
    for when, value in ((10, 1), (15, 1), (20, 2)):
        found = Table(table.uri, when).read(["n", "raw"])
        assert found["k"].values.tolist() == sorted(keys)
        assert found["n"].to_list() == [value] * len(keys)
        assert found["raw"].to_list() == [b"\0\xff"] * len(keys)
    assert Table(table.uri, 9).read()["k"].values.tolist() == []
    assert table.read(["n"], keys=["日本", "a"])["k"].values.tolist() == ["a", "日本"]
    table.delete_keys("k", ["é", "a"], 30)
    assert table.read()["k"].values.tolist() == sorted(set(keys) - {"é", "a"})
    assert len(Table(table.uri, 29).read()["k"].values) == len(keys)


def test_merging_keeps_every_state_and_every_dropped_column(table):
    clock = Clock()
    start = clock.now
    ticks = []

    def tick():
        ticks.append(clock.tick())
        return ticks[-1]

    def seen():
        states = []
        for when in sorted({start, *ticks, *(after - 1 for after in ticks)}):
            then = Table(table.uri, when)
            names = then.schema()[1]
            states.append({n: c.to_list() for n, c in then.read(list(names)).items()})
        return states

    for turn in range(6):
        table.write(rows(*"abc"[: 1 + turn % 3], n=turn), tick())
    table.evolve(drop=["n"], tick=tick)
    for _ in range(3):
        table.write({k: v for k, v in rows("a", "z").items() if k != "n"}, tick())
    table.delete_keys("k", ["z"], tick())
    table.evolve(add={"n": np.dtype(np.int16)}, tick=tick)
    assert table.read(["n"])["n"].to_list() == [None] * 3
    for turn in range(2):
        table.write(rows("b", n=turn), tick())
    before = seen()
    assert [5, 5, 5] in [state.get("n") for state in before]
    assert table.consolidate(force=True)
    assert seen() == before
    assert not table.consolidate()


def test_merging_few_rows_leaves_very_many_where_they_are(table):
    """Each round of a table of a million rows wrote all of them before."""
    table.write(rows(*(f"k{n:03d}" for n in range(300))), 10)
    [large] = table.fragments()
    for number in range(26):
        table.write(rows(f"k{number:03d}", n=2), 100 + number)
    before = table.read(["n"])["n"].to_list()
    assert table.consolidate()
    tiledb.vacuum(table.uri)
    assert len(table.fragments()) == 2
    assert large in table.fragments()
    assert table.read(["n"])["n"].to_list() == before == [2] * 26 + [1] * 274
    assert Table(table.uri, 110).read(["n"])["n"].to_list() == [2] * 11 + [1] * 289
    assert table.consolidate(force=True)
    assert len(table.fragments()) == 1
    assert table.read(["n"])["n"].to_list() == before


def test_fragments_stay_few_and_rows_are_seldom_written_again():
    rows_of, written = [100_000], 0
    for _ in range(10_000):
        rows_of.insert(0, 1)
        if len(rows_of) > 24 and (count := worth_merging(rows_of)) > 24:
            written += sum(rows_of[:count])
            rows_of[:count] = [sum(rows_of[:count])]
        assert len(rows_of) <= 32
    assert written < 10 * 10_000
    assert rows_of[-1] == 100_000


def test_values_that_do_not_fit_are_refused(table):
    for wrong in (2**20, 1.5, "x"):
        with pytest.raises(SchemaError, match="'n'"):
            table.write(rows("a") | {"n": [wrong]}, 10)
    with pytest.raises(SchemaError, match="holds strings"):
        table.write(rows("a") | {"s": [3]}, 10)
    assert table.read()["k"].values.tolist() == []


def test_links_are_neither_removed_nor_followed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    (tmp_path / "in").mkdir()
    os.symlink(tmp_path / "out", tmp_path / "in" / "__commits")
    os.symlink(tmp_path / "in", tmp_path / "link")
    assert owned.remove(str(tmp_path / "in"), owned.DATASET) == ["__commits"]
    assert owned.remove(str(tmp_path / "link"), owned.DATASET) == ["."]
    assert (tmp_path / "out" / "precious").read_text() == "x"


def test_merging_takes_memory_for_the_table_and_not_for_a_large_one(table):
    """libtiledb's own default takes 1.7 GB to merge a few rows."""
    code = (
        "import resource, sys; from radiobject.storage.tables.table import Table\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "table = Table(sys.argv[1]); table.read(); before = peak()\n"
        "assert table.consolidate(force=True); print(peak() - before)"
    )
    for number in range(3):
        table.write({"k": [f"key {number}"]}, 100 + number)
    command = [sys.executable, "-c", code, table.uri]
    grown_mb = int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    assert grown_mb < 300
    assert len(Table(table.uri).read()["k"].values) == 3
