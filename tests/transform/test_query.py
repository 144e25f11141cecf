"""Pipelines: the same results lazily and eagerly, with geometry, in bounded memory."""

import threading

import numpy as np
import pandas as pd
import pytest
from stores import affine, check_volume, make_dataset, voxels

from radiobject import EagerQuery, LazyQuery, RadiObject
from radiobject._types import normalize_transform_result
from radiobject.exceptions import ShapeError


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    uri = tmp_path_factory.mktemp("made") / "store"
    make_dataset(uri)
    return RadiObject(str(uri)).CT


def double(volume, row):
    return volume * 2, {"peak": float(volume.max()), "who": row["obs_subject_id"], "big": True}


def test_map_gives_each_volume_with_its_own_row(collection):
    query = collection.iloc[[3, 0, 3]].map(lambda v, row: (row["obs_id"], int(v[0, 0, 0])))
    assert isinstance(query, EagerQuery)
    assert [value for value, _ in query] == [("d_CT", 4000), ("a_CT", 1000), ("d_CT", 4000)]
    assert [row["obs_id"] for _, row in query] == ["d_CT", "a_CT", "d_CT"]
    assert query[1] == ("a_CT", 1000)
    row = query.to_list()[0][1]
    assert isinstance(row, pd.Series)
    assert row["kvp"] == 200


def test_updates_chain_and_are_written_with_their_types(collection, tmp_path):
    query = collection.map(double).map(lambda v, row: (v, {"half": row["peak"] / 2}))
    frame = query.to_dataframe()
    assert frame.columns.tolist() == [
        "obs_id", "obs_subject_id", "peak", "who", "big", "half", "result",
    ]  # fmt: skip
    assert frame["result"].tolist() == ["6x5x4 int32"] * 4
    written = query.write(str(tmp_path / "out"), name="CT")
    assert written.obs_ids == collection.obs_ids
    assert written.to_obs()["half"].tolist() == (frame["peak"] / 2).tolist()
    assert written.to_obs()["kvp"].tolist() == collection.to_obs()["kvp"].tolist()
    for volume in written:
        np.testing.assert_array_equal(volume.to_numpy(), 2 * voxels(volume.obs_id[0]))
        np.testing.assert_array_equal(volume.affine, affine(volume.obs_id[0]))


def test_batches_see_whole_batches(collection):
    sizes = []

    def work(batch):
        sizes.append(len(batch))
        return [(v.mean(), {"n": len(batch)}) for v, _ in batch]

    query = collection.map_batches(work, batch_size=3)
    assert sorted(sizes) == [1, 3]
    assert query.to_dataframe()["n"].tolist() == [3, 3, 3, 1]
    assert query.map_batches(lambda b: [v + 1 for v, _ in b], 2)[0] == query[0] + 1
    with pytest.raises(ShapeError, match="1 results for 3"):
        collection.map_batches(lambda batch: batch[:1], batch_size=3)
    with pytest.raises(ValueError, match="batch_size"):
        collection.map_batches(work, batch_size=0)


def test_results_stay_with_their_ids_whatever_happens_to_the_collection(tmp_path):
    make_dataset(tmp_path / "store")
    collection = RadiObject(str(tmp_path / "store")).CT
    query = collection.map(lambda volume, row: (volume + 1, {"was": row["obs_id"]}))
    before = {i: collection.loc[i].to_numpy() for i in collection.obs_ids}
    collection.delete(collection.obs_ids[:2])
    written = query.map(lambda volume, row: volume).write(str(tmp_path / "later"))
    rows = written.to_obs()
    for obs_id, was in zip(rows["obs_id"], rows["was"], strict=True):
        np.testing.assert_array_equal(written.loc[obs_id].to_numpy(), before[was] + 1)
    assert sorted(rows["was"]) == sorted(before)


def test_lazy_equals_eager_and_runs_only_when_asked(collection, tmp_path):
    seen = []

    def spy(volume, row):
        seen.append(row["obs_id"])
        return volume + 1, {"mark": row["obs_id"]}

    lazy = collection.lazy().filter("kvp > 197").map(spy).map(double)
    assert isinstance(lazy, LazyQuery)
    assert (lazy.count(), len(lazy), seen) == (3, 3, [])
    stack = lazy.to_numpy_stack()
    np.testing.assert_array_equal(stack, [2 * (voxels(s) + 1) for s in "bcd"])
    written = lazy.write(str(tmp_path / "out"))
    assert written.to_obs()["mark"].tolist() == ["b_CT", "c_CT", "d_CT"]
    assert written.to_obs()["peak"].tolist() == [float((voxels(s) + 1).max()) for s in "bcd"]
    assert lazy.to_obs()["obs_id"].tolist() == ["b_CT", "c_CT", "d_CT"]


def test_lazy_selections(collection):
    lazy = collection.lazy()
    assert [v.obs_id for v in lazy.iloc([2, 0]).iter_volumes()] == ["a_CT", "c_CT"]
    assert lazy.loc(["c_CT"]).to_obs()["obs_id"].tolist() == ["c_CT"]
    assert lazy.filter_subjects(["d", "a"]).head(1).to_obs()["obs_id"].tolist() == ["d_CT"]
    assert lazy.tail(1).count() == lazy.iloc(0).count() == lazy.sample(1, seed=0).count() == 1
    chosen = LazyQuery(collection, volume_ids=["a_CT", "b_CT"], volume_query="kvp > 197")
    assert chosen.count() == 1
    assert LazyQuery(collection, subject_ids=["a"], transform_fn=double).count() == 1
    with pytest.raises(ValueError, match="No volumes match"):
        lazy.filter("kvp > 999").to_numpy_stack()
    with pytest.raises(ValueError, match="Invalid filter"):
        lazy.filter("open('x')")


def test_a_changed_grid_states_its_affine_or_is_warned_of(collection, tmp_path):
    halved = affine("a") @ np.diag([2.0, 2, 2, 1])
    stated = collection.head(1).map(lambda v, row: (v[::2, ::2, ::2], {"affine": halved}))
    np.testing.assert_array_equal(stated.write(str(tmp_path / "a"))[0].affine, halved)
    silent = collection.head(1).lazy().map(lambda v, row: v[::2])
    with pytest.warns(UserWarning, match="stated no affine"):
        silent.write(str(tmp_path / "b"))


def test_streaming_holds_a_bounded_number_of_volumes(tmp_path, collection):
    """Case 27: at most a few per worker are alive, however many there are."""
    alive, most, guard = set(), [0], threading.Lock()
    many = collection.iloc[[0, 1, 2, 3] * 25]

    class Held(np.ndarray):
        def __del__(self):
            with guard:
                alive.discard(id(self))

    def hold(volume, row):
        held = volume.view(Held)
        with guard:
            alive.add(id(held))
            most[0] = max(most[0], len(alive))
        return held

    written = many.lazy().map(hold).write(str(tmp_path / "out"))
    assert len(written) == 100
    assert most[0] <= 4 * 2 + 2


def test_an_error_in_a_transform_propagates_and_leaves_nothing(collection, tmp_path):
    def fail(volume, row):
        if row["obs_id"] == "c_CT":
            raise ZeroDivisionError("mine")
        return volume

    with pytest.raises(ZeroDivisionError, match="mine"):
        collection.lazy().map(fail).write(str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_write_without_a_place_goes_beside_the_source(tmp_path):
    make_dataset(tmp_path / "store", names=("CT",))
    copied = RadiObject(str(tmp_path / "store")).write(str(tmp_path / "copy")).CT
    alone = copied.write(str(tmp_path / "alone" / "CT"), name="CT")
    assert alone.lazy().map(double).write().uri == f"{alone.uri}_double"
    assert alone.write().uri == f"{alone.uri}_written"
    assert alone.write(name="MR").uri == str(tmp_path / "alone" / "MR")
    check_volume(alone.write(str(tmp_path / "again"))[0], "a")


def test_results_are_normalised():
    assert normalize_transform_result(3) == (3, {})
    assert normalize_transform_result((3, {"a": 1})) == (3, {"a": 1})
    assert normalize_transform_result((3, 4)) == ((3, 4), {})
