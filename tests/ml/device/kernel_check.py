"""The kernel against its NumPy reference, interpreted on a processor.

``make test-kernel`` runs this with Triton beside it: once with ``TRITON_INTERPRET=1``, and once to
compile the kernel as for a device, where there is one to run it there.
"""

import os
from dataclasses import replace

import numpy as np
import torch

from radiobject.geometry.gather import FLOATING, GatherPlan, gather, held_as
from radiobject.geometry.padding import PADDING_MODES, Padding

STORED = (
    "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64".split()  # noqa: SIM905
)
SIDES = {3: [(4, 5, 6), (1, 9, 3), (8, 1, 33)], 4: [(3, 2, 5, 4)]}
SHAPES = {3: (7, 9, 12), 4: (4, 3, 6, 4)}
SCALES = [None, (2.0, -1024.0), (0.0123, 0.7)]


def extreme(shape, dtype, rng):
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        ends = np.iinfo(dtype)
        data = rng.integers(ends.min, ends.max, shape, dtype, endpoint=True)
        data.flat[:3] = ends.min, ends.max, 1
        return data
    with np.errstate(over="ignore"):
        data = (rng.normal(0, 1, shape) * 10.0 ** rng.integers(-8, 6, shape)).astype(dtype)
        data.flat[:8] = np.array(
            [np.inf, -np.inf, 0.0, -0.0, np.nan, -np.nan, 65504.0, 1e-7], dtype
        )
    return data


def random_plan(name, delivered, ndim, side, mode, scale, rng):
    """A plan of several boxes out of two volumes, and the memory that they lie in."""
    shape = SHAPES[ndim]
    volumes = [extreme(shape, name, rng) for _ in range(2)]
    memory = np.concatenate([np.ascontiguousarray(v).view(np.uint8).ravel() for v in volumes])
    n = 5
    room = np.array(shape) - side
    low, high = (np.zeros(ndim, int), room) if mode is None else (-np.array(shape) - 3, room + 9)
    stride = np.cumprod([1, *shape[:0:-1]])[::-1]
    which, back = rng.integers(0, 2, n), rng.integers(0, 2, (n, ndim)) * (rng.random() < 0.5)
    first = (back * (np.array(shape) - 1) * stride).sum(axis=1)  # of axes that run backwards
    slope, intercept = scale or (1.0, 0.0)
    plan = GatherPlan(
        np.dtype(name),
        delivered,
        side,
        None if mode is None else Padding(mode, -100.0 if np.dtype(name).kind in "if" else 1.0),
        rng.permutation(n + 2)[:n],
        np.zeros(n, np.int64),
        which * volumes[0].nbytes + first * np.dtype(name).itemsize,
        stride * (1 - 2 * back),
        np.tile(shape, (n, 1)),
        np.stack([rng.integers(a, b + 1, n) for a, b in zip(low, high, strict=True)], axis=1),
        np.full(n, slope),
        np.full(n, intercept),
        np.array([scale is not None] * (n - 1) + [False]),
    )
    return plan, memory


def same(plan, memory, device):
    from radiobject.ml.device.kernel import launch  # Triton is not there in the test-suite

    want = np.full((8, *plan.side), 3, held_as(plan.delivered))
    gather(plan, [memory], want)
    source = torch.from_numpy(memory).to(device)
    before, bits = np.full(want.shape, 3, want.dtype), f"i{want.itemsize}"
    fill = torch.from_numpy(plan.fill.view(bits)).to(device)
    right = True
    for rows in (8, 4, 2):  # in one array, two or four
        outs = [
            torch.from_numpy(part.view(bits)).to(device) for part in np.split(before, 8 // rows)
        ]
        outs = [out.clone() for out in outs]
        packed = plan.packed([source.data_ptr()], [out.data_ptr() for out in outs], rows)
        launch(plan, torch.from_numpy(packed).to(device), fill, outs[0])
        right &= np.array_equal(torch.cat(outs).cpu().numpy(), want.view(bits))
    return right


def cases():
    for name in STORED:
        for delivered in dict.fromkeys([*FLOATING, name]):
            for scale in SCALES if delivered in FLOATING else [None]:
                for ndim, sides in SIDES.items():
                    yield name, delivered, scale, ndim, sides


def check(device="cpu"):
    """Return how many plans were carried out; raise for the first that differs."""
    rng, modes, done = np.random.default_rng(7), [*PADDING_MODES, None], 0
    for number, (name, delivered, scale, ndim, sides) in enumerate(cases()):
        for k in range(2):
            mode = modes[(number + 3 * k) % len(modes)]
            side = sides[(number + k) % len(sides)]
            if mode is None and (np.array(side) > SHAPES[ndim]).any():
                side = tuple(min(a, b) for a, b in zip(side, SHAPES[ndim], strict=True))
            plan, memory = random_plan(name, delivered, ndim, side, mode, scale, rng)
            plan.check()
            assert same(plan, memory, device), (name, delivered, scale, side, mode)
            done += 1
    return done


def compiled(plan, *, fuse=False):
    """Return the assembly of a plan's kernel for an H100, which needs no device to be made."""
    from triton import compile as build
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from radiobject.ml.device import kernel

    bits, out = kernel._BITS[held_as(plan.delivered).itemsize]
    constants = kernel._types(plan) | {
        "MODE": plan.mode_number, "STEP": plan.step, "OUT": out, "ROWS": 32, "LONG": 64,
    }  # fmt: skip
    pointer = "*u8" if bits is torch.uint8 else f"*i{8 * bits.itemsize}"
    names = kernel._kernel.arg_names
    types = dict.fromkeys(names, "i32") | dict.fromkeys(constants, "constexpr")
    types |= {"packed": "*i64", "fill": pointer, "out": pointer}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel._kernel, signature=types, constexprs=values)
    made = build(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": fuse})
    return made.asm["ptx"]


def check_compilation():
    """Compile every pair of types for a device; no product may be fused with its sum."""
    rng, done = np.random.default_rng(7), 0
    for name, delivered, scale, ndim, sides in cases():
        if ndim == 3 and scale != SCALES[1]:
            mode = PADDING_MODES[done % len(PADDING_MODES)]
            plan, _ = random_plan(name, delivered, ndim, sides[0], mode, scale, rng)
            text = compiled(plan)
            assert "fma" not in text, (name, delivered, scale)
            assert "ftz" not in text, (name, delivered, scale)
            done += 1
    plan, _ = random_plan("int16", "float32", 3, (4, 5, 6), "edge", SCALES[2], rng)
    assert "fma" in compiled(plan, fuse=True)  # the check above can fail
    return done


def check_grid(boxes=70_000):
    """See that a device can start the programs of many boxes, and of large ones."""
    from radiobject.ml.device import kernel

    class Recorded:
        def __getitem__(self, grid):
            assert grid[0] < 2**31
            assert all(n < 2**16 for n in grid[1:]), f"{grid} is more than a device starts"
            return lambda *given, **more: None

    plan, _ = random_plan("int16", "float32", 3, (4, 5, 6), None, None, np.random.default_rng(7))
    names = "row memory base stride shape start slope intercept scaled".split()  # noqa: SIM905
    some = {name: np.repeat(getattr(plan, name)[:1], boxes, axis=0) for name in names}
    small = torch.zeros(1, dtype=torch.int32)
    real, kernel._kernel = kernel._kernel, Recorded()
    kernel.launch(replace(plan, **some), small, small, small)
    kernel.launch(replace(plan, side=(1024, 1024, 1024)), small, small, small)
    kernel._kernel = real


if __name__ == "__main__":
    check_grid()
    if os.environ.get("TRITON_INTERPRET") == "1":
        print(f"the kernel equals its reference in {check()} plans, interpreted")
    else:
        print(f"the kernel compiles for {check_compilation()} pairs of types, nothing fused")
        if torch.cuda.is_available():
            print(f"and equals it in {check('cuda')} plans on {torch.cuda.get_device_name()}")
        else:
            print("SKIPPED on a device: there is no CUDA device here")
