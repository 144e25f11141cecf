"""The ways of the device suite deliver batches; on a processor, for want of a device."""

import itertools
import time

import numpy as np
import pytest
import torch
from ml_shelf import make_shelf

from benchmarks.suites.device import (
    NETWORKS,
    OTHERS,
    WAYS,
    Device,
    Fed,
    network,
    of_radiobject,
    seconds_of_model,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("way", WAYS)
def test_every_way_delivers_batches_of_the_asked_shape(tmp_path, way):
    shelf = make_shelf(tmp_path, [(20, 18, 17)] * 3, dtype=np.int16)
    given = ((8, 8, 8), 2, CPU)
    arrays = [np.full((20, 18, 17), i + 1, np.int16) for i in range(3)]
    if way.startswith("radiobject"):
        batches = of_radiobject(way, shelf, *given)
    else:
        batches = OTHERS[way](arrays, *given)
    for batch in itertools.islice(batches, 4):
        assert batch.dtype == torch.float32
        assert batch.shape[1:] == (1, 8, 8, 8)
        assert (batch != 0).any()


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_model_is_timed_fed_and_alone(kind):
    """A loader that is slow is seen; the arithmetic needs no device."""

    def slow():
        while True:
            time.sleep(0.02)
            yield torch.ones(1, 1, 16, 16, 16)

    fed, alone = seconds_of_model(slow(), network(kind, CPU), CPU, count=2)
    assert fed > 0.02
    assert alone > 0


def test_without_a_device_the_suite_is_skipped_with_its_reason():
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    with pytest.raises(NotImplementedError, match="no CUDA device"):
        Device().setup(None, "radiobject")
    with pytest.raises(NotImplementedError, match="no CUDA device"):
        Fed().setup(None, "radiobject", "light")
