"""What a NumPy index expression asks of a volume: one box to read, and how to cut it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from radiobject.geometry.box import Box

Cut = tuple[slice | int, ...]


def box_of_index(key: Any, shape: Sequence[int]) -> tuple[Box, Cut]:
    """Return the smallest box that holds ``array[key]``, and the index to apply to that box.

    Parameters
    ----------
    key
        Integers, slices with any step, and one ellipsis, as NumPy's basic indexing has them.
    shape
        Shape of the volume.

    Raises
    ------
    IndexError
        For too many axes or an integer out of range.
    TypeError
        For anything else: masks, lists, arrays, None.
    """
    items = _expanded(key if isinstance(key, tuple) else (key,), len(shape))
    starts: list[int] = []
    stops: list[int] = []
    cut: list[slice | int] = []
    inner: slice | int
    for axis, (item, length) in enumerate(zip(items, shape, strict=True)):
        if isinstance(item, slice):
            start, stop, inner = _slice_span(item, length)
        else:
            start = _checked(item, axis, length)
            stop, inner = start + 1, 0
        starts.append(start)
        stops.append(stop)
        cut.append(inner)
    return Box(tuple(starts), tuple(stops)), tuple(cut)


def _expanded(items: tuple[Any, ...], ndim: int) -> list[slice | int]:
    for item in items:
        plain = item is Ellipsis or isinstance(item, slice | int | np.integer)
        if not plain or isinstance(item, bool):
            raise TypeError(
                f"a volume is indexed by integers, slices and ..., got {type(item).__name__} "
                f"{item!r}; read the part with to_numpy() and index that"
            )
    gaps = sum(item is Ellipsis for item in items)
    given = len(items) - gaps
    if gaps > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if given > ndim:
        raise IndexError(f"too many indices: the volume has {ndim} axes, got {given}")
    fill = [slice(None)] * (ndim - given)
    at = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    return [*items[:at], *fill, *items[at + gaps :]]


def _slice_span(item: slice, length: int) -> tuple[int, int, slice]:
    first, last, step = item.indices(length)
    count = len(range(first, last, step))
    if count == 0:
        return 0, 0, slice(None)
    final = first + (count - 1) * step
    low, high = min(first, final), max(first, final)
    return low, high + 1, slice(None, None, step)


def _checked(position: int, axis: int, length: int) -> int:
    if not -length <= position < length:
        raise IndexError(f"index {position} is out of bounds for axis {axis} with size {length}")
    return int(position) + length if position < 0 else int(position)
