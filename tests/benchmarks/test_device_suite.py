"""The ways of the device suite deliver batches; on a processor, for want of a device."""

import itertools

import numpy as np
import pytest
import torch
from ml_shelf import make_shelf

from benchmarks.suites.device import OTHERS, WAYS, Device, of_radiobject

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


def test_without_a_device_the_suite_is_skipped_with_its_reason():
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    with pytest.raises(NotImplementedError, match="no CUDA device"):
        Device().setup(None, "radiobject")
