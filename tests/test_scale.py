"""100,000 volumes: opening, selecting and planning cost a bounded number of reads (case 26)."""

import contextlib
import itertools
from unittest import mock

import numpy as np
import pytest
import tiledb

from radiobject import RadiObject
from radiobject.storage import collection as stored
from radiobject.storage import commit, dataset, groups, layout
from radiobject.storage.table import Table
from radiobject.storage.volume_rows import AFFINE, ARRAY, AXCODES, DTYPE, SIDES, SPACING

N = 100_000


def make_tables(uri, count):
    """Write the tables of a data set of `count` volumes; the volumes themselves are not there."""
    subjects = [f"sub-{number:06d}" for number in range(count)]
    ids = [f"{subject}_CT" for subject in subjects]
    with commit.creation(uri, commit.ROOT, "synthetic") as tx:
        dataset.create_obs_meta(uri, {"age": np.dtype(np.int64)}, tx.clock)
        ages = (np.arange(count) % 90).tolist()
        dataset.add_subjects(uri, {layout.SUBJECT_ID: subjects, "age": ages}, tx.clock)
        place = dataset.new_collection_location(tx, "CT")
        folder = layout.join(uri, place)
        stored.create_collection(folder, tx.clock, {"kvp": np.int64}, name="CT", owner="../..")
        arrays = [layout.array_name(obs_id, tx.timestamp) for obs_id in ids]
        rows = {layout.SUBJECT_ID: subjects, layout.OBS_ID: ids, ARRAY: arrays}
        rows |= {DTYPE: ["int16"] * count, AXCODES: ["RAS"] * count}
        rows |= {"kvp": np.arange(count) % 140, SIDES[3]: np.zeros(count, np.int32)}
        rows |= {side: np.full(count, 240, np.int32) for side in SIDES[:3]}
        rows |= {spacing: np.ones(count) for spacing in SPACING}
        rows |= {name: np.full(count, float(name[-1] == name[-2])) for name in AFFINE}
        Table(layout.join(folder, layout.OBS)).write(rows, tx.clock.tick())
        index = {stored.INDEX_KEY: arrays, stored.INDEX_COLUMN: [b"x" * 60] * count}
        Table(layout.join(folder, layout.TILE_INDEX)).write(index, tx.clock.tick())
        dataset.publish(tx, collections={"CT": place}, subjects=count, volumes=count)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("scale") / "store")
    make_tables(place, N)
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
    assert counts == {"tables": 1, "arrays": 1, "groups": 2}
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
