"""Tiles that the device decodes itself, for volumes that no cache holds.

They cross the bus as they are stored, checked against their checksums by the processor, and are
decompressed there. That takes milliseconds for a few blocks and hardly more for a thousand, so the
tiles of many batches are decoded together. Each box gets a piece of memory for the tiles that cover
it, laid out like a volume, out of which it is gathered like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from radiobject.exceptions import RadiObjectError
from radiobject.ml.datasets.fields import Field
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.open_volumes import volume_tiles
from radiobject.storage.read.volume_tiles import VolumeTiles
from radiobject.storage.tiles.blosc_chunk import Buffer
from radiobject.storage.tiles.decode import Blocks

TILES_TOGETHER = 1000
"""Tiles of a call from which on it takes longer for more."""
_MOST_BYTES = 256 << 20
"""Memory of the device for the tiles of the batches that are decoded together, about."""
_MOST_BATCHES = 64

_ALIGNED = 16
_COMPARED = 4
"""Tiles of each kind that are compared with what the processor decodes."""

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

NOWHERE = -1


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


Staging = Callable[[int], torch.Tensor]


@dataclass(frozen=True)
class Held:
    """Where parts of volumes lie in the memory of a device, which boxes are gathered from.

    Parameters
    ----------
    memory : ndarray of int64, shape (n,)
        Number of a memory of `Decoded`, or ``NOWHERE``.
    base : ndarray of int64, shape (n,)
        Byte of it at which the part's first voxel lies.
    origin, shape, stride : ndarray of int64, shape (n, d)
        First voxel of the part in its volume, as stored; its sides; and voxels from one index of
        an axis to the next.
    """

    memory: NDArray[np.int64]
    base: NDArray[np.int64]
    origin: NDArray[np.int64]
    shape: NDArray[np.int64]
    stride: NDArray[np.int64]

    def at(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Held:
        """Return some of the parts."""
        return Held(
            self.memory[rows],
            self.base[rows],
            self.origin[rows],
            self.shape[rows],
            self.stride[rows],
        )


@dataclass(frozen=True)
class _Compared:
    """A tile that the processor decodes, too."""

    volume: VolumeTiles
    number: int
    box: int
    position: tuple[int, ...]


class Kind:
    """The tiles of boxes of volumes that are stored alike.

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
    compared : list
        Tiles that the processor decodes, too.
    """

    def __init__(self, blocks: Blocks, extents: tuple[int, ...], dtype: np.dtype) -> None:
        self.blocks, self.extents, self.dtype = blocks, extents, dtype
        self.key = (blocks, extents, dtype)
        self.sent_bytes = 0
        self._grid = np.ones(len(extents), np.int64)
        self._origins: list[NDArray[np.int64]] = []
        self._volumes: list[tuple[int, ...]] = []
        self._stored: list[Buffer] = []
        self._begins: list[int] = []
        self._plain: list[int] = []
        self._varied: list[NDArray[np.int64]] = []
        self._constant: list[NDArray[np.int64]] = []
        self._values: list[NDArray] = []
        self.compared: list[_Compared] = []

    @property
    def tiles(self) -> int:
        """Tiles to be decompressed."""
        return sum(map(len, self._varied))

    @property
    def tile_bytes(self) -> int:
        """Bytes of a tile when decompressed."""
        return math.prod(self.extents) * self.dtype.itemsize

    def add(self, volume: VolumeTiles, first: Sequence[int], last: Sequence[int]) -> int:
        """Ask for the tiles of a box inside its volume; return the number of the box.

        Raises
        ------
        IntegrityError, StorageError
            If a tile is not what was written or cannot be fetched; then nothing is asked for.
        """
        cover = tuple(
            slice(a // e, -(-b // e)) for a, b, e in zip(first, last, self.extents, strict=True)
        )
        numbers, constant = volume.tiles_in(cover)
        wanted = numbers[~constant].tolist()
        self._stored += volume.blocks(wanted)
        box = len(self._origins)
        varied = np.argwhere(~constant)
        for number, position in zip(wanted, varied.tolist(), strict=False):
            if len(self.compared) == _COMPARED:
                break
            self.compared.append(_Compared(volume, number, box, tuple(position)))
        self._varied.append(np.insert(varied, 0, box, axis=1))
        if constant.any():
            self._constant.append(np.insert(np.argwhere(constant), 0, box, axis=1))
            self._values.append(volume.index.minimum[numbers[constant]])
        self._grid = np.maximum(self._grid, numbers.shape)
        self._origins.append(
            np.array([s.start * e for s, e in zip(cover, self.extents, strict=True)])
        )
        self._volumes.append(volume.shape)
        return box

    @property
    def _sides(self) -> NDArray[np.int64]:
        """The sides of the memory of a box, in voxels."""
        return self._grid * self.extents

    def parts(self) -> tuple[NDArray[np.int64], ...]:
        """Return base, origin, shape and stride of `Held`, for every box."""
        sides = self._sides
        origin = np.array(self._origins)
        steps = np.append(np.cumprod(sides[:0:-1])[::-1], 1)
        base = np.arange(len(origin)) * int(sides.prod()) * self.dtype.itemsize
        shape = np.minimum(sides, np.array(self._volumes) - origin)
        return base, origin, shape, np.broadcast_to(steps, origin.shape)

    def launch(
        self, decompress: Decompressor, staging: Staging, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Start the decoding on the current stream.

        Returns
        -------
        memory : tensor of uint8
            That of all boxes.
        right : tensor of bool
            Which blocks were as they should be.
        """
        sent, tables = self._sent(staging, device)
        begins, lengths, sizes, varied, constant = tables
        largest = self.blocks.nbytes
        out = torch.empty(
            (len(begins), -(-largest // _ALIGNED) * _ALIGNED), dtype=torch.uint8, device=device
        )
        right = torch.ones(len(begins), dtype=torch.bool, device=device)
        if len(self._plain) < len(begins):
            compression = self.blocks.compression
            right = decompress(compression, sent, begins, lengths, sizes, out, largest)
        for number in self._plain:  # rare: compression left it as long as it was
            begin, block = self._begins[number], self._stored[number]
            out[number, : len(block)] = sent[begin : begin + len(block)]
        word = _WORDS[self.dtype.itemsize]
        sides = self._sides.tolist()
        memory = torch.empty((len(self._origins), *sides), dtype=word, device=device)
        tiled = memory.view(
            len(memory),
            *(n for pair in zip(self._grid.tolist(), self.extents, strict=True) for n in pair),
        )
        axes = len(sides)
        tiled = tiled.permute(0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2))
        if len(varied):
            tiled[tuple(varied.T)] = self._tiles(out, word)
        if len(constant):
            values = np.concatenate(self._values)
            same = torch.from_numpy(values.view(f"i{values.itemsize}").copy()).view(word)
            spread = same.to(device).view(-1, *(1,) * axes).expand(-1, *self.extents)
            tiled[tuple(constant.T)] = spread
        return memory.view(-1).view(torch.uint8), right

    @property
    def _sizes(self) -> list[int]:
        """The bytes of a tile's blocks when decompressed."""
        whole, rest = divmod(self.tile_bytes, self.blocks.nbytes)
        return [self.blocks.nbytes] * whole + [rest] * (rest > 0)

    def _tiles(self, out: torch.Tensor, word: torch.dtype) -> torch.Tensor:
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

    def _sent(
        self, staging: Staging, device: torch.device
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the blocks, and the tables that go with them, on the device: one transfer."""
        lengths = np.array([len(block) for block in self._stored], np.int64)
        ends = np.cumsum(-(-lengths // _ALIGNED) * _ALIGNED)
        self._begins = (ends - -(-lengths // _ALIGNED) * _ALIGNED).tolist()
        none = np.empty((0, len(self.extents) + 1), np.int64)
        sizes = np.array(self._sizes * self.tiles, np.int64)
        begins, packed = np.array(self._begins, np.int64), lengths.copy()
        plain = lengths == sizes
        self._plain = np.flatnonzero(plain).tolist()
        if self._plain and not plain.all():
            # What is not compressed is no food for a decompressor: in its place another block.
            other = int(np.flatnonzero(~plain)[0])
            begins[plain], packed[plain], sizes[plain] = begins[other], lengths[other], sizes[other]
        tables = [
            begins,
            packed,
            sizes,
            np.concatenate([*self._varied, none]),
            np.concatenate([*self._constant, none]),
        ]
        first = int(ends[-1]) if len(ends) else 0
        total = first + sum(table.nbytes for table in tables)
        host = staging(total)[:total]
        bytes_of_host = host.numpy()
        content = bytes_of_host.data
        for begin, length, block in zip(self._begins, lengths.tolist(), self._stored, strict=True):
            content[begin : begin + length] = block
        at = first
        for table in tables:
            bytes_of_host[at : at + table.nbytes] = table.reshape(-1).view(np.uint8)
            at += table.nbytes
        sent, self.sent_bytes = host.to(device, non_blocking=True), total
        found, at = [], first
        for table in tables:
            found.append(sent[at : at + table.nbytes].view(torch.int64).view(table.shape))
            at += table.nbytes
        return sent, found

    def is_right(self, memory: torch.Tensor) -> bool:
        """Compare some tiles with what the processor decodes."""
        sides = self._sides.tolist()
        words = memory.view(_WORDS[self.dtype.itemsize]).view(-1, *sides)
        for tile in self.compared:
            inside = tuple(
                slice(p * e, p * e + e) for p, e in zip(tile.position, self.extents, strict=True)
            )
            got = words[tile.box][inside].cpu().numpy()
            want = np.ascontiguousarray(tile.volume.tile(tile.number)).view(got.dtype)
            if not np.array_equal(got, want):
                return False
        return True


class Demand:
    """The tiles of the boxes of batches that follow each other.

    Parameters
    ----------
    decompress : Decompressor
        Says which compressions it can.
    """

    def __init__(self, decompress: Decompressor) -> None:
        self._decompress = decompress
        self._kinds: dict[tuple[Blocks, tuple[int, ...], np.dtype], Kind] = {}

    def kind_of(self, volume: VolumeTiles | None) -> Kind | None:
        """Return the kind of a volume; None where the device does not decode its tiles."""
        if volume is None or volume.index.checksums is None:
            return None
        blocks = volume.index.decoder.blocks
        if blocks is None or blocks.compression not in self._decompress.compressions:
            return None
        key = (blocks, volume.index.tiling.extents, volume.dtype)
        return self._kinds.setdefault(key, Kind(*key))

    def ask(
        self, locators: Sequence[VolumeLocator], first: NDArray[np.int64], last: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Ask for the tiles of boxes, as far as they lie in their volumes.

        Parameters
        ----------
        locators : sequence of VolumeLocator, length n
            The volume of each box.
        first, last : ndarray of int64, shape (n, d)
            First voxel of each box as stored, and one past its last.

        Returns
        -------
        ndarray of int64, shape (n, 2)
            Number of the kind and of the box in it, ``NOWHERE`` for one that is not decoded here.
        """
        asked = np.full((len(locators), 2), NOWHERE)
        numbers = {id(kind): number for number, kind in enumerate(self._kinds.values())}
        for row, locator in enumerate(locators):
            volume = volume_tiles(locator)
            kind = self.kind_of(volume)
            if kind is None or volume is None:
                continue
            begin = np.maximum(first[row], 0)
            end = np.minimum(last[row], volume.shape)
            if (begin >= end).any():
                continue  # all of it is padding
            number = numbers.setdefault(id(kind), len(numbers))
            asked[row] = number, kind.add(volume, begin.tolist(), end.tolist())
        return asked

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of volumes there are, in the order of their numbers."""
        return list(self._kinds.values())

    def held(self, asked: NDArray[np.int64], memory: int) -> Held:
        """Return where boxes that were asked for lie, kind `i` in memory `memory` + i."""
        axes = max((len(kind.extents) for kind in self.kinds), default=0)
        where = np.full(len(asked), NOWHERE)
        base = np.zeros(len(asked), np.int64)
        origin, shape, stride = (np.zeros((len(asked), axes), np.int64) for _ in range(3))
        for number, kind in enumerate(self.kinds):
            rows = np.flatnonzero(asked[:, 0] == number)
            if rows.size:
                parts = kind.parts()
                boxes = asked[rows, 1]
                where[rows] = memory + number
                used = len(kind.extents)
                base[rows] = parts[0][boxes]
                for array, part in zip((origin, shape, stride), parts[1:], strict=True):
                    array[rows, :used] = part[boxes]
        return Held(where, base, origin, shape, stride)


def first_opened(locators: Sequence[VolumeLocator]) -> VolumeTiles | None:
    """Return the first volume of a table, which stands for the others, if it can be read."""
    try:
        return volume_tiles(locators[0]) if len(locators) else None
    except RadiObjectError:  # an error of the batch that needs it
        return None


def batches_together(field_sides: Sequence[tuple[Field, tuple[int, ...]]], batch: int) -> int:
    """Return how many batches are best decoded in one call.

    Parameters
    ----------
    field_sides : sequence of pairs of Field and tuple of int
        What a batch has of voxels, and the sides of its boxes.
    batch : int
        Samples of a batch.
    """
    tiles, nbytes = 0.0, 0
    for field, side in field_sides:
        for table in field.channels:
            volume = first_opened(table.locators)
            if volume is None:
                continue
            extents = volume.index.tiling.extents
            tiles += batch * math.prod(1 + (n - 1) / e for n, e in zip(side, extents, strict=True))
            most = math.prod(
                min(-(-(n - 1) // e) + 1, grid) * e
                for n, e, grid in zip(side, extents, volume.index.tiling.grid, strict=True)
            )
            nbytes += batch * most * volume.dtype.itemsize
    if not tiles:
        return 1
    wanted = min(math.ceil(TILES_TOGETHER / tiles), _MOST_BATCHES)
    return max(1, min(wanted, _MOST_BYTES // max(nbytes, 1)))
