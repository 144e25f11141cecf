"""100,000 volumes: opening, selecting and planning cost a bounded number of reads (case 26)."""

import contextlib
import itertools
from unittest import mock

import pytest
import tiledb

from benchmarks.data.tables import write_tables
from radiobject import RadiObject
from radiobject.storage.tables import groups
from radiobject.storage.tables.table import Table

N = 100_000


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("scale") / "store")
    write_tables(place, N, index_bytes=60)
    return place


@contextlib.contextmanager
def counted():
    """Count reads of tables, and openings of arrays and groups."""
    counts = {"tables": 0, "arrays": 0, "groups": 0}

    def counting(kind, call):
        def counted_call(*args, **kwargs):
            counts[kind] += 1
            return call(*args, **kwargs)

        return counted_call

    with (
        mock.patch.object(Table, "read", counting("tables", Table.read)),
        mock.patch.object(tiledb, "open", counting("arrays", tiledb.open)),
        mock.patch.object(groups, "read_metadata", counting("groups", groups.read_metadata)),
    ):
        yield counts


def test_reads_do_not_grow_with_the_data_set(uri):
    with counted() as counts:
        radi = RadiObject(uri)
        assert len(radi) == N
        assert radi.collection_names == ("CT",)
    assert counts == {"tables": 1, "arrays": 1, "groups": 1}
    with counted() as counts:
        ct = radi.CT
        assert len(ct) == N
        assert ct.obs_ids[5] == "sub-000005_CT"
        assert ct.shape == (240, 240, 240)
        assert ct.affines().shape == (N, 4, 4)
    assert counts == {"tables": 1, "arrays": 1, "groups": 0}


def test_a_volume_costs_one_read_and_its_neighbours_none(uri):
    ct = RadiObject(uri).CT
    len(ct)
    with counted() as counts:
        volume = ct.iloc[40_000]
        assert volume.obs_id == "sub-040000_CT"
        assert ct.loc["sub-040003_CT"].locator.index == b"x" * 60
        for position in range(40_000, 40_040):
            ct.iloc[position]
    assert counts == {"tables": 1, "arrays": 1, "groups": 0}


def test_filters_and_selections(uri):
    radi = RadiObject(uri)
    assert len(radi) == len(radi.CT) == N
    with counted() as counts:
        old = radi.filter("age > 80")
        assert len(old) == sum(number % 90 > 80 for number in range(N))
        assert len(old.CT) == len(old)
        old.CT.loc[old.CT.obs_ids[7]]
        radi.loc["sub-000007"].CT.iloc[0]
        radi.CT.filter("kvp == 3").head(5)
        assert len(list(itertools.islice(radi.CT.groupby_subject(), 3))) == 3
    # Two filters read keys and their columns once each (with a look at the schema), and two
    # blocks of tile indexes are fetched.
    assert counts["tables"] <= 4
    assert counts["arrays"] <= 8
    assert counts["groups"] == 0


def test_what_loaders_are_given(uri):
    ct = RadiObject(uri).CT
    with counted() as counts:
        everything = ct.locators()
        few = ct.head(4000).locators()
    assert counts["tables"] <= 3
    assert len(everything) == N
    assert {locator.index for locator in everything} == {None}
    assert few[9].index == b"x" * 60
    assert everything[9].uri == few[9].uri


def test_map_reads_the_table_once(tmp_path):
    from stores import make_dataset

    make_dataset(tmp_path / "store")
    ct = RadiObject(str(tmp_path / "store")).CT
    len(ct)
    with counted() as counts:
        assert len(ct.map(lambda volume, row: row["kvp"])) == 4
    assert counts["tables"] <= 2
