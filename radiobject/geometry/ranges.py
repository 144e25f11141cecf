"""Byte ranges: merging the ones that are cheaper to read together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes ``start <= position < stop`` of a file, and the requests that they serve.

    Attributes
    ----------
    members : tuple of int
        Positions, in the sequence given to `coalesce`, of the requests inside this range.
    """

    start: int
    stop: int
    members: tuple[int, ...]


def coalesce(
    starts: Sequence[int], stops: Sequence[int], *, gap: int, limit: int
) -> list[ByteRange]:
    """Merge byte ranges that lie close together.

    Parameters
    ----------
    starts, stops : sequence of int
        Half-open ranges in any order; they may overlap.
    gap : int
        Most unwanted bytes to read between two ranges rather than ask twice.
    limit : int
        Most bytes of a merged range; a single longer request is kept whole.

    Returns
    -------
    list of ByteRange
        In the order of their positions; every request is a member of exactly one.
    """
    merged: list[ByteRange] = []
    order = sorted(range(len(starts)), key=lambda i: (starts[i], stops[i]))
    first = last = 0
    members: list[int] = []
    for i in order:
        start, stop = starts[i], stops[i]
        joins = members and start - last <= gap and max(last, stop) - first <= limit
        if joins:
            last = max(last, stop)
            members.append(i)
            continue
        if members:
            merged.append(ByteRange(first, last, tuple(members)))
        first, last, members = start, stop, [i]
    if members:
        merged.append(ByteRange(first, last, tuple(members)))
    return merged
