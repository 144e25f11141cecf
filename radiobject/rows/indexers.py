"""Selection by position and by key, the same for every noun that has rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from radiobject.indexing import Positions, positions_of, shortened

One = TypeVar("One")
Many = TypeVar("Many")


class ILoc(Generic[One, Many]):
    """``noun.iloc[...]``: integers, slices, lists of integers and boolean masks.

    Parameters
    ----------
    length
        Number of rows that positions count.
    one, many
        What a single position, and what several, give.
    """

    def __init__(
        self, length: int, one: Callable[[int], One], many: Callable[[Positions], Many]
    ) -> None:
        self._length = length
        self._one = one
        self._many = many

    def __getitem__(self, key: Any) -> One | Many:
        chosen = positions_of(key, self._length)
        return self._one(chosen) if isinstance(chosen, int) else self._many(chosen)


class Loc(Generic[One, Many]):
    """``noun.loc[...]``: one key or a list of keys, in the order asked and with repeats.

    Parameters
    ----------
    what
        What the keys identify, for error messages.
    position
        Row of each key.
    one, many
        What a single key, and what several, give.
    """

    def __init__(
        self,
        what: str,
        position: Mapping[str, int],
        one: Callable[[int], One],
        many: Callable[[Positions], Many],
    ) -> None:
        self._what = what
        self._position = position
        self._one = one
        self._many = many

    def __getitem__(self, key: Any) -> One | Many:
        if isinstance(key, str):
            return self._one(int(positions_of_ids(self._what, self._position, [key])[0]))
        if isinstance(key, list | tuple | np.ndarray) and all(isinstance(k, str) for k in key):
            return self._many(positions_of_ids(self._what, self._position, key))
        raise TypeError(f"loc takes a {self._what} or a list of them, got {key!r}")


def positions_of_ids(what: str, position: Mapping[str, int], ids: Iterable[str]) -> Positions:
    """Return the row of each id; KeyError, saying `what` they identify, if one is unknown."""
    rows = []
    for one in ids:
        if one not in position:
            raise KeyError(
                f"{what} {one!r} not found among {len(position)}: {shortened(position, 3)}"
            )
        rows.append(position[one])
    return np.asarray(rows, dtype=np.intp)


def sampled(length: int, n: int, seed: int | None) -> Positions:
    """Return `n` positions of `length` without replacement, at most all, in random order."""
    if n < 0:
        raise ValueError(f"cannot sample {n} rows; n must be at least 0")
    generator = np.random.default_rng(seed)
    return generator.choice(length, size=min(n, length), replace=False).astype(np.intp)


def first_positions(length: int, n: int) -> Positions:
    """Return the first `n` positions, as pandas' `head` has them: a negative `n` leaves out."""
    return np.arange(length, dtype=np.intp)[:n]


def last_positions(length: int, n: int) -> Positions:
    """Return the last `n` positions, as pandas' `tail` has them: a negative `n` leaves out."""
    everything = np.arange(length, dtype=np.intp)
    return everything[-n:] if n > 0 else everything[: 0 if n == 0 else None][-n:]


def listed(value: str | Sequence[str]) -> list[str]:
    """Return one key or several as a list."""
    return [value] if isinstance(value, str) else list(value)
