import numpy as np
import pandas as pd
import pytest

from radiobject.exceptions import AlignmentError, SchemaError
from radiobject.ml import create_segmentation_dataloader, create_training_dataloader
from radiobject.radi_object import RadiObject
from radiobject.volume_collection import VolumeCollection

OPTIONS = {"batch_size": 1, "patch_size": (8, 8, 8), "num_workers": 0}


@pytest.fixture(scope="module")
def radi(tmp_path_factory):
    folder = tmp_path_factory.mktemp("splits")
    subjects = [f"s{i}" for i in range(10)]
    collections = {
        name: VolumeCollection.from_numpy(
            str(folder / name),
            {(s, f"{s}_{name}"): np.ones((10, 10, 10), np.uint8) for s in subjects},
        )
        for name in ("CT", "seg")
    }
    meta = pd.DataFrame({"obs_subject_id": subjects, "age": range(10)})
    made = RadiObject.from_collections(str(folder / "data"), collections, obs_meta=meta)
    made.split({"train": 0.8, "val": 0.2}, seed=7)
    return RadiObject(str(folder / "data"))


def test_a_loader_keeps_to_one_part_unless_asked_otherwise(radi):
    for make in (
        lambda **more: create_training_dataloader(radi.CT, **OPTIONS, **more),
        lambda **more: create_segmentation_dataloader(radi.CT, radi.seg, **OPTIONS, **more),
    ):
        with pytest.raises(AlignmentError, match="several parts of the split"):
            make()
        assert len(make(across_splits=True).dataset) == 10


def test_the_parts_share_no_subject(radi):
    train, val = (
        create_training_dataloader(radi.splits[part].CT, **OPTIONS) for part in ("train", "val")
    )
    assert len(train.dataset) == 8
    assert len(val.dataset) == 2
    assert not set(train.dataset.subject_ids) & set(val.dataset.subject_ids)


def test_labels_from_the_table_of_subjects(radi):
    loader = create_training_dataloader(radi.CT, "age", **OPTIONS, across_splits=True)
    for batch in loader:
        assert batch["label"].tolist() == [int(s[1:]) for s in batch["obs_subject_id"]]
    with pytest.raises(SchemaError, match=r"'weight' not found.*age"):
        create_training_dataloader(radi.CT, "weight", **OPTIONS, across_splits=True)
