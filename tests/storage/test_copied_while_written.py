"""Copies that other programs make while the data set is written: `cp -r`, rsync, `aws s3 sync`.

They bring rows of a commit whose head they do not have. Nobody may ever see these, also not after
later commits to the copy; the lock may have been copied before it was taken.
"""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from stores import check_volume, make_dataset

from radiobject import RadiObject
from radiobject.sampling.label_names import LabelNames
from radiobject.storage.commits.transaction import transaction
from radiobject.storage.io import files, layout
from radiobject.storage.schema.label_names import write_label_names
from radiobject.storage.tables import digests
from radiobject.storage.tables.table import Table

pytestmark = pytest.mark.processes


def copied(tmp_path, write):
    """Return a copy of a data set that was made when `write` had written, and no head yet."""
    uri, target = str(tmp_path / "store"), tmp_path / "copy"
    make_dataset(uri)

    def change():
        with transaction(uri, "writes") as tx:
            write(uri, tx)
            shutil.copytree(uri, target)
            raise KeyError

    with pytest.raises(KeyError):
        change()
    (target / layout.LOCK).write_bytes(b"")
    return str(target)


def write_ages(uri, tx):
    meta = Table(f"{uri}/obs_meta")
    rows = {name: column.to_list() for name, column in meta.read(None).items()}
    meta.write(rows | {"age": [99.0] * 4}, tx.clock.tick())


def write_rows(uri, tx):
    write_ages(uri, tx)
    Table(f"{uri}/collections/CT/obs").delete("obs_id == 'b_CT'", tx.clock.tick())
    Table(f"{uri}/obs_meta").evolve(drop=["site"], tick=tx.clock.tick)


def write_names(uri, tx):
    write_label_names(f"{uri}/collections/seg", LabelNames({1: "lung"}), tx.clock.tick())


def check(uri):
    radi = RadiObject(uri)
    table = radi.obs_meta.read().set_index("obs_subject_id")
    assert table["age"].tolist()[:3] == [61.0, 45.0, 30.0]
    assert table["site"].tolist() == ["x", "y", "x", "y"]
    assert radi.CT.obs_ids == ["a_CT", "b_CT", "c_CT", "d_CT"]
    assert radi.seg.label_names == {}
    check_volume(radi.CT["b_CT"], "b")


def change_and_check(uri):
    check(uri)
    RadiObject(uri).obs_meta.add_column("note", str, fill="x")
    check(uri)
    change = pd.DataFrame({"obs_subject_id": ["a"], "obs_id": ["a_CT"], "kvp": [1]})
    RadiObject(uri).CT.obs.update(change)
    check(uri)
    for keep in (2, 1):
        RadiObject(uri).vacuum(keep=keep)
        check(uri)
    RadiObject(uri).validate(checksums=True)


@pytest.mark.parametrize("write", [write_rows, write_names])
def test_what_was_not_committed_is_never_seen(tmp_path, write):
    change_and_check(copied(tmp_path, write))


@pytest.mark.s3
def test_nor_in_a_bucket(tmp_path, s3_bucket):
    place = copied(tmp_path, write_ages)
    uri = f"s3://{s3_bucket}/copy"
    for path in Path(place).rglob("*"):
        if path.is_file():
            files.copy_file(str(path), f"{uri}/{path.relative_to(place).as_posix()}")
    check(uri)
    RadiObject(uri).obs_meta.add_column("note", str, fill="x")
    check(uri)


def test_nor_what_carries_an_earlier_time(tmp_path):
    """As rsync leaves on its way from one state to another, and a merge that was broken off."""
    uri = copied(tmp_path, write_ages)
    head, table = digests.reload(uri), Path(uri, "obs_meta")
    known = {part for path in head.tables["obs_meta"] for part in path.split("/")}
    (old,) = set(os.listdir(table / "__fragments")) - known
    new = "_".join(["", "", *[str(head.head)] * 2, *old.split("_")[4:]])
    (table / "__fragments" / old).rename(table / "__fragments" / new)
    (table / "__commits" / f"{old}.wrt").rename(table / "__commits" / f"{new}.wrt")
    change_and_check(uri)
