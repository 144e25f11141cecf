"""A box of voxels: what a read asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from radiobject.exceptions import BoundsError


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box ``start <= index < stop`` in voxel indices, one pair per axis.

    Parameters
    ----------
    start, stop : tuple of int
        First voxel and one past the last, per axis. ``start`` may be negative and ``stop`` may
        lie beyond the volume when the reader is told how to pad.

    Raises
    ------
    BoundsError
        If the two have different lengths or a side is negative.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.start) != len(self.stop):
            raise BoundsError(
                f"box start {self.start} and stop {self.stop} have different numbers of axes"
            )
        if any(b < a for a, b in zip(self.start, self.stop, strict=True)):
            raise BoundsError(f"box {self} ends before it starts")

    @classmethod
    def at(cls, start: Sequence[int], shape: Sequence[int]) -> Box:
        """Return the box of `shape` whose first voxel is `start`."""
        first = tuple(int(a) for a in start)
        return cls(first, tuple(a + int(n) for a, n in zip(first, shape, strict=True)))

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Box:
        """Return the box that is a whole volume of `shape`."""
        return cls((0,) * len(shape), tuple(int(n) for n in shape))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.start)

    @property
    def shape(self) -> tuple[int, ...]:
        """Side lengths in voxels."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Number of voxels."""
        size = 1
        for side in self.shape:
            size *= side
        return size

    @property
    def slices(self) -> tuple[slice, ...]:
        """The slices that cut this box out of an array."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def within(self, shape: Sequence[int]) -> bool:
        """Return whether the whole box lies inside a volume of `shape`."""
        return len(shape) == self.ndim and all(
            a >= 0 and b <= n for a, b, n in zip(self.start, self.stop, shape, strict=True)
        )

    def clip(self, shape: Sequence[int]) -> Box:
        """Return the part of the box inside a volume of `shape` (sides may become 0)."""
        start = tuple(min(max(a, 0), n) for a, n in zip(self.start, shape, strict=True))
        stop = tuple(max(min(b, n), a) for a, b, n in zip(start, self.stop, shape, strict=True))
        return Box(start, stop)

    def intersection(self, other: Box) -> Box:
        """Return the voxels in both boxes (sides may be 0)."""
        start = tuple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = tuple(
            max(min(a, b), lo) for a, b, lo in zip(self.stop, other.stop, start, strict=True)
        )
        return Box(start, stop)

    def shift(self, offset: Sequence[int]) -> Box:
        """Return the box moved by `offset` voxels per axis."""
        return Box(
            tuple(a + d for a, d in zip(self.start, offset, strict=True)),
            tuple(b + d for b, d in zip(self.stop, offset, strict=True)),
        )

    def __str__(self) -> str:
        return "[" + ", ".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True)) + "]"
