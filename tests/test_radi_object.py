"""Data sets: selections that reach everything, changes as commits, errors that say what to do."""

import os
import pickle
import shutil
import time

import numpy as np
import pandas as pd
import pytest
from stores import affine, check_volume, make_dataset, voxels

from radiobject import RadiObject, VolumeCollection
from radiobject.exceptions import (
    AlignmentError,
    LockError,
    SchemaError,
    StorageError,
    ViewError,
)
from radiobject.storage.commits.head import Clock
from radiobject.storage.commits.transaction import transaction
from radiobject.storage.tables import groups
from radiobject.writers import VolumeCollectionWriter

# Identity (cases 1 to 3)


def test_ids_and_voxels_stay_together_whatever_the_order(radi):
    assert radi.obs_subject_ids == list("abcd")
    for name in radi:
        assert radi.collection(name).obs_ids == [f"{s}_{name}" for s in "abcd"]
        for volume in radi.collection(name):
            check_volume(volume, volume.obs_id[0], name)
    check_volume(radi.get_volume("b_seg"), "b", "seg")


def test_a_moved_folder_is_the_same_data_set(radi, tmp_path):
    shutil.move(radi.uri, tmp_path / "elsewhere")
    moved = RadiObject(tmp_path / "elsewhere")
    moved.validate(checksums=True)
    check_volume(moved.CT.loc["d_CT"], "d")
    alone = VolumeCollection(str(tmp_path / "elsewhere" / "collections" / "CT"))
    assert alone.name == "CT"
    check_volume(alone.loc["d_CT"], "d")


def test_deleting_renaming_and_copying_keep_them_together(radi, tmp_path):
    radi.CT.delete("a_CT")
    radi.rename_collection("CT", "MR")
    radi.delete(["c"])
    assert radi.MR.obs_ids == ["b_CT", "d_CT"]
    copied = radi.write(str(tmp_path / "copy"))
    assert copied.MR.obs_ids == ["b_MR", "d_MR"]
    for data_set in (radi, copied):
        data_set.validate(checksums=True)
        for volume in data_set.MR:
            check_volume(volume, volume.obs_id[0])
    assert radi.obs_meta.read()["obs_ids"].tolist() == ['["a_seg"]', '["b_CT", "b_seg"]',
                                                       '["d_CT", "d_seg"]']  # fmt: skip


def test_copies_keep_columns_without_values_and_the_types_of_all(radi, tmp_path):
    radi.obs_meta.add_column("empty", float)
    radi.CT.obs.add_column("small", np.int16, fill=3)
    radi.CT.obs.add_column("none", bool)
    for copied in (radi.write(str(tmp_path / "a")), radi.head(1).write(str(tmp_path / "b"))):
        assert copied.obs_meta.dtypes == radi.obs_meta.dtypes
        assert copied.CT.obs.dtypes == radi.CT.obs.dtypes
        alone = copied.CT.write(str(tmp_path / f"alone{len(copied)}"))
        assert alone.obs.dtypes == radi.CT.obs.dtypes


def test_a_name_given_up_and_given_anew_never_overwrites(radi):
    for turn in range(4):
        radi.rename_collection("CT", f"old{turn}")
        below = radi.collection(f"old{turn}")
        with VolumeCollectionWriter(f"{radi.uri}-{turn}", name="CT") as writer:
            writer.write_volume(below[-1].to_numpy(), f"d_CT_{turn}", "d", affine=affine("d"))
        radi.add_collection("CT", f"{radi.uri}-{turn}")
    assert len(radi.collection_names) == 6
    radi.validate(checksums=True)
    for name in radi.collection_names:
        check_volume(radi.collection(name)[-1], "d", "seg" if name == "seg" else "CT")
    below = f"{radi.uri}/collections/again"
    with VolumeCollectionWriter(below) as writer:
        writer.write_volume(voxels("a"), "a_seg", "a")
    with pytest.raises(AlignmentError, match="used by two collections: 'a_seg'"):
        radi.add_collection("again", below)
    radi.validate()


# Selections (case 2)


@pytest.mark.parametrize(
    ("select", "subjects"),
    [
        (lambda r: r.filter("age > 40"), ["a", "b"]),
        (lambda r: r.loc[["d", "b", "d"]], ["d", "b", "d"]),
        (lambda r: r.loc["c"], ["c"]),
        (lambda r: r.iloc[[3, 0]], ["d", "a"]),
        (lambda r: r.iloc[::-1], ["d", "c", "b", "a"]),
        (lambda r: r.iloc[-1], ["d"]),
        (lambda r: r.iloc[np.array([True, False, True, False])], ["a", "c"]),
        (lambda r: r.iloc[[]], []),
        (lambda r: r["b"], ["b"]),
        (lambda r: r[["c", "a"]], ["c", "a"]),
        (lambda r: r.sel(subject="a"), ["a"]),
        (lambda r: r.head(2), ["a", "b"]),
        (lambda r: r.tail(1), ["d"]),
        (lambda r: r.filter("site == 'x'").filter("age > 40"), ["a"]),
        (lambda r: r.iloc[::-1].filter("site == 'y'"), ["d", "b"]),
        (lambda r: r.loc[["d", "a"]].iloc[[1, 1]], ["a", "a"]),
    ],
)
def test_a_selection_reaches_everything_under_it(radi, tmp_path, select, subjects):
    view = select(radi)
    assert view.is_view
    assert view.uri is None
    assert view.obs_subject_ids == subjects
    assert view.obs_meta.read()["obs_subject_id"].tolist() == subjects
    assert list(view.index) == list(dict.fromkeys(subjects))
    assert view.CT.obs_ids == [f"{s}_CT" for s in subjects]
    assert view.seg.obs.read()["obs_id"].tolist() == [f"{s}_seg" for s in subjects]
    assert len(view) == len(subjects)
    assert view.all_obs_ids == [f"{s}_{n}" for n in ("CT", "seg") for s in subjects]
    for subject in set("abcd") - set(subjects):
        with pytest.raises(KeyError):
            view.get_volume(f"{subject}_CT")
        assert view.get_obs_row_by_obs_subject_id(subject).empty
    for volume, subject in zip(view.CT, subjects, strict=True):
        check_volume(volume, subject)
    assert f"{len(subjects)} subjects" in view.describe()
    if subjects:
        copied = view.write(str(tmp_path / "copy"))
        assert copied.obs_subject_ids == sorted(set(subjects))
        copied.validate()


def test_selected_collections_and_unknown_ones(radi):
    view = radi.filter("age > 40").select_collections("seg")
    assert view.collection_names == ("seg",)
    assert view.seg.obs_ids == ["a_seg", "b_seg"]
    with pytest.raises(AttributeError, match="the collections are"):
        view.CT  # noqa: B018
    with pytest.raises(KeyError, match="not found"):
        radi.collection("PET")
    with pytest.raises(KeyError, match="not found"):
        radi.select_collections(["PET"])


@pytest.mark.parametrize(
    ("key", "error"),
    [(9, IndexError), ("a", TypeError), (1.5, TypeError), ([True], ValueError), (None, TypeError)],
)
def test_bad_positions(radi, key, error):
    with pytest.raises(error):
        radi.iloc[key]


@pytest.mark.parametrize(
    ("key", "error"), [("z", KeyError), (["a", "z"], KeyError), (1, TypeError)]
)
def test_bad_ids(radi, key, error):
    with pytest.raises(error):
        radi.loc[key]


def test_views_refuse_changes_and_pickle(radi):
    view = radi.head(2)
    for change in (
        lambda: view.delete("a"), lambda: view.rename_collection("CT", "x"),
        lambda: view.obs_meta.update(pd.DataFrame()), lambda: view.CT.delete("a_CT"),
        lambda: view.append({"CT": "x"}), lambda: view.validate(), lambda: view.vacuum(),
        lambda: view.CT.obs.drop_column("kvp"), lambda: view.split({"a": 1.0}),
    ):  # fmt: skip
        with pytest.raises(ViewError, match="view"):
            change()
    assert pickle.loads(pickle.dumps(view)).CT.obs_ids == ["a_CT", "b_CT"]
    assert radi.copy() is radi
    assert view.copy().obs_subject_ids == ["a", "b"]


# Changes and history (cases 15 to 17, 27)


def test_history_and_older_states(radi):
    radi.delete("a")
    radi.obs_meta.update(pd.DataFrame({"obs_subject_id": ["b"], "age": [99]}))
    radi.rename_collection("CT", "MR")
    history = radi.history()
    assert history["operation"].tolist() == [
        "write",
        "delete subjects",
        "update",
        "rename CT to MR",
    ]
    assert history["n_volumes"].tolist() == [8, 6, 6, 6]
    first = RadiObject(radi.uri, at=int(history["timestamp"][0]))
    assert first.obs_subject_ids == list("abcd")
    check_volume(first.CT.loc["a_CT"], "a")
    assert RadiObject(radi.uri, at=-2).collection_names == ("CT", "seg")
    for change in (lambda: first.delete("a"), lambda: first.CT.delete("a_CT"),
                   lambda: first.CT.obs.drop_column("kvp")):  # fmt: skip
        with pytest.raises(ViewError, match="older one"):
            change()
    with pytest.raises(StorageError, match="no commit at 5"):
        len(RadiObject(radi.uri, at=5))


def test_vacuum_forgets_only_what_it_is_asked_to(radi):
    radi.delete("a")
    radi.CT.delete("b_CT")
    assert radi.vacuum(keep=2) == {"states": 1, "collections": 0, "volumes": 2}
    assert RadiObject(radi.uri, at=-2).CT.obs_ids == ["c_CT", "d_CT"]
    with pytest.raises(ValueError, match="at least"):
        radi.vacuum(keep=0)
    assert radi.vacuum()["volumes"] == 1
    assert len(os.listdir(f"{radi.uri}/collections/CT/volumes")) == 2
    radi.validate(checksums=True)


def test_changes_through_a_collection_are_seen_by_the_data_set(radi):
    ct = radi.CT
    ct.delete("a_CT")
    assert radi.all_obs_ids[0] == "b_CT"
    assert radi.obs_meta.read()["obs_ids"][0] == '["a_seg"]'
    ct.obs.add_column("grade", int, fill=3)
    assert radi.CT.obs.read(["grade"])["grade"].tolist() == [3, 3, 3]
    radi.validate()


def test_many_small_commits_are_merged_and_old_states_stay(radi):
    frame = radi.obs_meta
    for age in range(70):
        frame.update(pd.DataFrame({"obs_subject_id": ["a"], "age": [float(age)]}))
    fragments = os.listdir(f"{radi.uri}/obs_meta/__fragments")
    assert len(fragments) < 50
    assert len(os.listdir(f"{radi.uri}/__meta")) < 50
    history = radi.history()
    assert len(history) == 71
    for age in (0, 33, 69):
        then = RadiObject(radi.uri, at=int(history["timestamp"][age + 1]))
        assert then.obs_meta.read(["age"])["age"][0] == age
    radi.validate()


def test_split_is_stored_stable_and_guards(radi, tmp_path):
    parts = radi.split({"train": 0.5, "test": 0.5}, stratify="site", seed=3)
    assert set(parts.values()) == {"train", "test"}
    assert radi.obs_meta.read(["split"])["split"].tolist() == list(parts.values())
    assert radi.history()["operation"].tolist()[-1] == "split"
    train, test = radi.splits["train"], radi.splits["test"]
    assert not set(train.CT.subject_ids) & set(test.CT.subject_ids)
    assert train.CT.subject_splits() == parts
    before = dict(parts)
    radi.delete("a")
    again = radi.split({"train": 0.5, "test": 0.5}, stratify="site", seed=3)
    assert again == {s: p for s, p in before.items() if s != "a"}
    assert list(radi.splits["train"].obs_subject_ids) == sorted(
        s for s, p in again.items() if p == "train"
    )
    with pytest.raises(SchemaError, match="no column 'arm'"):
        radi.split({"train": 1.0}, stratify="arm")
    with pytest.raises(AlignmentError, match="keep the names"):
        radi.split({"other": 1.0})


# Collections that come and go


def test_linking_and_copying_collections(radi, tmp_path):
    below = f"{radi.uri}/collections/PET"
    with VolumeCollectionWriter(below) as writer:
        writer.write_volume(voxels("a"), "a_PET", "a", affine=affine("a"))
    radi.add_collection("PET", below)
    check_volume(radi.PET.loc["a_PET"], "a")
    assert radi.history()["n_volumes"].tolist()[-1] == 9
    with pytest.raises(ValueError, match="already exists"):
        radi.add_collection("PET", below)
    with pytest.raises(ValueError, match="already exists"):
        radi.rename_collection("CT", "PET")
    radi.add_collection("twice", radi.CT)
    assert radi.twice.obs_ids == [f"{s}_twice" for s in "abcd"]
    with VolumeCollectionWriter(tmp_path / "far") as writer:
        writer.write_volume(voxels("a"), "x", "stranger")
    with pytest.raises(AlignmentError, match="stranger"):
        radi.add_collection("far", str(tmp_path / "far"))
    radi.validate(checksums=True)


def test_from_collections_links_those_below(radi, tmp_path):
    made = RadiObject.from_collections(
        str(tmp_path / "new"), {"CT": radi.CT, "S": radi.filter("age > 40").seg}
    )
    assert made.obs_subject_ids == list("abcd")
    assert made.S.obs_ids == ["a_S", "b_S"]
    made.validate(checksums=True)
    with pytest.raises(ValueError, match="At least one"):
        RadiObject.from_collections(str(tmp_path / "none"), {})
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["filter", "iloc", "a/b", "..", "Ω", ".hidden", "x" * 300, "ct"])
def test_hostile_collection_names(radi, name):
    radi.rename_collection("seg", name)
    assert radi.collection(name).obs_ids == [f"{s}_seg" for s in "abcd"]
    reopened = RadiObject(radi.uri)
    check_volume(reopened.collection(name).loc["a_seg"], "a", "seg")
    reopened.validate()


def test_hostile_ids_are_whole(tmp_path):
    ids = ["../x", "a/b", ".", "a'b\"c", "É", "é", "日本", "x" * 300, "A", "a", "a\\b", "\x7f", " "]
    with VolumeCollectionWriter(tmp_path / "c") as writer:
        for number, name in enumerate(ids):
            writer.write_volume(np.full((2, 2, 2), number, np.int16), name, f"s {name}")
    collection = VolumeCollection(str(tmp_path / "c"))
    assert collection.obs_ids == sorted(ids, key=lambda i: f"s {i}")
    for number, name in enumerate(ids):
        assert collection.loc[name][0, 0, 0] == number
        assert collection.filter(f"obs_id == {name!r}").obs_ids == [name]
    collection.validate()
    collection.delete(ids[::2])
    assert sorted(collection.obs_ids) == sorted(ids[1::2])
    outside = sorted(p.name for p in tmp_path.iterdir())
    assert outside == ["c"]


@pytest.mark.parametrize("bad", ["", "a\0b", "\ud800", "x" * 5000, 7, None])
def test_impossible_ids_are_refused_and_nothing_is_left(tmp_path, bad):
    with pytest.raises(SchemaError), VolumeCollectionWriter(tmp_path / "c") as writer:
        writer.write_volume(np.zeros((2, 2, 2)), bad, "s")
    assert not (tmp_path / "c").exists()


# Locks (case 16)


def test_two_writers_in_one_process(radi):
    with transaction(radi.uri, "a long write"), pytest.raises(LockError, match="this proce"):
        radi.delete("a")
    radi.delete("a")


def test_a_failed_change_leaves_the_state_as_it_was(radi):
    before = radi.history()
    with pytest.raises(KeyError):
        radi.delete(["a", "nobody"])
    with pytest.raises(KeyError):
        radi.CT.delete(["a_CT", "nothing"])
    with pytest.raises(SchemaError):
        radi.obs_meta.update(pd.DataFrame({"obs_subject_id": ["a"], "site": [object()]}))
    with pytest.raises(AlignmentError, match="no rows 'zz'"):
        radi.obs_meta.update(pd.DataFrame({"obs_subject_id": ["zz"], "site": ["x"]}))
    assert RadiObject(radi.uri).history().equals(before)
    radi.validate()


def test_notebook_html_and_reprs(radi):
    assert repr(radi) == "RadiObject(4 subjects, 2 collections: [CT, seg])"
    assert repr(radi.CT) == "VolumeCollection('CT', 4 volumes, shape=6x5x4)"
    assert repr(radi.CT[0]) == "Volume(shape=6x5x4, dtype=int32, obs_id='a_CT')"
    for noun in (radi, radi.CT, radi.CT[0], radi.iloc[[]]):
        page = noun._repr_html_()
        assert page.startswith("<")
        assert "<script" not in page
    assert page.count("data:image/png;base64,") == 0
    assert radi.CT[0]._repr_html_().count("data:image/png;base64,") == 3


def test_a_writer_whose_clock_is_behind_comes_after_all_the_same(tmp_path, monkeypatch):
    ahead = time.time() + 7200
    with monkeypatch.context() as patched:
        patched.setattr("radiobject.storage.commits.head.time.time", lambda: ahead)
        make_dataset(tmp_path / "store")
    radi = RadiObject(str(tmp_path / "store"))
    radi.CT.obs.add_column("grade", int, fill=1)
    radi.delete("a")
    radi.add_collection("again", radi.CT)
    for grade in range(20):
        rows = pd.DataFrame({"obs_subject_id": ["b"], "obs_id": ["b_CT"], "grade": [grade]})
        radi.CT.obs.update(rows)
    assert radi.history()["timestamp"].is_monotonic_increasing
    assert RadiObject(radi.uri).CT.obs.read(["grade"])["grade"].tolist() == [19, 1, 1]
    assert RadiObject(radi.uri, at=-2).CT.obs.read(["grade"])["grade"].tolist() == [18, 1, 1]
    radi.vacuum()
    radi.validate(checksums=True)
    check_volume(RadiObject(radi.uri).again["d_again"], "d")


@pytest.mark.parametrize("entry", ["no json", '{"timestamp": 1, "colour": "red"}', "[]"])
def test_a_damaged_history_is_said_to_be_one(radi, entry):
    groups.write_metadata(radi.uri, {"commit:000000000000001": entry}, Clock().tick())
    with pytest.raises(StorageError, match=r"the history of .* is damaged"):
        RadiObject(radi.uri).obs_meta.read()
