"""Reading boxes of one volume from its tiles: cached, constant, or decoded now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np

from radiobject.addresses import is_remote
from radiobject.exceptions import IntegrityError
from radiobject.geometry.box import Box
from radiobject.geometry.rescale import Rescale
from radiobject.geometry.tiling import TilePart, parts_of, tiles_covering
from radiobject.storage.cache.tile_cache import VolumeImage, open_image
from radiobject.storage.io import stats
from radiobject.storage.io.checksum import crc32
from radiobject.storage.io.remote import REFETCHES
from radiobject.storage.read.convert import Copies, convert, outside
from radiobject.storage.read.thread_pool import Task, run_tasks, usable_threads
from radiobject.storage.tiles.blosc_chunk import Buffer
from radiobject.storage.tiles.decode import scratch
from radiobject.storage.tiles.tile_index import TileIndex
from radiobject.storage.tiles.tile_source import pool
from radiobject.storage.tiles.voxel_check import decode_tiles, matches_statistics

_VERIFY_TILES = 64
# Of threads that share a read, each decodes so many at once: few enough that all end together.
_TILES_SHARED = 16
# Constant tiles around the content of a box from which on they are written together.
_BACKGROUND_AT_ONCE = 32
# Constant tiles that no box has asked for and one read stores, in 10 to 60 ms: they need memory.
_BACKGROUND_STORED = 64

# A volume that was not complete is looked at again after so many reads that found all they needed.
_LOOK_AGAIN = 16


class VolumeTiles:
    """One volume, ready to be read through its tile index.

    Parameters
    ----------
    uri : str
    index : TileIndex
    identity : bytes
        The packed index, by which processes find the volume in the shared cache.
    label : str
        What error messages call the volume.
    """

    def __init__(self, uri: str, index: TileIndex, identity: bytes, label: str) -> None:
        self.uri = uri
        self.index = index
        self.stored_index: bytes | None = identity
        self.label = label
        self.shape = index.tiling.shape
        self.dtype = index.numpy_dtype
        self._extents = index.tiling.extents
        self._numbers = index.tiling.numbers()
        self._constant = index.constant[self._numbers]
        self._background = _only_value(index.minimum[index.constant])
        axes = range(len(self.shape))
        self._other_axes = [tuple(a for a in axes if a != axis) for axis in axes]
        self._image = open_image(identity, index.tiling, self.dtype, self._constant)
        self._complete = self._image is not None and bool(self._image.ready.all())
        self._warm_reads = 0

    @property
    def remote(self) -> bool:
        """Return whether missing tiles come over a network."""
        return is_remote(self.uri)

    def read_warm(
        self,
        start: Sequence[int],
        stop: Sequence[int],
        out: np.ndarray,
        rescale: Rescale | None,
        copies: Copies | None = None,
    ) -> int:
        """Read a box whose tiles are all in the cache; this is the hot path of training.

        Parameters
        ----------
        start, stop : sequence of int
            The box, inside the volume; numbers instead of a `Box`, which would be made for this.
        out, rescale
            As for `radiobject.storage.read.reader.read_into`.
        copies : Copies, optional
            Takes the copy where it is one that can wait for others; else it is made.

        Returns
        -------
        int
            The number of tiles read, or 0 when a tile is missing and nothing was written. That
            goes for background, too, where there is room for it: the box is one copy later on.
        """
        image = self._image
        if image is None:
            return 0
        tiles = 1
        for begin, end, extent in zip(start, stop, self._extents, strict=True):
            tiles *= (end - 1) // extent - begin // extent + 1
        if not self._complete:
            cover = tuple(
                slice(begin // extent, (end - 1) // extent + 1)
                for begin, end, extent in zip(start, stop, self._extents, strict=True)
            )
            if not (ready := image.ready[cover]).all():
                if not ready.any() or image.is_roomy():
                    return 0
                core = self._core(cover)
                if not image.ready[core].all():
                    return 0
                box = Box(tuple(start), tuple(stop))
                self._convert_core(box, core, image, out, rescale)
                return tiles
            self._warm_reads += 1
            if self._warm_reads % _LOOK_AGAIN == 0:
                self._complete = bool(image.ready.all())
        voxels = image.voxels[tuple(map(slice, start, stop))]
        if copies is not None and (rescale is None or rescale.is_identity):
            copies.add(voxels, out, self)
        else:
            convert(voxels, out, rescale)
        return tiles

    def complete_image(self) -> VolumeImage | None:
        """Return the volume's image in the cache if all of it can be read there, else None."""
        image = self._image
        return image if image is not None and image.is_complete() else None

    def complete(self) -> bool:
        """Bring every tile into the cache, background too; False if there is no room for it.

        Raises
        ------
        IntegrityError, StorageError
            If a tile is not what was written or cannot be fetched.
        """
        image, grid = self._image, self._constant.shape
        if image is None:
            return False
        for slab in range(grid[0]):
            cover = (slice(slab, slab + 1), *(slice(0, n) for n in grid[1:]))
            if image.ready[cover].all():
                continue
            if not (image.is_roomy() and image.may_admit()):
                return False
            if not self._complete_cover(cover, image):
                return False
        self._complete = image.is_complete()
        return self._complete

    def bring(self, box: Box) -> bool:
        """Bring the tiles of a box into the cache; False if there is no room for them.

        Afterwards reading the box decodes nothing.

        Raises
        ------
        IntegrityError, StorageError
            If a tile is not what was written or cannot be fetched.
        """
        image = self._image
        if image is None:
            return False
        cover = tuple(
            slice(a // e, (b - 1) // e + 1)
            for a, b, e in zip(box.start, box.stop, self._extents, strict=True)
        )
        core = self._core(cover)
        only_background = self._background is not None and self._constant[cover].all()
        if only_background or image.ready[core].all():
            return True
        if not image.may_admit():
            return False
        return self._complete_cover(cover if image.is_roomy() else core, image)

    def read(self, box: Box, out: np.ndarray, rescale: Rescale | None) -> None:
        """Read a box inside the volume that is not empty: what `begin` leaves to do, too."""
        run_tasks(self.begin(box, out, rescale))

    def begin(self, box: Box, out: np.ndarray, rescale: Rescale | None) -> Iterator[Task]:
        """Read a box inside the volume that is not empty, filling the cache where it has room.

        Yields
        ------
        callable
            What is left to do: tiles to be decoded into `out`, in any order and any thread.

        Raises
        ------
        IntegrityError, StorageError
            If a tile is not what was written or cannot be fetched; the message names the volume
            and the tile.
        """
        cover = tuple(
            slice(a // e, (b - 1) // e + 1)
            for a, b, e in zip(box.start, box.stop, self._extents, strict=True)
        )
        image, constant = self._image, self._constant[cover]
        # Where there is room for its background, too, a box is one copy later on.
        roomy = image is not None and image.is_roomy()
        if constant.all() and self._background is not None and not roomy:
            convert(self._background, out, rescale)
            stats.count(tiles_constant=constant.size)
            return
        if image is not None and (roomy or not constant.all()) and image.may_admit():
            core = cover if roomy else self._core(cover)
            if self._complete_cover(core, image):
                self._convert_core(box, core, image, out, rescale)
                stats.count(tiles_constant=constant.size - self._constant[core].size)
                return
        yield from self._assemble(box, out, rescale)

    def _core(self, cover: tuple[slice, ...]) -> tuple[slice, ...]:
        """Return the tiles of `cover` that hold more than background, as one box of tiles.

        That is all of them where tiles of one value have several values, or there are no others.
        """
        if self._background is None:
            return cover
        constant = self._constant[cover]
        core = []
        for tiles, others in zip(cover, self._other_axes, strict=True):
            varied = (~constant.all(axis=others)).nonzero()[0]
            if not len(varied):
                return cover
            core.append(slice(tiles.start + int(varied[0]), tiles.start + int(varied[-1]) + 1))
        return tuple(core)

    def _convert_core(
        self,
        box: Box,
        core: tuple[slice, ...],
        image: VolumeImage,
        out: np.ndarray,
        rescale: Rescale | None,
    ) -> None:
        """Deliver a box of which the tiles `core` are in the cache, and the others background."""
        inside, target = self._of_core(box, core)
        self._convert_background(out, target, rescale)
        convert(image.voxels[inside.slices], out[target.slices], rescale)

    def _of_core(self, box: Box, core: tuple[slice, ...]) -> tuple[Box, Box]:
        """Return the part of a box in the tiles `core`, and the same counted from the box."""
        sides = list(zip(box.start, box.stop, core, self._extents, strict=True))
        inside = Box(
            tuple(max(a, tiles.start * e) for a, _, tiles, e in sides),
            tuple(min(b, tiles.stop * e) for _, b, tiles, e in sides),
        )
        return inside, inside.shift([-a for a in box.start])

    def _convert_background(self, out: np.ndarray, target: Box, rescale: Rescale | None) -> None:
        """Deliver what lies beyond the box `target` of `out`."""
        for view in outside(out, target):
            convert(self._background, view, rescale)

    def _complete_cover(self, cover: tuple[slice, ...], image: VolumeImage) -> bool:
        """Bring every tile of `cover` into the cache, background too; False if there is no room."""
        missing = image.ready[cover] == 0
        first = [s.start for s in cover]
        positions = [tuple(map(int, p)) for p in np.argwhere(missing) + first]
        if not image.admit(positions):
            return False
        # While room was made, another thread may have brought some of them.
        varied = [p for p in positions if not self._constant[p] and not image.ready[p]]
        numbers = [int(self._numbers[p]) for p in varied]

        def fill(place: int, tile: np.ndarray) -> None:
            image.fill(varied[place], self._inside(varied[place], tile))

        run_tasks(self._decoding(numbers, fill))
        constant = [p for p in positions if self._constant[p]]
        self._store_constant(constant, image)
        image.settle(positions)
        stats.count(
            tiles_decoded=len(varied),
            tiles_constant=len(constant),
            tiles_cached=missing.size - len(constant) - len(varied),
            bytes_decoded=len(varied) * self.index.tile_bytes,
        )
        self._fill_background(image)
        self._complete = bool(image.ready.all())
        return True

    def _fill_background(self, image: VolumeImage) -> None:
        """Where only background is missing and there is room for it, store some of it.

        A volume is complete then long before boxes have met all of it by chance.
        """
        missing = image.ready == 0
        if not missing.any() or not self._constant[missing].all() or not image.is_roomy():
            return
        positions = [tuple(map(int, p)) for p in np.argwhere(missing)[:_BACKGROUND_STORED]]
        if image.admit(positions):
            self._store_constant(positions, image)
            image.settle(positions)

    def _store_constant(self, positions: Sequence[tuple[int, ...]], image: VolumeImage) -> None:
        for position in positions:
            image.fill(position, self.index.minimum[self._numbers[position]])

    def _assemble(self, box: Box, out: np.ndarray, rescale: Rescale | None) -> Iterator[Task]:
        """Deliver a box tile by tile, without adding to the cache; yield the decoding."""
        cover = tiles_covering(box, self._extents)
        if np.count_nonzero(self._constant[cover]) >= _BACKGROUND_AT_ONCE:
            core = self._core(cover)
            if core != cover:
                inside, target = self._of_core(box, core)
                yield partial(self._convert_background, out, target, rescale)
                beyond = self._constant[cover].size - self._constant[core].size
                stats.count(tiles_constant=beyond)
                yield from self._assemble(inside, out[target.slices], rescale)
                return
        image = self._image
        parts: list[TilePart] = []
        numbers: list[int] = []
        constant = cached = 0
        of_tile = zip(
            parts_of(box, self._extents),
            self._numbers[cover].ravel().tolist(),
            self._constant[cover].ravel().tolist(),
            strict=True,
        )
        for part, number, same in of_tile:
            position, _, in_box = part
            if same:
                self._put(self.index.minimum[number], out, in_box, rescale)
                constant += 1
            elif image is not None and image.ready[position]:
                source = tuple(
                    slice(s.start + a, s.stop + a) for s, a in zip(in_box, box.start, strict=True)
                )
                self._put(image.voxels[source], out, in_box, rescale)
                cached += 1
            else:
                parts.append(part)
                numbers.append(number)

        def put(place: int, tile: np.ndarray) -> None:
            _, in_tile, in_box = parts[place]
            self._put(tile[in_tile], out, in_box, rescale)

        yield from self._decoding(numbers, put)
        stats.count(
            tiles_decoded=len(numbers),
            tiles_constant=constant,
            tiles_cached=cached,
            bytes_decoded=len(numbers) * self.index.tile_bytes,
        )

    def _put(
        self,
        voxels: np.ndarray | np.generic,
        out: np.ndarray,
        where: tuple[slice, ...],
        rescale: Rescale | None,
    ) -> None:
        if rescale is None and out.dtype == self.dtype:
            out[where] = voxels
        else:
            convert(voxels, out[where], rescale)

    def verify(self) -> None:
        """Fetch and decode every tile, cached and constant ones too, and check each.

        Raises
        ------
        IntegrityError, StorageError
            For the first tile that is not what was written or cannot be fetched.
        """
        for numbers in _batches(np.flatnonzero(~self.index.constant)):
            run_tasks(self._decoding(numbers, lambda place, tile: None))
        stored_constant = self.index.constant & (np.diff(self.index.offsets) > 0)
        for numbers in _batches(np.flatnonzero(stored_constant)):
            for number, stored in zip(numbers, self._fetch(numbers), strict=True):
                with scratch(self.index.tile_bytes) as out:
                    tiles = decode_tiles(self.index, [number], [stored], self.label, out)
                    self._check_statistics(number, tiles[0])

    def read_into(self, numbers: Sequence[int], memory: memoryview, begins: Sequence[int]) -> None:
        """Read tiles as they are stored into a memory, each to where it is to begin; unchecked.

        Raises
        ------
        IntegrityError, StorageError
            If a tile cannot be fetched.
        """
        pool.source(self.uri, self.index).read_into(numbers, memory, begins)

    def tile(self, number: int) -> np.ndarray:
        """Fetch, check and decode a tile: all of it, where it sticks out of the volume, too."""
        out = np.empty(self.index.tile_bytes, np.uint8)
        tile: np.ndarray = self._checked([number], self._fetch([number]), out)[0]
        return tile

    def check_size(self) -> None:
        """Raise unless the file of the tiles is there and as long as it was; one request."""
        pool.source(self.uri, self.index).check_size()

    def _fetch(self, numbers: Sequence[int]) -> list[Buffer]:
        return pool.source(self.uri, self.index).fetch(numbers)

    def _decoding(
        self, numbers: Sequence[int], use: Callable[[int, np.ndarray], None]
    ) -> Iterator[Task]:
        """Fetch tiles; yield tasks that check and decode them, and hand each on.

        Parameters
        ----------
        numbers : sequence of int
        use : callable
            Takes a tile's place in `numbers`, and its voxels: those of a whole tile, valid until
            it returns.
        """
        count = len(numbers)
        if not count:
            return
        pieces, size = self._fetch(numbers), self.index.decoder.tiles_at_once
        if usable_threads() > 1:
            size = min(size, -(-count // -(-count // _TILES_SHARED)))
        for first in range(0, count, size):
            group = slice(first, first + size)
            yield partial(self._decode, numbers[group], pieces[group], use, first)

    def _decode(
        self,
        numbers: Sequence[int],
        pieces: Sequence[Buffer],
        use: Callable[[int, np.ndarray], None],
        first: int,
    ) -> None:
        with scratch(len(pieces) * self.index.tile_bytes) as out:
            for place, tile in enumerate(self._checked(numbers, pieces, out)):
                use(first + place, tile)

    def _checked(
        self, numbers: Sequence[int], pieces: Sequence[Buffer], out: np.ndarray
    ) -> np.ndarray:
        """Return tiles decoded into `out`; what a network may have altered is fetched again."""
        for _ in range(REFETCHES if self.remote else 0):
            try:
                return self._decoded(numbers, pieces, out)
            except IntegrityError:
                stats.count(refetched_ranges=1)
                pieces = pool.renewed(self.uri, self.index).fetch(numbers)
        return self._decoded(numbers, pieces, out)

    def _decoded(
        self, numbers: Sequence[int], pieces: Sequence[Buffer], out: np.ndarray
    ) -> np.ndarray:
        self._check_sums(numbers, pieces)
        tiles = decode_tiles(self.index, numbers, pieces, self.label, out)
        if self.index.checksum_list is None:
            for number, tile in zip(numbers, tiles, strict=True):
                self._check_statistics(number, tile)
        return tiles

    def _check_sums(self, numbers: Sequence[int], pieces: Sequence[Buffer]) -> None:
        checksums = self.index.checksum_list
        if checksums is None:
            return
        for number, stored in zip(numbers, pieces, strict=True):
            if crc32(stored) != checksums[number]:
                self._damaged(number, "its checksum is not the one that was written")

    def _check_statistics(self, number: int, tile: np.ndarray) -> None:
        voxels = self._inside(self.index.tiling.position(number), tile)
        if not matches_statistics(self.index, number, voxels):
            self._damaged(number, "minimum, maximum or sum are not those that were written")

    def _inside(self, position: tuple[int, ...], tile: np.ndarray) -> np.ndarray:
        """Return the voxels of a whole tile that lie in the volume."""
        sides = self.index.tiling.box(position).shape
        return tile[tuple(slice(0, n) for n in sides)]

    def _damaged(self, number: int, why: str) -> NoReturn:
        raise IntegrityError(
            f"tile {number} at grid position {self.index.tiling.position(number)} of volume "
            f"{self.label} is damaged: {why}"
        )


def _batches(numbers: np.ndarray) -> Iterator[list[int]]:
    for first in range(0, len(numbers), _VERIFY_TILES):
        yield numbers[first : first + _VERIFY_TILES].tolist()


def _only_value(values: np.ndarray) -> Any:
    """Return the value that all of `values` are, bit by bit, or None."""
    same = len(values) and values.tobytes() == values[:1].tobytes() * len(values)
    return values[0] if same else None
