import gc

import numpy as np
import pytest
import torch

from radiobject.ml.loaders.buffers import PrivateBuffers, layout_bytes, split_views
from radiobject.ml.loaders.ring import SharedRing

LAYOUT = {"a": ((2, 3), np.dtype(np.float32)), "b": ((5,), np.dtype(np.uint8))}


@pytest.mark.parametrize(
    "derive",
    [
        lambda t: t,
        lambda t: t[1:],
        lambda t: t.view(-1)[2:3],
        lambda t: t.numpy(),
        lambda t: t.numpy()[0, 1:],
        lambda t: t.detach().requires_grad_(),
        lambda t: memoryview(t.numpy()),
    ],
)
def test_a_buffer_is_not_reused_while_anything_of_it_lives(derive):
    buffers = PrivateBuffers(1024, keep=4)
    tensors = split_views(buffers.take(1024), LAYOUT)
    place = tensors["a"].data_ptr()
    kept = derive(tensors["a"])
    del tensors
    gc.collect()
    assert split_views(buffers.take(1024), LAYOUT)["a"].data_ptr() != place
    del kept
    gc.collect()
    places = {split_views(buffers.take(1024), LAYOUT)["a"].data_ptr() for _ in range(3)}
    assert place in places


def test_carving():
    memory = torch.zeros(layout_bytes(LAYOUT), dtype=torch.uint8)
    tensors = split_views(memory, LAYOUT)
    tensors["a"].fill_(1.5)
    tensors["b"].fill_(7)
    assert tensors["a"].shape == (2, 3)
    assert tensors["a"].dtype == torch.float32
    assert tensors["b"].data_ptr() % 64 == tensors["a"].data_ptr() % 64
    assert (tensors["a"] == 1.5).all()


def test_more_than_the_capacity_gets_memory_of_its_own():
    assert PrivateBuffers(16, keep=1).take(4096).numel() == 4096


def test_ring_slots():
    ring = SharedRing(100, 3)
    taken = [ring.take() for _ in range(3)]
    assert sorted(taken) == [0, 1, 2]
    assert ring.take() is None
    ring.view(taken[1])[:4] = torch.tensor([1, 2, 3, 4], dtype=torch.uint8)
    lease = ring.lease(taken[1])
    part = lease[1:3]
    assert part.tolist() == [2, 3]
    del lease
    assert ring.free_slots == 0
    del part
    assert ring.free_slots == 1
    assert ring.take() == taken[1]
