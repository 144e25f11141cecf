"""Tiles of many volumes, read as they are stored into one memory and checked where they lie there.

What is checked is what goes on: a file that is written again meanwhile is found out. Few calls do
much each, so that threads seldom wait for each other in the interpreter.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import RadiObjectError
from radiobject.storage.io.checksum import crc32, crc32_of_places
from radiobject.storage.read.volume_tiles import VolumeTiles
from radiobject.threads import run_on_threads

_STRETCH_BYTES = 4 << 20
"""Memory that a thread fills and checks at once: one checksum is taken of it."""


class StoredTiles:
    """Tiles of volumes, each of them once.

    Parameters
    ----------
    volumes : sequence of VolumeTiles
        Their indexes have checksums.
    numbers : sequence of ndarray of int64
        Of each volume, the tiles, in ascending order; none of them constant.

    Attributes
    ----------
    volume, number, length : ndarray of int64, shape (n,)
        Of each tile, the place of its volume among them, its number there, and its stored bytes.
    checksum : ndarray of uint32, shape (n,)
    """

    def __init__(
        self, volumes: Sequence[VolumeTiles], numbers: Sequence[NDArray[np.int64]]
    ) -> None:
        self.volumes = volumes
        self.volume = np.repeat(np.arange(len(volumes)), [len(own) for own in numbers])
        self.number: NDArray[np.int64] = np.concatenate([*numbers, np.empty(0, np.int64)])
        self.length = np.empty(len(self.number), np.int64)
        self.checksum = np.empty(len(self.number), np.uint32)
        self._edges = np.cumsum([0, *(len(own) for own in numbers)])
        for volume, own, (a, b) in zip(
            volumes, numbers, pairwise(self._edges.tolist()), strict=True
        ):
            offsets = volume.index.offsets
            self.length[a:b] = offsets[own + 1] - offsets[own]
            self.checksum[a:b] = volume.index.checksums[own]  # type: ignore[index]

    def __len__(self) -> int:
        return len(self.number)

    def read_into(
        self, memory: NDArray[np.uint8], begins: NDArray[np.int64], threads: int
    ) -> NDArray[np.bool_]:
        """Read tiles into a memory, each to where it is to begin, and check them there.

        A tile that cannot be fetched, or is not what was written, is an error for who reads it by
        its volume.

        Parameters
        ----------
        memory : ndarray of uint8, C-contiguous
            Zero wherever no tile will lie, from the first one on.
        begins : ndarray of int64, shape (n,)
            In ascending order.
        threads : int
            The most threads, the calling one among them.

        Returns
        -------
        ndarray of bool, shape (n,)
            Which tiles are there, with the checksums that were written.
        """
        right = np.ones(len(self), bool)
        if not len(self):
            return right
        stretch = (begins - begins[0]) // _STRETCH_BYTES
        first = np.flatnonzero(np.diff(stretch, prepend=-1))
        edges = np.append(begins[first], begins[-1] + self.length[-1])
        wanted = crc32_of_places(self.checksum, self.length, begins, first, edges)
        tiles, places = pairwise([*first.tolist(), len(self)]), pairwise(edges.tolist())
        content = memory.data

        def read(piece: tuple[tuple[int, int], tuple[int, int], int]) -> None:
            (a, b), (start, stop), checksum = piece
            right[a:b] = self._read(a, b, content, begins)
            if not right[a:b].all() or crc32(content[start:stop]) != checksum:
                for tile in range(a, b):  # which of them it is
                    begin = int(begins[tile])
                    found = crc32(content[begin : begin + int(self.length[tile])])
                    right[tile] &= found == self.checksum[tile]

        run_on_threads(read, list(zip(tiles, places, wanted.tolist(), strict=True)), threads)
        return right

    def _read(
        self, a: int, b: int, content: memoryview, begins: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Read the tiles from `a` to `b`, volume by volume; return which could be."""
        right = np.ones(b - a, bool)
        cuts = self._edges[np.searchsorted(self._edges, a, "right") :]
        for first, last in pairwise([a, *cuts[cuts < b].tolist(), b]):
            if first == last:
                continue
            volume = self.volumes[int(self.volume[first])]
            numbers = self.number[first:last].tolist()
            try:
                volume.read_into(numbers, content, begins[first:last].tolist())
            except RadiObjectError:
                right[first - a : last - a] = False
        return right
