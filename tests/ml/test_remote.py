import pytest
import torch
from ml_shelf import coordinates, make_shelf, store

from radiobject.ml import create_training_dataloader

pytestmark = pytest.mark.s3


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_from_an_object_store_are_those_of_the_disk(s3_bucket, tmp_path, workers):
    shapes = [(40, 36, 34)] * 3
    local = make_shelf(tmp_path, shapes)
    remote = store(
        tmp_path,
        "CT",
        [coordinates(i, s) for i, s in enumerate(shapes)],
        local.subject_ids,
        root=f"s3://{s3_bucket}",
    )
    options = {"batch_size": 2, "patch_size": (16, 16, 16), "patches_per_volume": 8}
    there = create_training_dataloader(remote, num_workers=workers, **options)
    here = create_training_dataloader(local, num_workers=0, **options)
    assert there.dataset.is_remote
    for _ in range(2):
        for a, b in zip(there, here, strict=True):
            assert torch.equal(a["image"], b["image"])
    next(iter(there))
