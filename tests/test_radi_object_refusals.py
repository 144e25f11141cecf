"""Data sets that are not there, damaged, foreign or read-only: what is said, and what stays."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiledb
from stores import check_volume, make_dataset

from radiobject import RadiObject, VolumeCollection, delete_tiledb_uri, uri_exists
from radiobject.exceptions import (
    AlignmentError,
    StorageError,
    StoreExistsError,
    StoreNotFoundError,
)
from radiobject.writers import VolumeCollectionWriter

# What is not there, or is something else


def test_opening_what_is_not_there_says_so(tmp_path):
    radi = RadiObject(str(tmp_path / "none"))
    with pytest.raises(StoreNotFoundError, match="nothing lies there"):
        len(radi)
    with pytest.raises(FileNotFoundError):
        VolumeCollection(str(tmp_path / "none")).obs_ids  # noqa: B018
    (tmp_path / "file").write_text("hello")
    with pytest.raises(StoreNotFoundError, match="other files lie there"):
        len(RadiObject(str(tmp_path / "file")))
    tiledb.Group.create(str(tmp_path / "group"))
    with pytest.raises(StoreNotFoundError, match="written by something else"):
        len(RadiObject(str(tmp_path / "group")))


def test_a_root_is_no_collection_and_a_collection_no_root(radi, tmp_path):
    with pytest.raises(StorageError, match="open it with RadiObject"):
        len(VolumeCollection(radi.uri))
    with VolumeCollectionWriter(tmp_path / "c") as writer:
        writer.write_volume(np.zeros((2, 2, 2)), "i", "s")
    with pytest.raises(StorageError, match="open it with VolumeCollection"):
        len(RadiObject(str(tmp_path / "c")))


def test_a_newer_format_is_refused(radi):
    with tiledb.Group(radi.uri, "w") as group:
        group.meta["radiobject.format_version"] = 99
    with pytest.raises(StorageError, match="version 99"):
        len(RadiObject(radi.uri))


def test_creating_over_something_is_refused_and_it_stays(radi, tmp_path):
    with pytest.raises(StoreExistsError, match="already exists"):
        make_dataset(radi.uri)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("x")
    with pytest.raises(StoreExistsError, match="not a RadiObject data set"):
        make_dataset(tmp_path / "full")
    assert (tmp_path / "full" / "precious.txt").read_text() == "x"
    radi.validate()


def test_delete_takes_only_what_is_ours(radi, tmp_path):
    for name in ("empty", "files"):
        (tmp_path / name).mkdir()
    (tmp_path / "files" / "x").write_text("x")
    tiledb.Group.create(str(tmp_path / "group"))
    (tmp_path / "link").symlink_to(radi.uri)
    for name in ("empty", "files", "nothing", "group"):
        with pytest.raises(StoreNotFoundError):
            delete_tiledb_uri(str(tmp_path / name))
    with pytest.raises(StorageError, match="symbolic link"):
        delete_tiledb_uri(str(tmp_path / "link"))
    with pytest.raises(StorageError, match="belongs to a data set"):
        delete_tiledb_uri(radi.CT.uri)
    with pytest.raises(StorageError, match="belongs to a collection"):
        delete_tiledb_uri(radi.CT[0].uri)
    assert uri_exists(radi.uri)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("x")
    os.symlink(tmp_path / "outside", f"{radi.uri}/collections/leak")
    delete_tiledb_uri(radi.uri)
    assert not uri_exists(radi.uri)
    assert (tmp_path / "outside" / "precious").read_text() == "x"


def test_validate_finds_a_flipped_bit(radi):
    folder = Path(radi.CT["b_CT"].uri)
    tiles = max(folder.rglob("a0.tdb"), key=lambda path: path.stat().st_size)
    raw = bytearray(tiles.read_bytes())
    raw[len(raw) // 2] ^= 4
    tiles.write_bytes(raw)
    fresh = RadiObject(radi.uri)
    fresh.validate()
    with pytest.raises(StorageError, match="b_CT"):
        fresh.validate(checksums=True)
    check_volume(fresh.CT["a_CT"], "a")


def test_validate_finds_a_lost_volume_and_an_exchanged_one(radi):
    rows = radi.CT._store.rows
    places = dict(zip(rows.obs_ids, rows.arrays, strict=True))
    folder = f"{radi.uri}/collections/CT/volumes"
    os.rename(f"{folder}/{places['a_CT']}", f"{folder}/aside")
    with pytest.raises(AlignmentError, match="a_CT"):
        RadiObject(radi.uri).validate()
    shutil.copytree(f"{folder}/{places['b_CT']}", f"{folder}/{places['a_CT']}")
    with pytest.raises(AlignmentError, match="b_CT"):
        RadiObject(radi.uri).validate()
    shutil.rmtree(f"{folder}/{places['a_CT']}")
    os.rename(f"{folder}/aside", f"{folder}/{places['a_CT']}")
    RadiObject(radi.uri).validate(checksums=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_read_only_data_set_opens_and_reads_and_says_why_it_cannot_be_written(radi):
    code = f"""
import os, numpy as np
from radiobject import RadiObject, StorageError
import radiobject.storage.io.lock, radiobject.storage.schema.legacy
import radiobject.edit.changes, radiobject.ingest.entry
radi = RadiObject({radi.uri!r})
import radiobject.storage.read.reader, tiledb, pandas, blosc2
radi.CT[0][0, 0, 0]
os.setgid(65534); os.setuid(65534)
radi = RadiObject({radi.uri!r})
assert radi.CT.loc["a_CT"].to_numpy()[0, 0, 0] == 1000
assert radi.filter("age > 40").CT.obs_ids == ["a_CT", "b_CT"]
radi.validate()
try:
    radi.delete("a")
except StorageError as error:
    assert "Permission denied" in str(error), error
    print("refused")
"""
    above = radi.uri.split("/")
    for depth in range(2, len(above)):
        folder = "/".join(above[:depth])
        os.chmod(folder, os.stat(folder).st_mode | 0o055)
    environment = {**os.environ, "RADIOBJECT_CACHE": "off"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout.strip() == "refused", done.stderr[-3000:]
