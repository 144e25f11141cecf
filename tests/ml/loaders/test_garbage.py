"""A loader goes with the last that knows it, and is no garbage that has to be found.

As garbage it would hold its workers and its buffers for an unknown time, and PyTorch's queues,
dropped in any order, would then be waited for five seconds a worker.
"""

import multiprocessing
import weakref
from dataclasses import dataclass

import pytest

from radiobject.exceptions import RadiObjectError
from radiobject.ml import create_training_dataloader

OPTIONS = {"batch_size": 4, "patch_size": (8, 8, 8), "patches_per_volume": 8}


class Refused(RadiObjectError):
    """A transform's own."""


@dataclass(frozen=True)
class Fails:
    """A transform that one subject's samples fail in."""

    subject: str

    def __call__(self, sample):
        if sample["obs_subject_id"] == self.subject:
            raise Refused("this subject")
        return sample


@pytest.mark.usefixtures("forked", "kept")
@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("end", ["whole", "early", "error"])
def test_a_loader_goes_with_the_last_that_knows_it(shelf, device, workers, end):
    transform = Fails(shelf.subject_ids[-1]) if end == "error" else None
    loader = create_training_dataloader(
        shelf, **OPTIONS, num_workers=workers, device=device, transform=transform
    )
    for _ in range(3):  # by the third a device has every volume
        raised = False
        try:
            for number, _ in enumerate(loader):
                if end == "early" and number == 2:
                    break
        except Refused:
            raised = True
        assert raised == (end == "error")
        if loader._source is not None:
            assert loader._source.settle()
    _ = None
    gone = weakref.ref(loader)
    del loader
    if workers and end == "error":  # PyTorch raises it again in a frame that it holds
        assert not multiprocessing.active_children()
    else:
        assert gone() is None
