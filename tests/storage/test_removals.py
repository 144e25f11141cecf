"""Nothing outside a data set is touched by what removes, and nothing in it that is not ours.

Every function that removes is run on a store whose folders hold links, other people's files and a
neighbour's data set; an inventory of these has to be the same before and after.
"""

import ast
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tiledb
from stores import make_dataset

from radiobject import RadiObject, VolumeCollection, delete_tiledb_uri
from radiobject.exceptions import IntegrityError, StorageError
from radiobject.storage.commits import recovery
from radiobject.storage.commits.transaction import creation, transaction
from radiobject.storage.io import files, layout, owned
from radiobject.storage.tables import groups
from radiobject.writers import RadiObjectWriter

FOREIGN = ("libfoo.so.6", "a.cafe", "notes.txt", "__commits.tar", "x-0123456789ab.18c")


@pytest.fixture
def hostile(tmp_path):
    """A data set among neighbours, with foreign files in every folder and a link in some."""
    make_dataset(tmp_path / "other")
    make_dataset(tmp_path / "store")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.tdb").write_text("precious")
    for folder in [tmp_path / "store", *filter(Path.is_dir, (tmp_path / "store").rglob("*"))]:
        if not (folder / "__schema").exists() and not folder.name.startswith("__"):
            for name in FOREIGN:
                (folder / name).write_text("mine")
    for folder in (tmp_path / "store/collections/CT/volumes", tmp_path / "store/collections"):
        (folder / "d_CT-0123456789ab.7fffffffffff").symlink_to(outside)
    return tmp_path


def inventory(root):
    """Every foreign file and link, and all of the neighbours, by content."""
    found = {}
    for base, names, entries in os.walk(root):
        for name in [*names, *entries]:
            path = Path(base, name)
            ours = path.is_relative_to(root / "store") and name not in FOREIGN
            if path.is_symlink():
                found[path] = os.readlink(path)
            elif path.is_file() and not ours:
                found[path] = path.read_bytes()
    return found


def die(uri, operation="dying"):
    """Leave what a writer leaves that is killed: a lock with a record, and later files."""
    lock = Path(uri, layout.LOCK)
    lock.parent.mkdir(exist_ok=True)
    with suppress(KeyboardInterrupt), transaction(uri, operation) as tx:
        RadiObject(uri)._store.obs_meta.delete_keys("obs_subject_id", ["a"], tx.clock.tick())
        raise KeyboardInterrupt
    lock.write_text("{}")


def roll_back(root):
    uri = str(root / "store")
    die(uri)
    with transaction(uri, "next"):
        pass


def repair(root):
    die(str(root / "store"))
    RadiObject(str(root / "store")).repair()


def vacuum(root):
    radi = RadiObject(str(root / "store"))
    radi.delete("a")
    radi = RadiObject(radi.uri)
    radi.vacuum(keep=1)
    RadiObject(radi.uri).validate(checksums=True)


def delete(root):
    delete_tiledb_uri(str(root / "store"))


def delete_linked_volumes(root):
    link_volumes(root)
    delete_tiledb_uri(str(root / "store"))


def link_volumes(root):
    volumes = root / "store/collections/CT/volumes"
    shutil.move(volumes, root / "bulk")
    volumes.symlink_to(root / "bulk")


def roll_back_linked(root):
    link_volumes(root)
    roll_back(root)


def unfinished(root):
    with suppress(KeyboardInterrupt), creation(str(root / "new"), "radiobject", "new"):
        (root / "new" / "notes.txt").write_text("mine")
        (root / "new" / "collections").mkdir()
        (root / "new" / "collections" / "theirs").symlink_to(root / "other")
        raise KeyboardInterrupt
    assert groups.object_kind(str(root / "new")) is None
    assert (root / "new" / "notes.txt").read_text() == "mine"


def remove_after(root):
    for folder in (root / "store", root / "store/obs_meta"):
        files.remove_after(str(folder), 0)


def remove_uncommitted(root):
    table = root / "store/obs_meta"
    (table / "__fragments" / "my-folder").mkdir()
    (table / "__fragments" / "my-folder" / "notes.txt").write_text("mine")
    files.remove_uncommitted(str(table))
    assert (table / "__fragments" / "my-folder" / "notes.txt").exists()


def merge(root):
    for turn in range(3):
        radi = RadiObject(str(root / "store"))
        radi.obs_meta.update(radi.obs_meta.read().assign(age=float(turn)))
    vacuum(root)


REMOVALS = [
    roll_back, repair, vacuum, delete, delete_linked_volumes, roll_back_linked, unfinished,
    remove_after, remove_uncommitted, merge,
]  # fmt: skip


@pytest.mark.parametrize("removal", REMOVALS, ids=lambda f: f.__name__)
def test_what_removes_touches_nothing_foreign(hostile, removal):
    volumes, bulk = hostile / "store/collections/CT/volumes", hostile / "bulk"
    before = inventory(hostile)
    removal(hostile)
    after = inventory(hostile)
    if "linked" in removal.__name__:
        # They were moved before, by the test itself.
        after |= {volumes / p.relative_to(bulk): after[p] for p in after if bulk in p.parents}
    assert {path: after.get(path) for path in before} == before


def test_vacuum_of_linked_volumes_removes_what_its_own_states_name(tmp_path):
    make_dataset(tmp_path / "other")
    make_dataset(tmp_path / "store")
    link_volumes(tmp_path)
    for volume in (tmp_path / "other/collections/CT/volumes").iterdir():
        name = volume.name.rpartition(".")[0] + ".7fffffff0000"
        shutil.copytree(volume, tmp_path / "bulk" / name)
    (tmp_path / "bulk" / "libfoo.so.6").write_text("mine")
    radi = RadiObject(str(tmp_path / "store"))
    radi.delete("a")
    RadiObject(radi.uri).vacuum(keep=1)
    left = sorted(p.name for p in (tmp_path / "bulk").iterdir())
    assert len(left) == 3 + 4 + 1
    RadiObject(radi.uri).validate(checksums=True)


def alter_place(uri, place):
    metadata = groups.read_metadata(uri)
    key = max(k for k in metadata if k.startswith("commit:"))
    commit = json.loads(metadata[key])
    commit["collections"]["CT"] = place
    groups.write_metadata(uri, {key: json.dumps(commit)}, commit["timestamp"] + 1)


@pytest.mark.parametrize(
    "place",
    [
        "{other}",
        "../other/collections/CT",
        "collections/../../other/collections/CT",
        "collections/..",
        "file://{other}",
        "collections/CT/volumes",
        "",
        "obs_meta",
    ],
)
def test_a_head_that_names_another_place_is_refused(tmp_path, place):
    make_dataset(tmp_path / "other")
    make_dataset(tmp_path / "store")
    uri = str(tmp_path / "store")
    alter_place(uri, place.format(other=tmp_path / "other/collections/CT"))
    before = inventory(tmp_path)
    with pytest.raises(IntegrityError, match="which is not in its folder"):
        RadiObject(uri).collection("CT").obs_ids  # noqa: B018
    with pytest.raises(IntegrityError, match="which is not in its folder"):
        RadiObject(uri).vacuum(keep=1)
    with pytest.raises(IntegrityError), transaction(uri, "next"):
        RadiObject(uri)._store.obs_meta.delete_keys("obs_subject_id", ["a"], 1)
    assert inventory(tmp_path) == before


def test_a_link_in_the_place_of_a_collection_is_refused(tmp_path):
    make_dataset(tmp_path / "other")
    make_dataset(tmp_path / "store")
    place = tmp_path / "store/collections/CT"
    shutil.rmtree(place)
    place.symlink_to(tmp_path / "other/collections/CT")
    with pytest.raises(IntegrityError, match="is a link to"):
        RadiObject(str(tmp_path / "store")).CT.obs_ids  # noqa: B018
    with pytest.raises(IntegrityError, match="is a link to"):
        RadiObject(str(tmp_path / "store")).vacuum(keep=1)


def test_a_collection_that_names_another_owner_is_refused(tmp_path):
    make_dataset(tmp_path / "other")
    make_dataset(tmp_path / "store")
    uri = str(tmp_path / "store/collections/CT")
    groups.write_metadata(uri, {"owner": str(tmp_path / "other")}, 2**53)
    with pytest.raises(IntegrityError, match="says that it belongs to"):
        VolumeCollection(uri).obs_ids  # noqa: B018


def test_a_row_that_names_another_place_is_refused(tmp_path):
    make_dataset(tmp_path / "other")
    make_dataset(tmp_path / "store")
    uri = str(tmp_path / "store")
    obs = RadiObject(uri).CT._store.obs
    rows = {n: c.to_list() for n, c in obs.read(list(obs.schema()[1])).items()}
    stolen = next((tmp_path / "other/collections/CT/volumes").iterdir())
    rows["_array"][0] = f"../../../../other/collections/CT/volumes/{stolen.name}"
    with transaction(uri, "alter") as tx:
        obs.write(rows, tx.clock.tick())
        tx.commit(collections=tx.last.collections, n_subjects=4, n_volumes=8)
    with pytest.raises(IntegrityError, match="no name of a volume"):
        RadiObject(uri).CT.iloc[0].to_numpy()
    with pytest.raises(IntegrityError, match="no name of a volume"):
        RadiObject(uri).vacuum(keep=1)


def test_a_link_in_the_place_of_a_volume_is_refused(tmp_path):
    make_dataset(tmp_path / "other")
    make_dataset(tmp_path / "store")
    volumes = tmp_path / "store/collections/CT/volumes"
    mine = next(p for p in volumes.iterdir() if p.name.startswith("a_"))
    theirs = next(p for p in (tmp_path / "other/collections/CT/volumes").iterdir())
    shutil.rmtree(mine)
    mine.symlink_to(theirs)
    with pytest.raises(StorageError, match="is a link"):
        RadiObject(str(tmp_path / "store")).CT.loc["a_CT"].to_numpy()


def test_a_link_in_the_place_of_a_tile_file_is_refused(tmp_path):
    make_dataset(tmp_path / "store")
    tiles = next((tmp_path / "store/collections/CT/volumes").glob("a_*/__fragments/*/a0.tdb"))
    shutil.move(tiles, tmp_path / "elsewhere.tdb")
    tiles.symlink_to(tmp_path / "elsewhere.tdb")
    with pytest.raises(StorageError, match="is a link"):
        RadiObject(str(tmp_path / "store")).CT.loc["a_CT"].to_numpy()


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("d_CT-0123456789ab.18c", True),
        ("0123456789ab.18c", True),
        ("libfoo.so.6", False),
        ("a.cafe", False),
        ("d_CT-0123456789ab.018c", False),
        ("d_CT-0123456789AB.18c", False),
        ("../d_CT-0123456789ab.18c", False),
        ("d_CT-0123456789ab.18c/..", False),
        ("d_CT-0123456789ab.18c\n", False),
    ],
)
def test_names_of_exactly_our_form(name, ours):
    assert layout.is_array_name(name) is ours


def test_everything_that_is_written_is_known_as_ours(tmp_path):
    with RadiObjectWriter(str(tmp_path / "store")) as writer:
        target = writer.add_collection("a/b: ü")
        target.write_volume(np.ones((4, 4, 4), np.int16), "ü/1", "s", note="x")
    radi = RadiObject(str(tmp_path / "store"))
    radi.obs_meta.add_column("site", str)
    radi.delete("s")
    written = [p for p in (tmp_path / "store").rglob("*") if p.is_file()]
    paths = [p.relative_to(tmp_path / "store").as_posix() for p in written]
    assert [p for p in paths if not owned.DATASET.fullmatch(p)] == []
    delete_tiledb_uri(radi.uri)
    assert not (tmp_path / "store").exists()


CALLS = {
    "unlink", "rmdir", "rmtree", "remove_dir", "remove_file", "removedirs", "vacuum", "remove",
    "move_dir", "move_file", "delete", "delete_array", "delete_fragments",
}  # fmt: skip
ALLOWED = {
    "storage/io/owned.py", "storage/io/files.py", "storage/io/atomic.py",
    "storage/io/object_lock.py",
    "storage/commits/recovery.py", "storage/commits/transaction.py", "storage/tiles/mirror.py",
    "storage/commits/compaction.py", "storage/schema/removal.py", "storage/schema/maintenance.py",
    "storage/tables/digests.py", "storage/tables/table.py", "storage/tables/writer.py",
    "storage/tables/staging.py", "ingest/run.py", "edit/changes.py", "dataframe.py",
    "edit/doctor.py", "edit/copying.py",
}  # fmt: skip
"""Where something is removed: each is walked above, or removes what it made a moment before."""


def test_nothing_else_removes():
    package = Path(recovery.__file__).parents[2]
    found = set()
    for path in package.rglob("*.py"):
        where = path.relative_to(package).as_posix()
        if not where.startswith(("storage/", "ingest/", "edit/")) and where != "dataframe.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                on = ast.unparse(node.func.value)
                if node.func.attr in CALLS and not on.endswith(("_sessions", "_taken")):
                    found.add(where)
    assert found <= ALLOWED, sorted(found - ALLOWED)


def test_tiledb_opens_what_is_left(hostile):
    vacuum(hostile)
    assert tiledb.object_type(str(hostile / "store")) == "group"
