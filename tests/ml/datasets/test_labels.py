import numpy as np
import pandas as pd
import pytest
import torch

from radiobject import VolumeCollection
from radiobject.exceptions import AlignmentError, SchemaError
from radiobject.ml import VolumeCollectionDataset, create_training_dataloader
from radiobject.ml.utils import load_labels


def test_every_source_gives_the_same_labels(shelf):
    by_id = {i: 30 + k for k, i in enumerate(shelf.obs_ids)}
    by_subject = {s: 30 + k for k, s in enumerate(shelf.subject_ids)}
    table = pd.DataFrame({"obs_id": list(by_id), "y": list(by_id.values())})
    subjects = pd.DataFrame({"obs_subject_id": list(by_subject), "y": list(by_subject.values())})
    for source in (
        "age",
        by_id,
        by_subject,
        table.sample(frac=1, random_state=1),
        table.set_index("obs_id"),
        subjects,
        lambda obs_id: by_id[obs_id],
    ):
        assert load_labels(shelf, source) == by_id
    assert load_labels(shelf, None) is None


def test_a_column_of_the_subjects(shelf):
    shelf = shelf.pick(range(6))
    shelf.subject_rows = lambda: pd.DataFrame(
        {"obs_subject_id": shelf.subject_ids, "site": list("AABBCC")}
    )
    assert load_labels(shelf, "site")["sub-05_CT"] == "C"
    with pytest.raises(SchemaError, match=r"Label column 'nope' not found.*age.*site"):
        load_labels(shelf, "nope")


def test_a_column_of_the_stored_subjects(radi):
    """From the state that the collection was opened at, through views as well."""
    ages = radi.obs_meta.read().set_index("obs_subject_id")["age"]
    view = radi.CT.iloc[[2, 0]]
    found = load_labels(view, "age")
    assert found == {i: ages[s] for i, s in zip(view.obs_ids, view.subject_ids, strict=True)}
    alone = VolumeCollection.from_numpy(f"{radi.uri}-alone", {("a", "a_CT"): np.zeros((4, 4, 4))})
    with pytest.raises(SchemaError, match="Label column 'age' not found"):
        load_labels(alone, "age")


def test_missing_labels_are_listed_before_the_first_batch(shelf):
    with pytest.raises(AlignmentError, match=r"4 of 6 volumes have no label.*sub-02_CT"):
        create_training_dataloader(shelf, labels={"sub-00_CT": 1, "sub-01": 2}, num_workers=0)
    ages = pd.DataFrame({"obs_id": shelf.obs_ids, "y": [1.0, np.nan, 2, 3, 4, 5]})
    with pytest.raises(AlignmentError, match="sub-01_CT"):
        VolumeCollectionDataset(shelf, labels=ages)


@pytest.mark.parametrize(
    "bad",
    [
        pd.DataFrame({"y": [1]}),
        pd.DataFrame({"obs_id": ["a"]}),
        42,
        pd.DataFrame({"obs_id": ["a", "a"], "y": [1, 2]}),
    ],
)
def test_tables_that_cannot_be_labels(shelf, bad):
    with pytest.raises((SchemaError, AlignmentError), match=r"label"):
        load_labels(shelf, bad)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0, 1, 2, 3, 4, 5], torch.int64), ([0.5] * 6, torch.float32), ([True] * 6, torch.bool)],
)
def test_numbers_become_tensors(shelf, values, dtype):
    labels = dict(zip(shelf.obs_ids, values, strict=True))
    loader = create_training_dataloader(shelf, labels, 3, (8, 8, 8), num_workers=0)
    for batch in loader:
        assert batch["label"].dtype == dtype
        assert batch["label"].tolist() == [labels[i] for i in batch["obs_id"]]


def test_other_labels_stay_as_they_are(shelf):
    sites = dict(zip(shelf.obs_ids, "AABBCC", strict=True))
    (batch,) = create_training_dataloader(shelf, sites, 6, (8, 8, 8), num_workers=0)
    assert batch["label"] == [sites[i] for i in batch["obs_id"]]
    assert VolumeCollectionDataset(shelf, labels=sites)[3]["label"] == "B"


def test_a_second_label_column_is_not_left_out_in_silence(shelf):
    table = pd.DataFrame({"obs_id": shelf.obs_ids, "y": range(6), "z": range(6)})
    with pytest.warns(UserWarning, match="the first, 'y', is the label"):
        assert list(load_labels(shelf, table).values()) == list(range(6))
