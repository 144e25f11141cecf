"""What factories share: one value of their arguments, which leaves no option out."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset

from radiobject.exceptions import ConfigurationError
from radiobject.ml import (
    DatasetConfig,
    VolumeCollectionDataset,
    VolumeLoader,
    create_inference_dataloader,
    create_segmentation_dataloader,
    create_training_dataloader,
    create_validation_dataloader,
)
from radiobject.ml.distributed import (
    create_distributed_dataloader,
    create_distributed_segmentation_dataloader,
)
from radiobject.ml.loaders import options

FACTORIES = [
    create_training_dataloader,
    create_validation_dataloader,
    create_inference_dataloader,
    create_segmentation_dataloader,
    create_distributed_dataloader,
    create_distributed_segmentation_dataloader,
]


def test_every_option_goes_to_exactly_one_place():
    groups = (options._SAMPLES, options._VOLUMES, options._ORDER, options._LOADER, options._WORKERS)
    taken = [name for group in groups for name in group]
    assert sorted([*taken, "drop_last"]) == sorted(options.LoaderOptions.__annotations__)


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: factory.__name__)
def test_a_factory_shows_its_options_by_their_one_name(factory):
    parameters = inspect.signature(factory).parameters
    assert parameters["options"].annotation == "Unpack[LoaderOptions]"
    assert not set(parameters) & set(options.LoaderOptions.__annotations__)


class Wrapped(IterableDataset):
    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return (self.dataset[number] for number in range(len(self.dataset)))


def test_what_wraps_a_data_set_is_for_other_loaders(shelf):
    dataset = VolumeCollectionDataset(shelf)
    for other in (Wrapped(dataset), Subset(dataset, [0]), [1, 2]):
        with pytest.raises(ConfigurationError, match=f"got {type(other).__name__}; wrapped ones"):
            VolumeLoader(other)
    config = DatasetConfig("patch", (4, 4, 4), patches_per_volume=2)
    plain = DataLoader(Wrapped(VolumeCollectionDataset(shelf, config)), batch_size=3)
    first, second = ([batch["image"] for batch in plain] for _ in range(2))
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "more",
    [
        {"transform": lambda sample: {"other": sample["image"]}},
        {"transform": lambda sample: sample["image"]},
        {"batch_transform": lambda batch: batch["image"]},
        {"batch_transform": lambda batch: None},
    ],
)
def test_a_receipt_that_would_cover_nothing_is_refused(shelf, more):
    options = {"batch_size": 2, "patch_size": (4, 4, 4), "num_workers": 0}
    assert len(list(create_training_dataloader(shelf, **options, **more))) > 0
    loader = create_training_dataloader(shelf, receipt=True, **options, **more)
    with pytest.raises(ConfigurationError, match="receipt=True covers image"):
        next(iter(loader))
