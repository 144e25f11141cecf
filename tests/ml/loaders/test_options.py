"""What factories share: one value of their arguments, which leaves no option out."""

from __future__ import annotations

import inspect

import pytest

from radiobject.ml import (
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
