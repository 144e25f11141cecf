"""The tiles of many boxes that a device decodes together: planned, read and sent as arrays.

A tile is read, checked, sent and decompressed once, however many boxes it is part of. What is done
for each tile by itself is little: it takes the interpreter, which trains meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from radiobject.exceptions import IntegrityError
from radiobject.storage.read.stored_tiles import StoredTiles
from radiobject.storage.read.volume_tiles import VolumeTiles
from radiobject.storage.tiles.decode import Blocks
from radiobject.system.processes import processors

_ALIGNED = 16
_COMPARED = 4
"""Tiles of each kind that are compared with what the processor decodes."""
_READERS = 4
"""Threads that read and check the tiles of a group."""

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Staging = Callable[[int], torch.Tensor]
Bytes = TypeVar("Bytes", int, NDArray[np.int64])


class Decompressor(Protocol):
    """Decompresses blocks that lie on a device.

    Attributes
    ----------
    compressions : frozenset of str
        Those that it can.
    """

    compressions: frozenset[str]

    def __call__(
        self,
        compression: str,
        stored: torch.Tensor,
        begins: torch.Tensor,
        lengths: torch.Tensor,
        sizes: torch.Tensor,
        out: torch.Tensor,
        largest: int,
    ) -> torch.Tensor:
        """Decompress blocks, on the current stream.

        Parameters
        ----------
        compression : str
            One of `compressions`.
        stored : tensor of uint8
            Memory in which the blocks lie.
        begins, lengths : tensor of int64, shape (n,)
            Where in it each block begins, at a multiple of 16 bytes, and its bytes.
        sizes : tensor of int64, shape (n,)
            Bytes of each block when decompressed.
        out : tensor of uint8, shape (n, m)
            Receives each block in a row of its own.
        largest : int
            The largest of the sizes, at most `m`.

        Returns
        -------
        tensor of bool, shape (n,)
            Which blocks were such, and of their sizes.
        """
        ...


@dataclass(frozen=True)
class Parts:
    """Where the boxes of a kind lie in its memory: see `radiobject.ml.device.decoding.Held`."""

    base: NDArray[np.int64]
    origin: NDArray[np.int64]
    shape: NDArray[np.int64]
    stride: NDArray[np.int64]


class Kind:
    """The tiles of boxes of volumes that are stored alike.

    Boxes are added, then their tiles are read, then they are decoded.

    Parameters
    ----------
    blocks : Blocks
        How their tiles are compressed.
    extents : tuple of int
        Voxels of a tile, along the volume's axes.
    dtype : numpy.dtype
        Stored type.

    Attributes
    ----------
    key : tuple
        What makes it a kind.
    sent_bytes : int
        Bytes that went to the device.
    tiles : int
        Tiles to be decompressed, once they are read.
    lost : ndarray of bool, shape (n,)
        Boxes, once their tiles are read, of which a tile could not be, or is not what was written.
    parts : Parts
        Where the boxes will lie, once their tiles are read.
    """

    lost: NDArray[np.bool_]
    parts: Parts

    def __init__(self, blocks: Blocks, extents: tuple[int, ...], dtype: np.dtype) -> None:
        self.blocks, self.extents, self.dtype = blocks, extents, dtype
        self.key = (blocks, extents, dtype)
        self.sent_bytes = self.tiles = 0
        self._volumes: dict[VolumeTiles, int] = {}
        self._which: list[int] = []
        self._first: list[NDArray[np.int64]] = []
        self._last: list[NDArray[np.int64]] = []

    @property
    def boxes(self) -> int:
        """Boxes that were added."""
        return len(self._which)

    @property
    def tile_bytes(self) -> int:
        """Bytes of a tile when decompressed."""
        return math.prod(self.extents) * self.dtype.itemsize

    def add(
        self,
        volumes: Sequence[VolumeTiles],
        first: NDArray[np.int64],
        last: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Ask for the tiles of boxes inside their volumes; return the numbers of the boxes."""
        numbers = self.boxes + np.arange(len(volumes))
        known = self._volumes
        self._which += [known.setdefault(volume, len(known)) for volume in volumes]
        self._first.append(first)
        self._last.append(last)
        return numbers

    def read(self, staging: Staging, head: int) -> int:
        """Read the tiles of all boxes into host memory, each once, and what goes with them.

        Parameters
        ----------
        staging : callable
            Takes a number of bytes, returns host memory that the device may copy from later.
        head : int
            Bytes before the first block of a tile, as far as is known: where they are so many,
            the block lies where it is read.

        Returns
        -------
        int
            How many they were.
        """
        wanted = self._planned()
        slots = _rounded(-head % _ALIGNED + wanted.length)
        ends = np.cumsum(slots)
        begins = ends - slots + -head % _ALIGNED
        after = int(ends[-1]) if len(ends) else 0
        total = after + self._table_bytes(len(wanted))
        self._host = staging(total)[:total]
        memory = self._host.numpy()
        # Nothing but tiles differs from zero, so that one checksum can be taken of many.
        rows = memory[:after].reshape(-1, _ALIGNED)
        rows[(ends - slots) // _ALIGNED] = 0
        rows[ends // _ALIGNED - 1] = 0
        right = wanted.read_into(memory, begins, min(_READERS, processors()))
        blocks, lengths = self._found(wanted, memory[:after], begins, right)
        if len(begins) and right.any():
            one = int(right.argmax())
            head = int(blocks[one, 0] - begins[one])
        self._align(memory.data, blocks, lengths)
        self._drop(wanted, right)
        self._lay(memory, after, blocks[right], lengths[right])
        return head

    def _planned(self) -> StoredTiles:
        """Find the tiles of all boxes, and where in the memory of its boxes each will lie."""
        extents, which = np.array(self.extents), np.array(self._which, np.int64)
        volumes, axes = list(self._volumes), len(self.extents)
        none = np.empty((0, axes), np.int64)
        low = np.concatenate([none, *self._first]) // extents
        high = -(-np.concatenate([none, *self._last]) // extents)
        self._grid = (high - low).max(axis=0, initial=1)
        shapes = np.array([volume.shape for volume in volumes], np.int64).reshape(-1, axes)
        self._place(low * extents, shapes[which])
        # Tiles are numbered through all volumes.
        tilings = [volume.index.tiling for volume in volumes]
        begins = np.cumsum([0, *(tiling.count for tiling in tilings)])
        steps = np.array([tiling.steps for tiling in tilings], np.int64).reshape(-1, axes)
        cells = np.indices(self._grid).reshape(axes, -1).T
        box, cell = (cells < (high - low)[:, None]).all(axis=2).nonzero()
        tile = begins[which[box]] + ((low[box] + cells[cell]) * steps[which[box]]).sum(axis=1)
        tile, of_pair = np.unique(tile, return_inverse=True)
        own = [
            tile[a:b] - begin
            for begin, (a, b) in zip(
                begins.tolist(), pairwise(np.searchsorted(tile, begins).tolist()), strict=False
            )
        ]
        indexes = [volume.index for volume in volumes]
        constant = np.concatenate(
            [i.constant[n] for i, n in zip(indexes, own, strict=True)] or [np.empty(0, bool)]
        )
        values = np.concatenate(
            [i.minimum[n] for i, n in zip(indexes, own, strict=True)] or [np.empty(0, self.dtype)]
        )
        pairs = np.column_stack((box, cells[cell]))
        same = constant[of_pair]
        self._constant, self._values = pairs[same], values[of_pair[same]]
        self._varied = pairs[~same]
        self._tile = (np.cumsum(~constant) - 1)[of_pair[~same]]
        varied = [n[~i.constant[n]] for i, n in zip(indexes, own, strict=True)]
        return StoredTiles(volumes, varied)

    def _place(self, origin: NDArray[np.int64], whole: NDArray[np.int64]) -> None:
        sides = self._sides
        steps = np.append(np.cumprod(sides[:0:-1])[::-1], 1)
        base = np.arange(len(origin)) * int(sides.prod()) * self.dtype.itemsize
        shape = np.minimum(sides, whole - origin)
        self.parts = Parts(base, origin, shape, np.broadcast_to(steps, origin.shape))

    @property
    def _sides(self) -> NDArray[np.int64]:
        """The sides of the memory of a box, in voxels."""
        return self._grid * self.extents

    def _found(
        self,
        wanted: StoredTiles,
        memory: NDArray[np.uint8],
        begins: NDArray[np.int64],
        right: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where the blocks of those tiles lie that are right, and their bytes."""
        if not len(wanted):
            return (np.empty((0, len(self._sizes)), np.int64),) * 2
        decoder = wanted.volumes[int(wanted.volume[0])].index.decoder
        blocks, lengths, usual = decoder.find_blocks(memory, begins, wanted.length)
        for tile in np.flatnonzero(right & ~usual).tolist():  # rare
            begin = int(begins[tile])
            try:
                pieces = decoder.blocks_of(memory[begin:][: int(wanted.length[tile])].tobytes())
            except IntegrityError:
                right[tile] = False
                continue
            for number, piece in enumerate(pieces):  # each is shorter than what told of it
                begin = _rounded(begin)
                memory[begin : begin + len(piece)] = np.frombuffer(piece, np.uint8)
                blocks[tile, number], lengths[tile, number] = begin, len(piece)
                begin += len(piece)
        blocks[~right] = 0
        return blocks, lengths

    def _align(
        self, content: memoryview, blocks: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> None:
        """Move blocks that begin elsewhere back to a multiple of so many bytes.

        There lay what tells of them, which has more bytes than that.
        """
        off = (blocks % _ALIGNED).nonzero()
        where = zip(blocks[off].tolist(), lengths[off].tolist(), strict=True)
        for begin, length in where:
            at = begin - begin % _ALIGNED
            content[at : at + length] = content[begin : begin + length]
        blocks -= blocks % _ALIGNED

    def _drop(self, wanted: StoredTiles, right: NDArray[np.bool_]) -> None:
        """Leave out tiles that are not right, and the boxes that they are part of."""
        self.lost = np.zeros(self.boxes, bool)
        self.tiles = int(np.count_nonzero(right))
        if self.tiles < len(wanted):
            self.lost[self._varied[~right[self._tile], 0]] = True
            kept = ~self.lost[self._varied[:, 0]]
            self._varied, self._tile = self._varied[kept], self._tile[kept]
            self._tile = (np.cumsum(right) - 1)[self._tile]
        known = np.flatnonzero(right)
        self._compared = [
            (wanted.volumes[int(wanted.volume[known[t]])], int(wanted.number[known[t]]), pair)
            for t, pair in zip(
                self._tile[:_COMPARED].tolist(), self._varied[:_COMPARED].tolist(), strict=True
            )
        ]

    def _table_bytes(self, tiles: int) -> int:
        """Return the most bytes that the tables take which go with so many tiles."""
        pairs, blocks = len(self._varied) + len(self._constant), tiles * len(self._sizes)
        return 8 * (3 * blocks + pairs * (len(self.extents) + 2))

    def _lay(
        self,
        memory: NDArray[np.uint8],
        after: int,
        blocks: NDArray[np.int64],
        lengths: NDArray[np.int64],
    ) -> None:
        """Store the tables that go with the blocks behind them: they go in one transfer."""
        begins, lengths = blocks.ravel(), lengths.ravel()
        sizes = np.tile(np.array(self._sizes, np.int64), self.tiles)
        plain = lengths == sizes
        self._blocks = len(begins)
        self._plain = [(int(n), int(begins[n]), int(sizes[n])) for n in np.flatnonzero(plain)]
        if self._plain and not plain.all():
            # What is not compressed is no food for a decompressor: in its place another block.
            other = int(np.flatnonzero(~plain)[0])
            begins, lengths, sizes = begins.copy(), lengths.copy(), sizes.copy()
            begins[plain], lengths[plain], sizes[plain] = (
                begins[other],
                lengths[other],
                sizes[other],
            )
        values = np.zeros((len(self._values), 8 // self.dtype.itemsize), self.dtype)
        values[:, 0] = self._values
        tables = [
            begins,
            lengths,
            sizes,
            self._varied,
            self._tile,
            self._constant,
            values.view(np.int64),
        ]
        self._shapes = []
        for table in tables:
            stop = after + table.nbytes
            memory[after:stop] = np.ascontiguousarray(table).reshape(-1).view(np.uint8)
            self._shapes.append((after, stop, table.shape))
            after = stop
        self._host = self._host[:after]
        self.sent_bytes = after

    @property
    def _sizes(self) -> list[int]:
        """The bytes of a tile's blocks when decompressed."""
        whole, rest = divmod(self.tile_bytes, self.blocks.nbytes)
        return [self.blocks.nbytes] * whole + [rest] * (rest > 0)

    def launch(
        self, decompress: Decompressor, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Start the decoding of what was read on the current stream.

        Returns
        -------
        memory : tensor of uint8
            That of all boxes.
        right : tensor of bool
            Which blocks were as they should be.
        """
        sent = self._host.to(device, non_blocking=True)
        del self._host  # it is used again as soon as the copy has ended
        begins, lengths, sizes, varied, tile, constant, values = self._tables(sent)
        largest = self.blocks.nbytes
        out = torch.empty((len(begins), _rounded(largest)), dtype=torch.uint8, device=device)
        right = torch.ones(len(begins), dtype=torch.bool, device=device)
        if len(self._plain) < len(begins):
            compression = self.blocks.compression
            right = decompress(compression, sent, begins, lengths, sizes, out, largest)
        for number, begin, size in self._plain:  # rare: compression left it as long as it was
            out[number, :size] = sent[begin : begin + size]
        word = _WORDS[self.dtype.itemsize]
        sides = self._sides.tolist()
        memory = torch.empty((self.boxes, *sides), dtype=word, device=device)
        tiled = memory.view(
            len(memory),
            *(n for pair in zip(self._grid.tolist(), self.extents, strict=True) for n in pair),
        )
        axes = len(sides)
        tiled = tiled.permute(0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2))
        if len(varied):
            tiled[tuple(varied.T)] = self._decoded(out, word).index_select(0, tile)
        if len(constant):
            same = values.view(word)[:, 0].view(-1, *(1,) * axes)
            tiled[tuple(constant.T)] = same.expand(-1, *self.extents)
        return memory.view(-1).view(torch.uint8), right

    def _tables(self, sent: torch.Tensor) -> Iterator[torch.Tensor]:
        for start, stop, shape in self._shapes:
            yield sent[start:stop].view(torch.int64).view(shape)

    def _decoded(self, out: torch.Tensor, word: torch.dtype) -> torch.Tensor:
        """Return decompressed blocks as tiles of words: put the bytes of each value together."""
        sizes, shuffled = self._sizes, self.blocks.itemsize
        blocks = out.view(-1, len(sizes), out.shape[1])
        equal = sum(size == sizes[0] for size in sizes)
        parts = [blocks[:, :equal, : sizes[0]]]
        if equal < len(sizes):
            parts.append(blocks[:, equal:, : sizes[-1]])
        if shuffled > 1:
            parts = [
                part.unflatten(2, (shuffled, part.shape[2] // shuffled)).transpose(2, 3)
                for part in parts
            ]
        tiles = torch.cat([part.reshape(len(blocks), -1) for part in parts], dim=1)
        tiles = tiles.view(word).view(-1, *self.blocks.extents)
        if self.blocks.cell_order == "F":
            tiles = tiles.permute(0, *range(tiles.ndim - 1, 0, -1))
        return tiles

    @property
    def can_be_compared(self) -> bool:
        """Whether there is a tile to compare with what the processor decodes."""
        return bool(self._compared)

    def is_right(self, memory: torch.Tensor) -> bool:
        """Compare some tiles with what the processor decodes."""
        sides = self._sides.tolist()
        words = memory.view(_WORDS[self.dtype.itemsize]).view(-1, *sides)
        for volume, number, (box, *position) in self._compared:
            inside = tuple(
                slice(p * e, p * e + e) for p, e in zip(position, self.extents, strict=True)
            )
            got = words[box][inside].cpu().numpy()
            want = np.ascontiguousarray(volume.tile(number)).view(got.dtype)
            if not np.array_equal(got, want):
                return False
        return True


def _rounded(nbytes: Bytes) -> Bytes:
    """Return numbers of bytes, rounded up to where a block may begin."""
    return -(-nbytes // _ALIGNED) * _ALIGNED
