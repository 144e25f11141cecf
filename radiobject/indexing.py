"""Ordered unique keys, and what a selection by position or by key means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from radiobject.texts import Lookup, Texts

Positions = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Index:
    """Unique keys in an order, with the position of each.

    Parameters
    ----------
    keys : tuple of str
        The keys.
    key_to_idx : mapping of str to int
        Their positions.
    name : str
        Name of what the keys identify.
    """

    keys: tuple[str, ...]
    key_to_idx: Mapping[str, int] = field(repr=False)
    name: str = ""

    @classmethod
    def build(cls, keys: Iterable[str], name: str = "") -> Index:
        """Return the index of `keys`; ValueError if one repeats."""
        listed = tuple(keys)
        positions = {key: i for i, key in enumerate(listed)}
        if len(positions) != len(listed):
            seen: set[str] = set()
            repeated = [key for key in listed if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
            raise ValueError(f"Duplicate keys detected in index {name!r}: {shortened(repeated)}")
        return cls(listed, positions, name)

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: object) -> bool:
        return key in self.key_to_idx

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys)

    def get_index(self, key: str) -> int:
        """Return the position of `key`; KeyError if it is not there."""
        try:
            return self.key_to_idx[key]
        except KeyError:
            raise KeyError(f"Key {key!r} not found in index") from None

    def get_key(self, position: int) -> str:
        """Return the key at `position`, which may not be negative; IndexError outside."""
        if not 0 <= position < len(self.keys):
            raise IndexError(f"Index {position} out of range [0, {len(self.keys)})")
        return self.keys[position]

    def _with(self, keys: Iterable[str]) -> Index:
        return Index.build(keys, self.name)

    def intersection(self, other: Index | AbstractSet[str]) -> Index:
        """Return the keys that `other` has too, in this order."""
        return self._with(key for key in self.keys if key in other)

    def difference(self, other: Index | AbstractSet[str]) -> Index:
        """Return the keys that `other` lacks, in this order."""
        return self._with(key for key in self.keys if key not in other)

    def union(self, other: Index) -> Index:
        """Return these keys, then the other's new ones."""
        return self._with((*self.keys, *(key for key in other if key not in self)))

    def symmetric_difference(self, other: Index) -> Index:
        """Return the keys of exactly one of the two, these first."""
        return self._with(
            (*(k for k in self.keys if k not in other), *(k for k in other if k not in self))
        )

    __and__ = intersection
    __sub__ = difference
    __or__ = union
    __xor__ = symmetric_difference

    def take(self, positions: Sequence[int] | Positions) -> Index:
        """Return the keys at `positions`; IndexError outside, ValueError if one repeats."""
        return self._with([self.get_key(int(position)) for position in positions])

    def mask(self, chosen: Sequence[bool] | npt.NDArray[np.bool_]) -> Index:
        """Return the keys where `chosen` is true; ValueError if its length differs."""
        return self.take(positions_of_mask(np.asarray(chosen), len(self.keys)))

    def is_aligned(self, other: Index) -> bool:
        """Return whether both have the same keys in the same order."""
        return self.keys == other.keys

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Index):
            return NotImplemented
        return self.keys == other.keys and self.name == other.name

    def __hash__(self) -> int:
        return hash((self.keys, self.name))

    def __le__(self, other: Index) -> bool:
        return self.to_set() <= other.to_set()

    def __ge__(self, other: Index) -> bool:
        return self.to_set() >= other.to_set()

    def to_set(self) -> frozenset[str]:
        """Return the keys as a set."""
        return frozenset(self.keys)

    def to_list(self) -> list[str]:
        """Return the keys as a list."""
        return list(self.keys)

    def __repr__(self) -> str:
        name = f"{self.name!r}, " if self.name else ""
        return f"Index({name}{len(self)} keys)"


def align(*indexes: Index) -> Index:
    """Return the keys that all have, in the first's order; an empty index for no arguments."""
    if not indexes:
        return Index.build(())
    first, *others = indexes
    common = first.to_set().intersection(*(other.to_set() for other in others))
    return first.intersection(common)


def positions_of(key: Any, length: int) -> int | Positions:
    """Return what ``iloc[key]`` chooses among `length` items: one position, or several.

    An integer gives one position; a slice, a sequence of integers or a boolean mask gives an
    array, in the order asked and with repeats, as pandas does.

    Raises
    ------
    IndexError
        If a position is outside ``[-length, length)``.
    ValueError
        If a mask has another length.
    TypeError
        For any other key.
    """
    if isinstance(key, bool | np.bool_):
        raise TypeError(f"iloc takes positions, not the boolean {key!r}; use a mask")
    if isinstance(key, int | np.integer):
        return _position(int(key), length)
    if isinstance(key, slice):
        return np.arange(length, dtype=np.intp)[key]
    if isinstance(key, list | tuple | np.ndarray):
        chosen = np.asarray(key)
        if chosen.dtype == bool:
            return positions_of_mask(chosen, length)
        if chosen.ndim == 1 and (chosen.size == 0 or chosen.dtype.kind in "iu"):
            return np.asarray([_position(int(p), length) for p in chosen], dtype=np.intp)
    raise TypeError(
        f"iloc takes an integer, a slice, a list of integers or a boolean mask, got {key!r}"
    )


def positions_of_mask(chosen: np.ndarray, length: int) -> Positions:
    """Return the positions where a boolean mask is true; ValueError if its length differs."""
    if chosen.shape != (length,):
        raise ValueError(
            f"Boolean array length {chosen.shape[0] if chosen.ndim else 0} != index length {length}"
        )
    return np.flatnonzero(chosen)


def positions_of_keys(keys: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> Positions:
    """Return the rows of a table whose keys are among `found`, in the table's order.

    Parameters
    ----------
    keys, found : mapping of str to ndarray of object
        Key columns of the whole table, and of some of its rows.
    """
    wanted = set(zip(*(found[name] for name in keys), strict=True))
    rows = zip(*keys.values(), strict=True)
    return np.flatnonzero(np.fromiter(map(wanted.__contains__, rows), bool))


class Groups:
    """Rows grouped by a label, to be asked for many times.

    Parameters
    ----------
    labels : sequence of str
        Label of each row.
    """

    def __init__(self, labels: Sequence[str] | np.ndarray) -> None:
        known: dict[str, int] = {}
        numbered = (known.setdefault(label, len(known)) for label in labels)
        codes = np.fromiter(numbered, np.intp, len(labels))
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(known) + 1))
        # A table has far fewer rows than 2**31.
        self._order: npt.NDArray[np.int32] = order.astype(np.int32)
        self._bounds: npt.NDArray[np.int32] = bounds.astype(np.int32)
        self._known = Lookup(Texts(list(known)))

    def positions(self, wanted: Sequence[str]) -> Positions:
        """Return all rows of the first label, then all of the next; unknown labels have none."""
        groups = self._known.rows(wanted)
        groups = groups[groups >= 0]
        counts = self._bounds[groups + 1] - self._bounds[groups]
        first = np.repeat(self._bounds[groups] - np.cumsum(counts) + counts, counts).astype(np.intp)
        return self._order[first + np.arange(counts.sum())].astype(np.intp)


def _position(position: int, length: int) -> int:
    if not -length <= position < length:
        raise IndexError(f"Index {position} out of range [{-length}, {length})")
    return position + length if position < 0 else position


def shortened(items: Iterable[object], limit: int = 5, *, quoted: bool = True) -> str:
    """Return the first items as text, and how many more there are."""
    listed = list(items)
    shown = ", ".join(repr(item) if quoted else str(item) for item in listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"
