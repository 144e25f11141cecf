"""Texts of very many rows, and finding rows by them, in a few bytes beside the texts themselves.

A Python string of 14 characters takes 63 bytes and a pointer, and its place in a dictionary a
hundred more: with a million rows of three texts that is what a data set's memory goes into.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from operator import eq
from zlib import crc32

import numpy as np
import numpy.typing as npt


def composed(text: str) -> str:
    """Return a name with each letter in one piece, as tables and keyboards have it (NFC).

    Files that a Mac named have letters and accents apart: such a name looks the same and is not.
    """
    return unicodedata.normalize("NFC", text)


def decomposed(text: str) -> str:
    """Return a name with letters and accents apart, as the files of a Mac may have it (NFD)."""
    return unicodedata.normalize("NFD", text)


_MOST_KNOWN = 4096
"""Texts that are kept as strings: those of the volumes that batches are drawn from now."""


class Texts(Sequence[str]):
    """An immutable sequence of texts in one buffer.

    Parameters
    ----------
    values : sequence of str
    """

    __slots__ = ("_data", "_known", "_starts")

    def __init__(self, values: Sequence[str] | np.ndarray) -> None:
        raw = [_encoded(value) for value in values]
        starts = np.zeros(len(raw) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, raw), np.int64, len(raw)), out=starts[1:])
        self._data = b"".join(raw)
        self._starts = starts.astype(np.uint32) if starts[-1] < 1 << 32 else starts
        self._known: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, row: int) -> str:  # type: ignore[override]
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        return self._data[self._starts[row] : self._starts[row + 1]].decode(
            "utf-8", "surrogatepass"
        )

    def __iter__(self) -> Iterator[str]:
        for first, end in pairwise(self._starts.tolist()):
            yield self._data[first:end].decode("utf-8", "surrogatepass")

    def encoded(self) -> Iterator[bytes]:
        """Yield the texts as they are held."""
        for first, end in pairwise(self._starts.tolist()):
            yield self._data[first:end]

    def __eq__(self, other: object) -> bool:
        """Return whether `other` is a sequence of the same texts, as a list of them is."""
        if isinstance(other, Texts | list | tuple):
            return len(self) == len(other) and all(map(eq, self, other))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def to_array(self) -> np.ndarray:
        """Return the texts as an array of objects, made anew."""
        array = np.empty(len(self), dtype=object)
        array[:] = list(self)
        return array

    def take(self, rows: npt.NDArray[np.intp]) -> np.ndarray:
        """Return the texts of some rows as an array of objects."""
        if len(rows) == len(self) and np.array_equal(rows, np.arange(len(self))):
            return self.to_array()
        array = np.empty(len(rows), dtype=object)
        array[:] = [self[row] for row in rows.tolist()]
        return array

    def at(self, rows: npt.NDArray[np.integer]) -> list[str]:
        """Return the texts of some rows that are there: quickly, for each batch of a loader."""
        known, numbers = self._known, rows.tolist()
        try:
            return [*map(known.__getitem__, numbers)]
        except KeyError:
            pass
        data = self._data
        firsts, ends = self._starts[rows].tolist(), self._starts[rows + 1].tolist()
        texts = [
            data[first:end].decode("utf-8", "surrogatepass")
            for first, end in zip(firsts, ends, strict=True)
        ]
        if len(known) + len(texts) > _MOST_KNOWN:
            self._known = known = {}  # another thread goes on with the one it has
        known.update(zip(numbers, texts, strict=True))
        return texts


class Lookup(Mapping[str, int]):
    """The row of each text; of the last one where it is repeated.

    Parameters
    ----------
    texts : Texts
        What is looked for; kept, and nothing else of its size.
    """

    __slots__ = ("_hashes", "_order", "_texts")

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        hashes = _hashes(texts.encoded(), len(texts))
        kind = np.int32 if len(texts) < 1 << 31 else np.int64
        self._order = np.argsort(hashes, kind="stable").astype(kind)
        self._hashes = hashes[self._order]

    def __getitem__(self, text: str) -> int:
        if isinstance(text, str):
            (mark,) = _hashes([_encoded(text)], 1)
            place = int(np.searchsorted(self._hashes, mark, side="right")) - 1
            while place >= 0 and self._hashes[place] == mark:
                row = int(self._order[place])
                if self._texts[row] == text:
                    return row
                place -= 1
        raise KeyError(text)

    def rows(self, texts: Sequence[str] | np.ndarray) -> npt.NDArray[np.intp]:
        """Return the row of each of some texts, -1 for one that is not there."""
        wanted = np.asarray(texts, dtype=object)
        found = np.full(len(wanted), -1, np.intp)
        asked = (_encoded(text) if isinstance(text, str) else b"" for text in wanted)
        marks = _hashes(asked, len(wanted))
        places = np.searchsorted(self._hashes, marks, side="right") - 1
        for number, (text, place) in enumerate(zip(wanted, places.tolist(), strict=True)):
            if place >= 0 and self._hashes[place] == marks[number]:
                row = int(self._order[place])
                found[number] = row if self._texts[row] == text else self.get(text, -1)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


def _encoded(text: str) -> bytes:
    # The name of a file may be no UTF-8.
    return text.encode("utf-8", "surrogatepass")


def _hashes(encoded: Iterable[bytes], count: int) -> npt.NDArray[np.uint32]:
    """Return hashes of texts that are the same in every process."""
    return np.fromiter(map(crc32, encoded), np.uint32, count)
