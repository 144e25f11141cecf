"""Heads that no writer wrote, and pipes, sockets, devices and folders where files should be."""

import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from stores import make_dataset

from radiobject import RadiObject
from radiobject.exceptions import AlignmentError, RadiObjectError, StorageError
from radiobject.storage.commits.transaction import transaction
from radiobject.storage.schema import collection
from radiobject.storage.schema.label_build import ensure_label_rows
from radiobject.storage.tables import groups


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    uri = tmp_path_factory.mktemp("made") / "store"
    make_dataset(uri)
    label(uri)
    return uri


@pytest.fixture
def store(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "store"))


def label(uri):
    seg = RadiObject(uri).seg._store
    return ensure_label_rows(seg.uri, seg.locators(np.arange(len(seg.rows))))


def ask(uri):
    """Read, validate and change the data set."""
    radi = RadiObject(uri)
    radi.obs_meta.read()
    for name in radi.collection_names:
        assert not radi.collection(name).label_names
        for volume in radi.collection(name):
            volume.to_numpy()
    label(uri)
    radi.validate()
    radi.rename_collection("CT", "MR")


PLACES = (
    "__meta/*", "__group/*", "__tiledb_group.tdb", ".radiobject/lock", "obs_meta/__schema/*",
    "obs_meta/__commits/*", "obs_meta/__fragments/*/d0.tdb", "collections/CT/__meta/*",
    "collections/CT/tile_index/__commits/*", "collections/CT/tile_index/__fragments/*/d0.tdb",
    "collections/seg/label_index/__commits/*", "collections/seg/label_index/.radiobject/*/*",
    "collections/CT/volumes/*/__schema/*", "collections/CT/volumes/*/__meta/*",
    "collections/CT/volumes/*/__fragments/*/a0.tdb",
)  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("place", PLACES)
def test_a_pipe_in_the_place_of_a_file_is_no_hang(store, place):
    path = min(p for p in store.glob(place) if p.is_file())
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RadiObjectError) as caught:
        ask(store)
    assert str(store) in str(caught.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["socket", "folder", "device", "link to itself", "link to naught"])
@pytest.mark.parametrize("place", ["__meta/*", "obs_meta/__schema/*"])
def test_nothing_else_takes_the_place_of_a_file(store, place, kind):
    path = min(p for p in store.glob(place) if p.is_file())
    path.unlink()
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(store.parent / "s"))
        os.rename(store.parent / "s", path)
    elif kind == "folder":
        path.mkdir()
    else:
        to = {"device": "/dev/zero", "link to itself": path.name, "link to naught": "not/there"}
        path.symlink_to(to[kind])
    with pytest.raises(StorageError) as caught:
        ask(store)
    assert str(path) in str(caught.value)


def last_commit(uri):
    metadata = groups.read_metadata(str(uri))
    key = max(name for name in metadata if name.startswith("commit:"))
    return key, json.loads(metadata[key])


@pytest.mark.parametrize(
    "change",
    [{"n_subjects": 10**18}, {"n_volumes": -1}, {"n_volumes": True}, {"n_volumes": 6.0},
     {"timestamp": []}, {"timestamp": 7}, {"collections": 1}, {"collections": {"CT": 7}},
     {"operation": "y" * (17 << 20)}, {"written": None}, {"unknown": 1}],
    ids=lambda change: str(change)[:30],
)  # fmt: skip
def test_a_head_that_no_writer_wrote_is_refused(store, change):
    key, fields = last_commit(store)
    groups.write_metadata(str(store), {key: json.dumps(fields | change)}, 2**50)
    with pytest.raises(StorageError, match=r"the history of .* is damaged"):
        len(RadiObject(store))


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "{", "[]", "7", ""])
def test_a_head_that_is_no_commit_is_refused(store, text):
    groups.write_metadata(str(store), {last_commit(store)[0]: text}, 2**50)
    with pytest.raises(StorageError, match=r"the history of .* is damaged"):
        len(RadiObject(store))


def test_a_part_of_the_record_of_files_that_is_gone_is_noticed(store):
    """Its files would be taken for those of nobody, and their rows be missing."""
    RadiObject(store).obs_meta.add_column("note", str, fill="x")
    metadata = groups.read_metadata(str(store))
    for key in [name for name in metadata if name.startswith("digests:")]:
        groups.write_metadata(str(store), {key: None}, 2**50)
        with pytest.raises(StorageError, match=r"record of the table files of .* is damaged"):
            len(RadiObject(store))
        groups.write_metadata(str(store), {key: metadata[key]}, 2**50 + 1)
        len(RadiObject(store))


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [("_affine_00", 0.0, "singular"), ("_affine_11", float("inf"), "singular"),
     ("_rescale_slope", float("inf"), "slope"), ("_rescale_slope", 0.0, "slope")],
)  # fmt: skip
def test_a_row_that_places_or_scales_nothing_fails_validate(store, column, value, said):
    """Written as a commit: the table's files are the recorded ones, and only the row is wrong."""
    with transaction(str(store), "alter") as tx:
        obs = RadiObject(store).CT._store.obs
        rows = {name: found.to_list() for name, found in obs.read(None).items()}
        rows[column] = [value, *rows[column][1:]]
        if column == "_rescale_slope":
            rows["_rescale_intercept"] = [0.0, *rows["_rescale_intercept"][1:]]
        collection.Table(obs.uri).write(rows, tx.clock.tick())
        tx.commit(
            collections=tx.last.collections,
            n_subjects=tx.last.n_subjects,
            n_volumes=tx.last.n_volumes,
        )
    with pytest.raises(AlignmentError, match=rf"{said}.*'a_CT'"):
        RadiObject(store).validate()
