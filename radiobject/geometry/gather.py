"""The boxes of a batch as arrays of numbers, from which a processor or a device gathers them.

A plan says for each box where its volume lies in memory and which part of it is wanted. It is
carried out here by NumPy, and on a device by one kernel (`radiobject.ml.device.kernel`); both
deliver bit by bit what reading the boxes one after the other would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import BoundsError
from radiobject.geometry.box import Box
from radiobject.geometry.padding import PADDING_MODES, Padding, source_positions

BFLOAT16 = "bfloat16"
"""The upper half of a float32, which NumPy has no type for; its bits are held as uint16."""

FLOATING = ("float16", "float32", "float64", BFLOAT16)
"""Types that a gather converts to; other types it delivers only as they are stored."""

AXES = 4
"""Axes of every packed box: those of a volume, after as many of length 1 as are missing."""

_ADDRESS, ROW, _SCALED, _AWAY, FIRST = range(5)
COLUMNS = FIRST + 3 * AXES + 2
"""Numbers of a packed box; see `GatherPlan.packed`. Those along the axes begin at `FIRST`."""

ALIGNMENT = 64
"""Bytes of which the arrays that receive boxes lie a multiple apart."""

_QUIET_NAN = np.uint32(0x7FC00000)
_SIGN = np.uint32(0x80000000)


def can_gather(stored: np.dtype, delivered: str, *, scaled: bool) -> bool:
    """Return whether voxels of one type can be delivered as another by a gather."""
    if stored.kind not in "buif" or not stored.isnative:
        return False
    return delivered in FLOATING or (delivered == stored.name and not scaled)


def held_as(delivered: str) -> np.dtype:
    """Return the NumPy type of an array that receives a delivered type."""
    return np.dtype(np.uint16 if delivered == BFLOAT16 else delivered)


def bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round float32 to bfloat16, to the nearest and halfway to even; the bits as uint16.

    NaN becomes the quiet NaN of its sign, on every processor and device.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = np.where(np.isnan(values), (bits & _SIGN) | _QUIET_NAN, rounded)
    return (rounded >> np.uint32(16)).astype(np.uint16)


@dataclass(frozen=True, eq=False)
class GatherPlan:
    """Boxes of one size and type, each out of a volume that lies in memory.

    Parameters
    ----------
    stored : numpy.dtype
        Type of the volumes.
    delivered : str
        NumPy name of the type wanted, or "bfloat16".
    side : tuple of int, length d
        Sides of every box.
    pad : Padding, optional
        What lies outside a volume; without it every box lies inside.
    row : ndarray of int64, shape (n,)
        Place of each box in the array that receives them; in several arrays of equal shape the
        places of one follow those of the one before.
    memory : ndarray of int64, shape (n,)
        Number of the memory that the volume lies in.
    base : ndarray of int64, shape (n,)
        Byte of that memory at which the volume's first voxel lies.
    stride : ndarray of int64, shape (n, d)
        Voxels from one index of an axis to the next; negative where a volume is seen backwards,
        and `base` is that of its last voxel.
    shape : ndarray of int64, shape (n, d)
        The volume's.
    start : ndarray of int64, shape (n, d)
        First voxel of the box; negative where it is padded.
    slope, intercept : ndarray of float64, shape (n,)
        Linear map of the stored values, as `Rescale` defines it.
    scaled : ndarray of bool, shape (n,)
        Where that map is to be applied.
    table : ndarray of int64, shape (n, COLUMNS), optional
        All of this as `packed` returns it, but for the addresses, which are filled in.
    """

    stored: np.dtype
    delivered: str
    side: tuple[int, ...]
    pad: Padding | None
    row: NDArray[np.int64]
    memory: NDArray[np.int64]
    base: NDArray[np.int64]
    stride: NDArray[np.int64]
    shape: NDArray[np.int64]
    start: NDArray[np.int64]
    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]
    scaled: NDArray[np.bool_]
    table: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.row)

    @property
    def mode(self) -> str:
        """How boxes are padded: a mode of ``PADDING_MODES``."""
        return "constant" if self.pad is None else self.pad.mode

    @property
    def fill(self) -> NDArray:
        """The delivered value outside a volume, in mode "constant": an array of one element."""
        return fill_value(0.0 if self.pad is None else self.pad.value, self.delivered)

    @cached_property
    def is_inside(self) -> bool:
        """Whether no box leaves its volume."""
        return not self._beyond().any()

    @property
    def step(self) -> int:
        """1 where each row of every box is a row of memory, else 0."""
        return int((self.stride[:, -1] == 1).all())

    def _beyond(self) -> NDArray[np.bool_]:
        beyond: NDArray[np.bool_] = (self.start < 0) | (
            self.start + np.array(self.side) > self.shape
        )
        return beyond

    def check(self) -> None:
        """Refuse boxes that leave their volume where nothing says how to pad, or have no source.

        Raises
        ------
        BoundsError
        """
        if self.pad is None and not self.is_inside:
            self._refuse_beyond()
        if len(self) and (self.shape < 1).any():
            raise BoundsError("a volume without voxels has nothing to gather")

    def _refuse_beyond(self) -> None:
        row = int(np.flatnonzero(self._beyond().any(axis=1))[0])
        raise BoundsError(
            f"box of side {self.side} at {self.start[row].tolist()} leaves a volume of shape "
            f"{self.shape[row].tolist()}; pass pad=True or a smaller patch_size"
        )

    def some(self, chosen: NDArray[np.int64], row: NDArray[np.int64]) -> GatherPlan:
        """Return the plan of some boxes, which go to other rows."""
        return replace(
            self,
            row=row,
            memory=self.memory[chosen],
            base=self.base[chosen],
            stride=self.stride[chosen],
            shape=self.shape[chosen],
            start=self.start[chosen],
            slope=self.slope[chosen],
            intercept=self.intercept[chosen],
            scaled=self.scaled[chosen],
            table=None,
        )

    def packed(
        self, addresses: Sequence[int], outs: Sequence[int] = (0,), rows: int = 0
    ) -> NDArray[np.int64]:
        """Return the plan as one array of numbers, for one transfer to a device.

        Parameters
        ----------
        addresses : sequence of int
            Where each memory begins.
        outs : sequence of int
            Where each array begins that receives boxes, multiples of `ALIGNMENT` apart.
        rows : int
            Rows of each of them, where there are several.

        Returns
        -------
        ndarray of int64, shape (n, COLUMNS)
            Per box: address of the first voxel, row, whether to rescale, how far its array lies
            from the first one in units of `ALIGNMENT` bytes; then start, shape and stride along
            `AXES` axes; then slope and intercept, the bits of float64.
        """
        table = self.table
        if table is None:
            table = packed_volumes(self.shape, self.stride, self.slope, self.intercept, self.scaled)
            table[:, ROW] = self.row
            parts_of(table, len(self.side)).start[...] = self.start
        table[:, _ADDRESS] = np.asarray(addresses, np.int64)[self.memory] + self.base
        if len(outs) > 1:
            number, table[:, ROW] = np.divmod(self.row, rows)
            away, odd = np.divmod(np.asarray(outs, np.int64) - outs[0], ALIGNMENT)
            if odd.any():
                raise ValueError(f"arrays lie a multiple of {ALIGNMENT} bytes apart, got {outs}")
            table[:, _AWAY] = away[number]
        return table

    @property
    def packed_side(self) -> tuple[int, ...]:
        """The sides along `AXES` axes."""
        return (1,) * (AXES - len(self.side)) + self.side

    @property
    def mode_number(self) -> int:
        """Number of the padding mode in ``PADDING_MODES``."""
        return PADDING_MODES.index(self.mode)


class PackedParts(NamedTuple):
    """Views of the columns of packed boxes that have as many axes as the volumes."""

    start: NDArray[np.int64]
    shape: NDArray[np.int64]
    stride: NDArray[np.int64]
    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]


def parts_of(table: NDArray[np.int64], axes: int) -> PackedParts:
    """Return what packed boxes of volumes with so many axes are made of."""
    first = FIRST + AXES - axes
    start, shape, stride = (table[:, a : a + axes] for a in (first, first + AXES, first + 2 * AXES))
    return PackedParts(
        start, shape, stride, table[:, -2].view(np.float64), table[:, -1].view(np.float64)
    )


def packed_volumes(
    shape: NDArray[np.int64],
    stride: NDArray[np.int64],
    slope: NDArray[np.float64],
    intercept: NDArray[np.float64],
    scaled: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Return what the packed boxes of volumes have in common: no address, row and start yet.

    Parameters are those of `GatherPlan`, for volumes instead of boxes.
    """
    table = np.zeros((len(shape), COLUMNS), np.int64)
    table[:, FIRST + AXES : FIRST + 2 * AXES] = 1
    parts = parts_of(table, shape.shape[1])
    parts.shape[...], parts.stride[...] = shape, stride
    parts.slope[...], parts.intercept[...] = slope, intercept
    table[:, _SCALED] = scaled
    return table


def fill_value(value: float, delivered: str) -> NDArray:
    """Return a padding value as one element of the delivered type (bits, for bfloat16)."""
    if delivered == BFLOAT16:
        return bfloat16_bits(np.array([value], np.float32))
    filled = np.empty(1, delivered)
    filled[...] = value
    return filled


def gather(plan: GatherPlan, memories: Sequence[NDArray[np.uint8]], out: NDArray) -> None:
    """Carry out a plan.

    Parameters
    ----------
    memories : sequence of ndarray of uint8
        What the plan's `memory` numbers.
    out : ndarray, shape (rows, *side), of type ``held_as(plan.delivered)``
        Receives each box at its row; other rows are left alone.

    Raises
    ------
    BoundsError
        If a box leaves its volume and no padding is given.
    """
    plan.check()
    strides = plan.stride * plan.stored.itemsize
    for number in range(len(plan)):
        volume: NDArray = np.ndarray(
            tuple(plan.shape[number].tolist()),
            plan.stored,
            memories[plan.memory[number]],
            int(plan.base[number]),
            tuple(strides[number].tolist()),
        )
        scale = None
        if plan.scaled[number]:
            scale = (float(plan.slope[number]), float(plan.intercept[number]))
        _gather_box(plan, volume, plan.start[number].tolist(), scale, out[plan.row[number]])


def _gather_box(
    plan: GatherPlan,
    volume: NDArray,
    start: list[int],
    scale: tuple[float, float] | None,
    out: NDArray,
) -> None:
    box = Box.at(start, plan.side)
    if plan.mode != "constant":
        positions = [
            source_positions(a, b, n, plan.mode)
            for a, b, n in zip(box.start, box.stop, volume.shape, strict=True)
        ]
        out[...] = converted(volume[np.ix_(*positions)], plan.delivered, scale)
        return
    inside = box.clip(volume.shape)
    if inside != box:
        out[...] = plan.fill[0]
    if inside.size:
        target = inside.shift([-a for a in box.start])
        out[target.slices] = converted(volume[inside.slices], plan.delivered, scale)


def converted(stored: NDArray, delivered: str, scale: tuple[float, float] | None) -> NDArray:
    """Return stored values as the delivered type, with the rounding that reading has.

    The product with the slope is rounded to the working type (float32 for stored types of up to 16
    bits and float32, else float64), then to the delivered type; the intercept is added in that.
    bfloat16 is float32 rounded once more.
    """
    through = np.dtype(np.float32 if delivered == BFLOAT16 else delivered)
    with np.errstate(over="ignore", invalid="ignore"):
        if scale is None:
            values = stored.astype(through)
        else:
            working = np.result_type(stored.dtype, np.float32)
            product = stored.astype(working) * working.type(scale[0])
            values = product.astype(through) + through.type(scale[1])
    return bfloat16_bits(values) if delivered == BFLOAT16 else values
