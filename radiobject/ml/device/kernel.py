"""The gather as one kernel, for a CUDA device. Importing this module needs Triton.

It carries out a `radiobject.geometry.gather.GatherPlan`, whose NumPy form is its reference: equal
bit by bit, as ``make test-kernel`` proves on a processor. Two things are therefore spelled out
that a compiler would rather choose: products are rounded before a sum (no fused multiply-add), and
a NaN keeps its sign and has no payload.

Reading is what bounds it, over the bus or from device memory, so a program takes whole rows along
the last axis, which lie side by side, and works out the other indices once a row.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

from radiobject.geometry.gather import ALIGNMENT, AXES, BFLOAT16, COLUMNS, FIRST, GatherPlan

_LONGEST = 256
"""Voxels of a row that a program takes at once, at most."""
_VOXELS = 2048
"""Voxels of a program."""

_TYPES = {
    "bool": tl.uint8,
    "int8": tl.int8,
    "uint8": tl.uint8,
    "int16": tl.int16,
    "uint16": tl.uint16,
    "int32": tl.int32,
    "uint32": tl.uint32,
    "int64": tl.int64,
    "uint64": tl.uint64,
    "float16": tl.float16,
    "float32": tl.float32,
    "float64": tl.float64,
}
_BITS = {1: (torch.uint8, tl.uint8), 2: (torch.int16, tl.int16), 4: (torch.int32, tl.int32),
         8: (torch.int64, tl.int64)}  # fmt: skip
_WORKING = {"float32": tl.float32, "float64": tl.float64}
_QUIET_NAN = {2: 0x7E00, 4: 0x7FC00000, 8: 0x7FF8000000000000}

_FIRST = tl.constexpr(FIRST)
_AXES = tl.constexpr(AXES)
_COLUMNS = tl.constexpr(COLUMNS)
_CONSTANT = tl.constexpr(0)
_EDGE = tl.constexpr(1)
_REFLECT = tl.constexpr(2)
_SYMMETRIC = tl.constexpr(3)


@triton.jit
def _modulo(i, n):
    rest = i % n
    return tl.where(rest < 0, rest + n, rest)


@triton.jit
def _along(i, numbers, axis: tl.constexpr, MODE: tl.constexpr, STEP: tl.constexpr):
    """Return where an index along one axis of a box lies in its volume, and whether it does.

    What lies outside in mode "constant" is not read, and left as it is: a row is known to be a row.
    """
    p = i + tl.load(numbers + _FIRST + axis)
    n = tl.load(numbers + _FIRST + _AXES + axis)
    inside = (p >= 0) & (p < n)
    if MODE == _EDGE:
        p = tl.minimum(tl.maximum(p, 0), n - 1)
    elif MODE == _REFLECT:
        period = tl.maximum(2 * (n - 1), 1)
        p = _modulo(p, period)
        p = tl.where(p < n, p, period - p)
    elif MODE == _SYMMETRIC:
        p = _modulo(p, 2 * n)
        p = tl.where(p < n, p, 2 * n - 1 - p)
    elif MODE != _CONSTANT:
        p = _modulo(p, n)
    if STEP != 1:
        p = p * tl.load(numbers + _FIRST + 2 * _AXES + axis)
    return p, inside


@triton.jit
def _to_floating(v, THROUGH: tl.constexpr, HALF: tl.constexpr):
    """Convert as NumPy does: to float16 from integers by way of float32."""
    if HALF and not v.dtype.is_floating():
        v = v.to(tl.float32)
    return v.to(THROUGH)


@triton.jit
def _rescaled(v, numbers, THROUGH: tl.constexpr, WORKING: tl.constexpr, HALF: tl.constexpr):
    """Round the product twice, and a sum of halves as NumPy does, through float32."""
    slope = tl.load(numbers + _COLUMNS - 2).to(tl.float64, bitcast=True).to(WORKING)
    intercept = tl.load(numbers + _COLUMNS - 1).to(tl.float64, bitcast=True).to(THROUGH)
    product = (v.to(WORKING) * slope).to(THROUGH)
    if HALF:
        product = product.to(tl.float32)
        intercept = intercept.to(tl.float32)
    return (product + intercept).to(THROUGH)


@triton.jit
def _bfloat16_bits(v):
    bits = v.to(tl.uint32, bitcast=True)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.int16)


# A kernel is made anew for each size that is 1 or a multiple of 16, where that helps: volumes that
# are delivered whole have all kinds of sizes, and only the last axis decides how rows are stored.
@triton.jit(do_not_specialize=["rows", "n1", "n2", "row_blocks", "blocks"])
def _kernel(
    packed,
    fill,
    out,
    size,
    rows,
    n1,
    n2,
    n3,
    row_blocks,
    blocks,
    MODE: tl.constexpr,
    STORED: tl.constexpr,
    STORED_BITS: tl.constexpr,
    SIGN_AT: tl.constexpr,
    FLOATING: tl.constexpr,
    COPY: tl.constexpr,
    THROUGH: tl.constexpr,
    OUT: tl.constexpr,
    OUT_SIGN_AT: tl.constexpr,
    QUIET_NAN: tl.constexpr,
    HALF: tl.constexpr,
    HALVED: tl.constexpr,
    SCALED: tl.constexpr,
    WORKING: tl.constexpr,
    UNIT: tl.constexpr,
    STEP: tl.constexpr,
    ROWS: tl.constexpr,
    LONG: tl.constexpr,
):
    # One axis of programs: of a second there are 65,535 at most.
    numbers = packed + (tl.program_id(0) // blocks).to(tl.int64) * _COLUMNS
    block = tl.program_id(0) % blocks
    row = (block % row_blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    k = (block // row_blocks).to(tl.int64) * LONG + tl.arange(0, LONG)
    at0, in0 = _along(row // n2 // n1, numbers, 0, MODE, 0)
    at1, in1 = _along(row // n2 % n1, numbers, 1, MODE, 0)
    at2, in2 = _along(row % n2, numbers, 2, MODE, 0)
    at3, in3 = _along(k, numbers, 3, MODE, STEP)
    live = (row < rows)[:, None] & (k < n3)[None, :]
    read = live
    if MODE == _CONSTANT:
        read = live & (in0 & in1 & in2)[:, None] & in3[None, :]
    volume = tl.load(numbers).to(tl.pointer_type(STORED))
    v = tl.load(volume + (at0 + at1 + at2)[:, None] + at3[None, :], mask=read, other=0)
    if COPY:
        bits = v
    else:
        y = _to_floating(v, THROUGH, HALF)
        if SCALED:
            scaled = _rescaled(v, numbers, THROUGH, WORKING, HALF)
            y = tl.where(tl.load(numbers + 2) != 0, scaled, y)
        bits = _bfloat16_bits(y) if HALVED else y.to(OUT, bitcast=True)
        if FLOATING:
            sign = (v.to(STORED_BITS, bitcast=True) >> SIGN_AT) & 1
            bits = tl.where(v != v, ((sign.to(OUT) << OUT_SIGN_AT) | QUIET_NAN).to(OUT), bits)
    if MODE == _CONSTANT:
        bits = tl.where(read, bits, tl.load(fill))
    place = tl.load(numbers + 1) * size + tl.load(numbers + 3) * UNIT
    tl.store(out + place + (row * n3)[:, None] + k[None, :], bits, mask=live)


def launch(plan: GatherPlan, packed: torch.Tensor, fill: torch.Tensor, out: torch.Tensor) -> None:
    """Start the gather of a plan on the current stream.

    Parameters
    ----------
    plan : GatherPlan
        What is taken from where; checked to lie within its memories.
    packed : tensor of int64, shape (n, COLUMNS), on the device
        The plan with the addresses that its memories have on the device.
    fill : tensor of one element, on the device
        What lies outside a volume, as ``plan.fill``.
    out : tensor, shape (rows, *plan.side), on the device, contiguous
        Where the boxes go; every voxel of their rows is written. Of several such tensors, whose
        distances are in `packed`, the first.
    """
    if not len(plan):
        return
    _, n1, n2, n3 = plan.packed_side
    rows, size = math.prod(plan.packed_side[:3]), math.prod(plan.packed_side)
    long = min(triton.next_power_of_2(n3), _LONGEST)
    together = max(_VOXELS // long, 1)
    row_blocks = triton.cdiv(rows, together)
    bits, out_type = _BITS[out.element_size()]
    blocks = row_blocks * triton.cdiv(n3, long)
    _kernel[(blocks * len(plan),)](
        packed,
        fill.view(bits),
        out.view(bits),
        size,
        rows,
        n1,
        n2,
        n3,
        row_blocks,
        blocks,
        MODE=_CONSTANT.value if plan.is_inside else plan.mode_number,
        STEP=plan.step,
        OUT=out_type,
        ROWS=together,
        LONG=long,
        enable_fp_fusion=False,
        **_types(plan),
    )


def _types(plan: GatherPlan) -> dict[str, Any]:
    stored, halved = plan.stored, plan.delivered == BFLOAT16
    copy = plan.delivered == stored.name and not plan.scaled.any()
    out_size = 2 if halved else 1 if copy and stored.itemsize == 1 else None
    out_size = out_size or int(plan.fill.dtype.itemsize)
    stored_bits = _BITS[stored.itemsize][1]
    small = stored.itemsize <= 2 or stored.name == "float32"
    through = "float32" if halved else plan.delivered
    return {
        "STORED": stored_bits if copy else _TYPES[stored.name],
        "STORED_BITS": stored_bits,
        "SIGN_AT": 8 * stored.itemsize - 1,
        "FLOATING": stored.kind == "f",
        "COPY": copy,
        "THROUGH": tl.float32 if copy else _TYPES[through],
        "OUT_SIGN_AT": 8 * out_size - 1,
        "QUIET_NAN": 0x7FC0 if halved else _QUIET_NAN.get(out_size, 0),
        "HALF": through == "float16",
        "HALVED": halved,
        "SCALED": bool(plan.scaled.any()),
        "WORKING": _WORKING["float32" if small else "float64"],
        "UNIT": ALIGNMENT // out_size,
    }
