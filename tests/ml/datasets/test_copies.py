"""The copies of a batch in one call, against those of NumPy one by one."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from radiobject.ml.datasets import copies
from radiobject.ml.datasets.copies import copy_together
from radiobject.storage.read.convert import copy_each

STORED = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]
DELIVERED = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]


def together_in_one_call(outs, sources):
    """Copy; return how many calls of PyTorch that took."""
    calls = []
    real = torch._foreach_copy_
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "_foreach_copy_", lambda *a: (calls.append(a), real(*a)))
        copy_together(outs, sources)
    return len(calls)


@settings(max_examples=150, deadline=None)
@given(
    stored=st.sampled_from(STORED),
    delivered=st.sampled_from(DELIVERED),
    side=st.integers(1, 40),
    boxes=st.integers(1, 5),
    axes=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
@example(stored="f2", delivered="f4", side=2, boxes=2, axes=1, seed=24)  # NaNs
def test_one_call_delivers_the_bits_of_one_by_one(stored, delivered, side, boxes, axes, seed):
    rng = np.random.default_rng(seed)
    side = side if axes < 3 else 1 + side // 4
    shape = (side,) * axes
    # Any bits: NaNs with payloads, subnormal numbers, the largest integers.
    nbytes = np.prod([n + 3 for n in shape]) * np.dtype(stored).itemsize
    volume = np.frombuffer(bytearray(rng.bytes(nbytes)), np.uint8)
    volume = (volume & 1).view(stored) if stored == "?" else volume.view(stored)
    volume = volume.reshape([n + 3 for n in shape])
    starts = rng.integers(0, 4, (boxes, axes)).tolist()
    sources = [volume[tuple(slice(a, a + side) for a in start)] for start in starts]
    made = [np.zeros((boxes, *shape), delivered) for _ in range(2)]
    with np.errstate(all="ignore"):
        copy_together(list(made[0]), sources)
        copy_each(list(made[1]), sources)
    assert made[0].tobytes() == made[1].tobytes()


@pytest.mark.parametrize(
    ("stored", "delivered"),
    [("i2", "i2"), ("u2", "u2"), ("u1", "f4"), ("i2", "f4"), ("f4", "f4"), ("i4", "f8")],
)
def test_usual_types_take_one_call(stored, delivered):
    sources = [np.arange(512).reshape(8, 8, 8).astype(stored)[1:, 1:, 1:] for _ in range(4)]
    made = np.zeros((4, 7, 7, 7), delivered)
    assert together_in_one_call(list(made), sources) == 1
    assert np.array_equal(made, np.stack(sources))


def test_axes_that_run_backwards_are_left_to_numpy():
    volume = np.arange(512, dtype=np.int16).reshape(8, 8, 8)
    made = np.zeros((2, 8, 8, 8), np.int16)
    copy_together(list(made), [volume[::-1], volume.T])
    assert np.array_equal(made, np.stack([volume[::-1], volume.T]))


def test_the_threads_of_a_model_are_left_alone():
    volume = np.zeros((40, 40, 40), np.int16)
    before = torch.get_num_threads()
    found = {}

    def elsewhere():
        copy_together(list(np.zeros((2, 40, 40, 40), np.float32)), [volume, volume])
        found["there"] = torch.get_num_threads()

    def later():
        found["later"] = torch.get_num_threads()

    with pytest.raises(RuntimeError):
        copy_together(list(np.zeros((2, 40, 40, 40), np.float32)), [volume, volume[:7]])
    copy_together(list(np.zeros((2, 40, 40, 40), np.float32)), [volume, volume])
    for target in (elsewhere, later):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    assert torch.get_num_threads() == before
    assert found == {"there": before, "later": before}


def test_without_openmp_numpy_copies(monkeypatch):
    monkeypatch.setattr(copies, "_openmp_threads", lambda: None)
    sources = [np.arange(8, dtype=np.int16)] * 2
    made = np.zeros((2, 8), np.float32)
    assert together_in_one_call(list(made), sources) == 0
    assert np.array_equal(made, np.stack(sources))
