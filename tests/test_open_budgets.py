"""What each verb opens: what one step has read, it hands on to the next.

Counted are openings of arrays and groups by the tables, groups and writers of the store. They are
what costs a metadata set its time: some ten requests each where the store is an object store.
"""

from __future__ import annotations

from unittest import mock

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import tiledb
from stores import make_dataset, scanned_again

from radiobject import RadiObject, VolumeCollection

OPTIONS = {"patch_size": (2, 2, 2), "num_workers": 0, "batch_size": 2}


class Opens:
    """Notes every opening of an array or group, as "<kind> <last part of the address> <mode>"."""

    def __enter__(self):
        self.seen = []
        opened, group = tiledb.open, tiledb.Group

        def note(uri, mode="r", *args, **kwargs):
            self.seen.append(f"{uri.rsplit('/', 1)[-1]} {mode}")
            return opened(uri, mode, *args, **kwargs)

        class Counted(group):
            def __init__(inner, uri, mode="r", *args, **kwargs):
                self.seen.append(f"{uri.rsplit('/', 1)[-1]} {mode} (group)")
                super().__init__(uri, mode, *args, **kwargs)

        self.patches = [
            mock.patch.object(tiledb, "open", note),
            mock.patch.object(tiledb, "Group", Counted),
        ]
        for patch in self.patches:
            patch.start()
        return self

    def __exit__(self, *exception):
        for patch in self.patches:
            patch.stop()


@pytest.fixture
def uri(tmp_path):
    make_dataset(tmp_path / "s")
    return str(tmp_path / "s")


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((6, 5, 4), np.int16), np.eye(4)), path)
    return path


def test_opening_a_data_set_opens_its_group_and_its_subjects(uri):
    with Opens() as opens:
        radi = RadiObject(uri)
        assert (len(radi), radi.collection_names) == (4, ("CT", "seg"))
    assert len(opens.seen) <= 2, opens.seen


def test_opening_a_collection_opens_its_groups_and_its_rows(uri):
    place = RadiObject(uri).CT.uri
    with Opens() as opens:
        assert len(VolumeCollection(place)) == 4
    assert len(opens.seen) <= 3, opens.seen


def test_a_filter_of_an_open_data_set_reads_its_table_once(uri):
    radi = RadiObject(uri)
    assert len(radi) == 4
    with Opens() as opens:
        assert len(radi.filter("age > 40")) == 2
    assert len(opens.seen) <= 1, opens.seen
    ct = radi.CT
    assert len(ct) == 4
    with Opens() as opens:
        assert len(ct.filter("protocol == 'fast'")) == 2
    assert len(opens.seen) <= 1, opens.seen


def test_a_view_of_a_filtered_data_set_asks_nothing_more(uri):
    chosen = RadiObject(uri).filter("age > 40")
    with Opens() as opens:
        assert chosen.obs_subject_ids == ["a", "b"]
        assert chosen.head(1).obs_subject_ids == ["a"]
    assert opens.seen == []


@pytest.fixture
def grown(tmp_path, scan):
    """A data set that has the columns of `scan` already, and two collections."""
    ages = pd.DataFrame({"obs_subject_id": ["a"], "age": [7.0]})
    images = {"CT": [(scan, "a")], "T1w": [(scan, "a")]}
    RadiObject.from_images(str(tmp_path / "g"), images, obs_meta=ages)
    radi = RadiObject(str(tmp_path / "g"))
    assert len(radi) == 1
    return radi


def test_an_append_opens_nothing_twice(grown, scan, tmp_path):
    again = scanned_again(scan, tmp_path)
    with Opens() as opens:
        grown.append({"CT": [(again, "a")]})
    assert len(opens.seen) <= 8, opens.seen
    assert grown.CT.obs_ids == ["a_CT", "a_CT_acq-1"]
    grown.validate(checksums=True)


def test_a_new_subject_costs_no_more(grown, scan):
    row = pd.DataFrame({"obs_subject_id": ["e"], "age": [8.0]})
    with Opens() as opens:
        grown.append({"CT": [(scan, "e")]}, obs_meta=row)
    assert len(opens.seen) <= 8, opens.seen
    rows = grown.obs_meta.read().set_index("obs_subject_id")
    assert rows.loc["e"].to_dict() == {"age": 8.0, "obs_ids": '["e_CT"]'}
    grown.validate(checksums=True)


def test_an_append_to_an_open_collection_costs_no_more(grown, scan, tmp_path):
    ct = grown.CT
    assert len(ct) == 1
    with Opens() as opens:
        ct.append(niftis=[(scanned_again(scan, tmp_path), "a")])
    assert len(opens.seen) <= 8, opens.seen
    assert grown.CT.obs_ids == ["a_CT", "a_CT_acq-1"]
    grown.validate(checksums=True)


def test_an_append_to_a_collection_of_its_own_has_no_data_set_to_open(tmp_path, scan):
    alone = VolumeCollection.from_niftis(str(tmp_path / "c"), [(scan, "a")])
    assert len(alone) == 1
    with Opens() as opens:
        alone.append(niftis=[(scanned_again(scan, tmp_path), "a")])
    assert len(opens.seen) <= 6, opens.seen
    assert alone.obs_ids == ["a_c", "a_c_acq-1"]
    alone.validate(checksums=True)


def test_new_columns_cost_one_opening_whatever_their_number(grown, scan):
    """Beyond the 8 of any append: the values that a table had under the new names are looked for.

    One for the table of subjects, and one for that of the volumes.
    """
    row = {"obs_subject_id": "e", "age": 8.0} | {f"score_{n}": float(n) for n in range(12)}
    with Opens() as opens:
        grown.append({"CT": [(scan, "e")]}, obs_meta=pd.DataFrame([row]))
    assert len(opens.seen) <= 10, opens.seen
    assert grown.obs_meta.read().set_index("obs_subject_id").loc["e", "score_11"] == 11.0
    grown.validate(checksums=True)


def test_wider_columns_cost_two_openings_a_table(grown, scan):
    """One reads the rows that are written again, one writes them."""
    with Opens() as opens:
        row = pd.DataFrame({"obs_subject_id": ["e"], "age": ["old"]})
        grown.append({"CT": [(scan, "e")]}, obs_meta=row)
    assert len(opens.seen) <= 10, opens.seen
    rows = grown.obs_meta.read().set_index("obs_subject_id")
    assert rows["age"].to_dict() == {"a": "7", "e": "old"}


def test_a_new_collection_costs_its_groups(grown, scan):
    """The group of the collection is written twice: when it is made, and when it has tables."""
    with Opens() as opens:
        grown.append({"T2w": [(scan, "a")]})
    assert len(opens.seen) <= 9, opens.seen
    assert grown.T2w.obs_ids == ["a_T2w"]


def test_a_deletion_reads_what_it_needs_once(grown):
    ct = grown.CT
    assert len(ct) == 1
    with Opens() as opens:
        ct.delete("a_CT")
    assert len(opens.seen) <= 5, opens.seen
    grown.validate()


def test_a_column_of_rows_costs_no_second_look_at_the_groups(grown):
    ct = grown.CT
    assert len(ct) == 1
    with Opens() as opens:
        ct.obs.add_column("good", bool)
    assert len(opens.seen) <= 3, opens.seen


def test_a_volume_found_by_its_id_costs_the_tables_of_the_collections(grown):
    again = RadiObject(grown.uri)
    assert len(again) == 1
    with Opens() as opens:
        assert again.get_volume("a_T1w").obs_id == "a_T1w"
    assert len(opens.seen) <= 3, opens.seen


def test_a_loader_of_open_collections_opens_nothing(uri):
    pytest.importorskip("torch")
    from radiobject.ml import create_training_dataloader

    RadiObject(uri).split({"train": 0.5, "val": 0.5})
    radi = RadiObject(uri)
    train, masks = radi.splits["train"].CT, radi.splits["train"].seg
    assert train.locators()
    assert masks.locators()
    with Opens() as opens:
        loader = create_training_dataloader([train, masks], **OPTIONS)
    assert opens.seen == []
    assert len(loader.dataset) == 2
