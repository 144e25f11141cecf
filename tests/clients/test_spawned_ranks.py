"""Ranks that torch.multiprocessing starts with a data set that was made before them."""

import json

import ml_ranks
import pytest
import torch

from radiobject.ml import DatasetConfig, VolumeCollectionDataset

CONFIG = DatasetConfig("patch", patch_size=(8, 8, 8), patches_per_volume=4, seed=5)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_each_draws_as_if_it_were_alone(shelf, tmp_path, method):
    dataset = VolumeCollectionDataset(shelf, CONFIG)
    torch.multiprocessing.start_processes(
        ml_ranks.run, (dataset, str(tmp_path), method), ml_ranks.WORLD, start_method=method
    )
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for rank, passes in enumerate(found):
        alone = VolumeCollectionDataset(shelf, CONFIG)
        alone._draws._group_given = rank, ml_ranks.WORLD  # as in that rank's processes
        assert passes == ml_ranks.epochs(alone, rank)
    every = [digest for passes in found for one in passes for digest in one]
    assert len(set(every)) == len(every) == 2 * 24
