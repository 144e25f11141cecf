"""What a data set no longer says of a patient is in none of its files after `vacuum`."""

from pathlib import Path

import pandas as pd
import pytest
import tiledb
from stores import SUBJECTS, make_dataset

from radiobject import RadiObject
from radiobject.ctx import get_tiledb_ctx
from radiobject.exceptions import StorageError
from radiobject.ml import PercentForeground, create_segmentation_dataloader
from radiobject.storage.commits import purge as purging
from radiobject.storage.io import files
from radiobject.storage.tables.table import Table
from radiobject.writers import RadiObjectWriter

SECRET = "withdrawn7"
TABLES = ("obs_meta", "collections/CT/obs", "collections/CT/tile_index", "collections/seg/obs")


@pytest.fixture
def uri(tmp_path):
    """A data set of which a subject, a column, and values of another column are given up."""
    place = str(tmp_path / "store")
    make_dataset(place, subjects=(*SUBJECTS, "e"))
    radi = RadiObject(place)
    radi.obs_meta.add_column("note", str, fill=SECRET)
    radi.obs_meta.update(pd.DataFrame({"obs_subject_id": ["a"], "site": [SECRET]}))
    radi.obs_meta.update(pd.DataFrame({"obs_subject_id": ["a"], "site": ["z"]}))
    radi.obs_meta.drop_column("note")
    radi.delete("e")
    return place


def cells(table):
    """Number of rows in the files of a table, read by any state or by none."""
    return sum(tiledb.array_fragments(str(table), ctx=get_tiledb_ctx()).cell_num)


def conditions(table):
    return [path.name for path in Path(table).glob("__commits/*.del")]


def columns_in_files(table):
    return {path.name for path in Path(table).glob("__fragments/*/*.tdb")}


def test_no_file_has_what_was_given_up(uri):
    before = RadiObject(uri)
    rows, kvps = before.obs_meta.read(), before.CT.obs.read()
    assert conditions(f"{uri}/obs_meta")
    assert cells(f"{uri}/obs_meta") > len(rows)

    before.vacuum(keep=1)

    after = RadiObject(uri)
    pd.testing.assert_frame_equal(after.obs_meta.read(), rows)
    pd.testing.assert_frame_equal(after.CT.obs.read(), kvps)
    after.validate(checksums=True)
    for table in TABLES:
        assert conditions(f"{uri}/{table}") == []
        assert cells(f"{uri}/{table}") == len(SUBJECTS), table
    assert not [path for path in Path(uri).rglob("*") if "e_CT" in path.name]
    assert not [p for p in Path(uri).rglob("*") if p.is_file() and b"e_CT" in p.read_bytes()]


def test_a_dropped_column_leaves_the_files(uri):
    RadiObject(uri).vacuum(keep=1)
    schema = Table(f"{uri}/obs_meta").schema()[1]
    for fragment in tiledb.array_fragments(f"{uri}/obs_meta", ctx=get_tiledb_ctx()):
        made = int(fragment.array_schema_name.split("_")[2])
        assert Table(f"{uri}/obs_meta", made).schema()[1].items() <= schema.items()


def test_kept_states_are_what_they_were(uri):
    radi = RadiObject(uri)
    radi.obs_meta.update(pd.DataFrame({"obs_subject_id": ["b"], "age": [99.0]}))
    former = RadiObject(uri, at=-2).obs_meta.read()
    latest = RadiObject(uri).obs_meta.read()
    radi.vacuum(keep=2)
    stamps = list(RadiObject(uri).history().timestamp)
    states = [RadiObject(uri, at=int(s)).obs_meta.read() for s in stamps]
    pd.testing.assert_frame_equal(states[0], former)
    pd.testing.assert_frame_equal(states[1], latest)


def test_what_shares_files_with_a_kept_state_goes_with_it(uri, caplog):
    """Columns changed since the oldest kept state: its rows cannot be written anew yet."""
    radi = RadiObject(uri)
    radi.obs_meta.add_column("later", float)
    radi.vacuum(keep=2)
    assert cells(f"{uri}/obs_meta") > len(SUBJECTS)
    assert "its columns changed after the oldest state" in caplog.text
    caplog.clear()
    RadiObject(uri).vacuum(keep=1)
    assert not caplog.records
    assert cells(f"{uri}/obs_meta") == len(SUBJECTS)


def test_a_second_vacuum_writes_no_table(uri):
    RadiObject(uri).vacuum(keep=1)
    before = {t: sorted(Table(f"{uri}/{t}").fragments()) for t in TABLES}
    RadiObject(uri).vacuum(keep=1)
    assert {t: sorted(Table(f"{uri}/{t}").fragments()) for t in TABLES} == before


def test_parts_of_a_table_are_the_table(uri, monkeypatch):
    monkeypatch.setattr(purging, "ROWS_AT_ONCE", 3)
    before = RadiObject(uri)
    meta, obs = before.obs_meta.read(), before.CT.obs.read()
    before.vacuum(keep=1)
    pd.testing.assert_frame_equal(RadiObject(uri).obs_meta.read(), meta)
    pd.testing.assert_frame_equal(RadiObject(uri).CT.obs.read(), obs)
    assert cells(f"{uri}/obs_meta") == len(SUBJECTS)
    RadiObject(uri).validate()


def test_ids_of_any_script_are_kept(tmp_path):
    names = ["it's", 'a "b"', "Ärzte", "日本", "a\\b", "z\x7f", "gone"]
    uri = str(tmp_path / "store")
    with RadiObjectWriter(uri) as writer:
        writer.write_obs_meta(pd.DataFrame({"obs_subject_id": names, "age": range(len(names))}))
    RadiObject(uri).delete("gone")
    before = RadiObject(uri).obs_meta.read()
    RadiObject(uri).vacuum(keep=1)
    pd.testing.assert_frame_equal(RadiObject(uri).obs_meta.read(), before)
    assert cells(f"{uri}/obs_meta") == len(before) == len(names) - 1


def test_an_index_of_labels_forgets_deleted_volumes(tmp_path):
    uri = str(tmp_path / "store")
    make_dataset(uri)

    def train():
        radi = RadiObject(uri)
        loader = create_segmentation_dataloader(
            radi.CT, radi.seg, patch_size=(2, 2, 2), batch_size=1, num_workers=0,
            foreground_sampling=PercentForeground(0.1),
        )  # fmt: skip
        return [batch["mask"].sum().item() for batch in loader]

    train()
    RadiObject(uri).delete("a")
    expected = train()
    table = f"{uri}/collections/seg/label_index"
    assert cells(table) == len(SUBJECTS)
    RadiObject(uri).vacuum(keep=1)
    assert cells(table) == len(SUBJECTS) - 1
    assert train() == expected


def test_a_removal_that_breaks_off_is_taken_up_again(uri, monkeypatch):
    rows = RadiObject(uri).obs_meta.read()

    def refused(*_args):
        raise StorageError("no permission")

    with monkeypatch.context() as broken:
        broken.setattr(files, "remove_written", refused)
        RadiObject(uri).vacuum(keep=1)
    pd.testing.assert_frame_equal(RadiObject(uri).obs_meta.read(), rows)
    RadiObject(uri).vacuum(keep=1)
    pd.testing.assert_frame_equal(RadiObject(uri).obs_meta.read(), rows)
    assert cells(f"{uri}/obs_meta") == len(SUBJECTS)


def test_a_reader_of_the_last_state_goes_on(uri):
    reader = RadiObject(uri)
    expected = reader.obs_meta.read()
    reader = RadiObject(uri)
    RadiObject(uri).vacuum(keep=1)
    pd.testing.assert_frame_equal(reader.obs_meta.read(), expected)
