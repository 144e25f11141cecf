"""A plan of arrays delivers what reading the boxes one after the other delivers, bit by bit."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radiobject.exceptions import BoundsError
from radiobject.geometry.box import Box
from radiobject.geometry.gather import (
    BFLOAT16,
    COLUMNS,
    FLOATING,
    GatherPlan,
    bfloat16_bits,
    can_gather,
    gather,
    held_as,
)
from radiobject.geometry.padding import PADDING_MODES
from radiobject.geometry.rescale import Rescale
from radiobject.storage.read.reader import Padding, read_into
from radiobject.storage.tables.writer import write_volume

STORED = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float32 float64".split()  # noqa: SIM905
SHAPES = {3: (13, 9, 11), 4: (7, 6, 5, 4)}


def extreme(shape, dtype, seed):
    """Voxels of a type's whole range, its ends and (of floats) the special values among them."""
    rng, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        ends = np.iinfo(dtype)
        data = rng.integers(ends.min, ends.max, shape, dtype, endpoint=True)
        data.flat[:3] = ends.min, ends.max, 1
        return data
    data = rng.normal(0, 1, shape) * 10.0 ** rng.integers(-8, 6, shape)
    data.flat[:7] = np.inf, -np.inf, 0.0, -0.0, np.nan, 65504.0, 1e-7
    return data.astype(dtype)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """One stored volume per type and number of axes, and a memory in which all of them lie."""
    folder, stored = tmp_path_factory.mktemp("types"), {}
    memory, offset = np.zeros(1 << 19, np.uint8), 0
    for name in STORED:
        for ndim, shape in SHAPES.items():
            data = extreme(shape, name, ndim)
            locator = write_volume(str(folder / f"{name}{ndim}"), data)
            offset += -offset % 64
            memory[offset : offset + data.nbytes] = (
                np.ascontiguousarray(data).view(np.uint8).ravel()
            )
            stored[name, ndim] = locator, offset
            offset += data.nbytes
    return stored, memory


def plan_of(locator, base, starts, side, delivered, pad=None, rescale=None):
    n, shape = len(starts), locator.shape
    scale = rescale or Rescale()
    stride = np.cumprod([1, *shape[:0:-1]])[::-1]
    return GatherPlan(
        locator.numpy_dtype,
        delivered,
        tuple(side),
        pad,
        np.arange(n)[::-1].copy(),
        np.zeros(n, np.int64),
        np.full(n, base),
        np.tile(stride, (n, 1)),
        np.tile(shape, (n, 1)),
        np.array(starts, np.int64),
        np.full(n, scale.slope),
        np.full(n, scale.intercept),
        np.full(n, rescale is not None),
    )


def read(locator, start, side, delivered, pad, rescale):
    out = np.empty(side, np.float32 if delivered == BFLOAT16 else delivered)
    with np.errstate(all="ignore"):
        read_into(locator, Box.at(start, side), out, pad=pad, rescale=rescale)
    return bfloat16_bits(out) if delivered == BFLOAT16 else out


@given(
    name=st.sampled_from(STORED),
    delivered=st.sampled_from([*FLOATING, "stored"]),
    ndim=st.sampled_from([3, 4]),
    mode=st.sampled_from([*PADDING_MODES, None]),
    scale=st.sampled_from([None, (2.0, -1024.0), (0.0123, 0.7), (-3e4, 1e9)]),
    value=st.sampled_from([0.0, -1000.0, 0.3, 1.0]),
    data=st.data(),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_plan_delivers_what_reading_does(
    volumes, name, delivered, ndim, mode, scale, value, data
):
    stored, memory = volumes
    locator, base = stored[name, ndim]
    shape = locator.shape
    if delivered == "stored":
        delivered, scale = name, None
        value = 1.0 if np.dtype(name).kind in "ub" else value
    side = tuple(data.draw(st.integers(1, n + 4 if mode else n)) for n in shape)
    ends = [(-n - 3, n + 2) if mode else (0, n - s) for n, s in zip(shape, side, strict=True)]
    starts = data.draw(
        st.lists(st.tuples(*[st.integers(*e) for e in ends]), min_size=1, max_size=3)
    )
    pad = None if mode is None else Padding(mode, value)
    rescale = None if scale is None else Rescale(*scale)
    plan = plan_of(locator, base, starts, side, delivered, pad, rescale)
    out = np.empty((len(starts), *side), held_as(delivered))
    gather(plan, [memory], out)
    for row, start in zip(plan.row, starts, strict=True):
        want = read(locator, start, side, delivered, pad, rescale)
        assert out[row].tobytes() == want.tobytes()


def test_rows_that_no_box_names_are_left_alone(volumes):
    stored, memory = volumes
    plan = plan_of(*stored["int16", 3], [(0, 0, 0), (1, 2, 3)], (4, 4, 4), "float32")
    plan.row[:] = 4, 1
    out = np.full((6, 4, 4, 4), -7.0, np.float32)
    gather(plan, [memory], out)
    assert (out[[0, 2, 3, 5]] == -7).all()
    assert not (out[[1, 4]] == -7).all()


def test_a_box_that_leaves_its_volume_is_refused_without_padding(volumes):
    stored, memory = volumes
    plan = plan_of(*stored["int16", 3], [(0, 0, 0), (10, 0, 0)], (4, 4, 4), "float32")
    with pytest.raises(BoundsError, match=r"side \(4, 4, 4\) at \[10, 0, 0\] leaves .*13, 9, 11"):
        gather(plan, [memory], np.empty((2, 4, 4, 4), np.float32))


def test_a_volume_that_does_not_lie_in_the_memory_is_refused(volumes):
    stored, memory = volumes
    locator, _ = stored["int16", 3]
    plan = plan_of(locator, memory.nbytes - 10, [(0, 0, 0)], (4, 4, 4), "float32")
    with pytest.raises((TypeError, ValueError), match="buffer"):
        gather(plan, [memory], np.empty((1, 4, 4, 4), np.float32))


def test_bfloat16_is_that_of_pytorch():
    import torch

    values = extreme((4096,), np.float32, 5)
    values[:5] = 1.00390625, 1.01171875, 3.3895314e38, 3.4e38, 1e-40  # ties, overflow, subnormal
    numbers = values[~np.isnan(values)]
    want = torch.from_numpy(numbers).to(torch.bfloat16).view(torch.int16).numpy()
    assert np.array_equal(bfloat16_bits(numbers).view(np.int16), want)
    assert bfloat16_bits(np.array([np.nan, -np.nan], np.float32)).tolist() == [0x7FC0, 0xFFC0]


@pytest.mark.parametrize(
    ("stored", "delivered", "scaled", "can"),
    [
        ("int16", "float32", True, True),
        ("uint8", "uint8", False, True),
        ("uint8", "uint8", True, False),
        ("int16", "int32", False, False),
        (">i2", "float32", False, False),
        ("float64", BFLOAT16, True, True),
    ],
)
def test_what_can_be_gathered(stored, delivered, scaled, can):
    assert can_gather(np.dtype(stored), delivered, scaled=scaled) is can


def test_a_packed_plan_holds_all_numbers(volumes):
    stored, _ = volumes
    locator, base = stored["int16", 3]
    plan = plan_of(locator, base, [(1, 2, 3)], (4, 5, 6), "float32", None, Rescale(2.0, -3.5))
    (numbers,) = plan.packed([1 << 40])
    assert len(numbers) == COLUMNS
    assert numbers[:3].tolist() == [(1 << 40) + base, 0, 1]
    assert numbers[3] == 0
    assert numbers[4:16].tolist() == [0, 1, 2, 3, 1, 13, 9, 11, 0, 99, 11, 1]
    assert numbers[16:].view(np.float64).tolist() == [2.0, -3.5]
    assert plan.packed_side == (1, 4, 5, 6)
