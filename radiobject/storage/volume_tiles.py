"""Reading boxes of one volume from its tiles: cached, constant, or decoded now."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radiobject.exceptions import IntegrityError
from radiobject.plan.box import Box
from radiobject.plan.rescale import Rescale
from radiobject.plan.tiling import parts_of
from radiobject.storage import stats
from radiobject.storage.checksum import crc32
from radiobject.storage.decode import Buffer
from radiobject.storage.deliver import deliver
from radiobject.storage.handles import is_remote
from radiobject.storage.tile_cache import VolumeImage, open_image
from radiobject.storage.tile_index import TileIndex
from radiobject.storage.tile_source import TileSource, pool
from radiobject.storage.voxel_check import decode_whole, inside, matches_statistics


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
        self._image = open_image(identity, index.tiling, self.dtype)
        self._complete = self._image is not None and bool(self._image.ready.all())

    @property
    def remote(self) -> bool:
        """Tell whether missing tiles come over a network."""
        return is_remote(self.uri)

    def read_warm(self, box: Box, out: np.ndarray, rescale: Rescale | None) -> int:
        """Read a box whose tiles are all in the cache; this is the hot path of training.

        Returns
        -------
        int
            The number of tiles read, or 0 when a tile is missing and nothing was written.
        """
        image = self._image
        if image is None:
            return 0
        window: list[slice] = []
        cover: list[slice] = []
        tiles = 1
        for start, stop, extent in zip(box.start, box.stop, self._extents, strict=True):
            first, last = start // extent, (stop - 1) // extent + 1
            window.append(slice(start, stop))
            cover.append(slice(first, last))
            tiles *= last - first
        if not (self._complete or image.ready[tuple(cover)].all()):
            return 0
        voxels = image.voxels[tuple(window)]
        if rescale is None and out.dtype == self.dtype:
            out[...] = voxels
        else:
            deliver(voxels, out, rescale)
        return tiles

    def read(self, box: Box, out: np.ndarray, rescale: Rescale | None) -> None:
        """Read a box inside the volume that is not empty, filling the cache where it has room.

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
        constant = self._constant[cover]
        if constant.all():
            values = self.index.minimum[self._numbers[cover]]
            if (values == values.flat[0]).all():
                deliver(np.broadcast_to(values.flat[0], out.shape), out, rescale)
                stats.count(tiles_constant=constant.size)
            else:
                self._assemble(box, out, rescale)
            return
        if self._image is not None and self._complete_cover(cover, self._image):
            deliver(self._image.voxels[box.slices], out, rescale)
            return
        self._assemble(box, out, rescale)

    def _complete_cover(self, cover: tuple[slice, ...], image: VolumeImage) -> bool:
        """Bring every tile of `cover` into the cache; False if there is no room."""
        missing = image.ready[cover] == 0
        first = [s.start for s in cover]
        positions = [tuple(map(int, p)) for p in np.argwhere(missing) + first]
        if not image.admit(positions, self._constant):
            return False
        varied = [p for p in positions if not self._constant[p]]
        for position, stored in zip(varied, self._fetch(varied), strict=True):
            image.fill(position, inside(self.index, position, self._decode(position, stored)))
        for position in positions:
            if self._constant[position]:
                image.fill(position, self.index.minimum[self._numbers[position]])
        constant = len(positions) - len(varied)
        stats.count(
            tiles_decoded=len(varied),
            tiles_constant=constant,
            tiles_cached=missing.size - len(positions),
            bytes_decoded=len(varied) * self.index.tile_bytes,
        )
        self._complete = bool(image.ready.all())
        return True

    def _assemble(self, box: Box, out: np.ndarray, rescale: Rescale | None) -> None:
        """Deliver a box tile by tile, without adding to the cache."""
        image = self._image
        varied, parts = [], []
        constant = cached = 0
        for part in parts_of(box, self._extents):
            if self._constant[part.position]:
                value = self.index.minimum[self._numbers[part.position]]
                target = out[part.in_box]
                deliver(np.broadcast_to(value, target.shape), target, rescale)
                constant += 1
            elif image is not None and image.ready[part.position]:
                source = tuple(
                    slice(s.start + a, s.stop + a)
                    for s, a in zip(part.in_box, box.start, strict=True)
                )
                deliver(image.voxels[source], out[part.in_box], rescale)
                cached += 1
            else:
                varied.append(part.position)
                parts.append(part)
        for part, stored in zip(parts, self._fetch(varied), strict=True):
            tile = self._decode(part.position, stored)
            deliver(tile[part.in_tile], out[part.in_box], rescale)
        stats.count(
            tiles_decoded=len(varied),
            tiles_constant=constant,
            tiles_cached=cached,
            bytes_decoded=len(varied) * self.index.tile_bytes,
        )

    def _source(self) -> TileSource:
        return pool.source(self.uri, self.index)

    def _fetch(self, positions: Sequence[tuple[int, ...]]) -> list[Buffer]:
        if not positions:
            return []
        return self._source().fetch([int(self._numbers[p]) for p in positions])

    def _decode(self, position: tuple[int, ...], stored: Buffer) -> np.ndarray:
        """Return a checked tile with its whole extents, valid until this thread decodes again."""
        number = int(self._numbers[position])
        checksums = self.index.checksums
        if checksums is not None and crc32(stored) != checksums[number]:
            raise IntegrityError(
                f"tile {number} at grid position {position} of volume {self.label} is damaged: "
                "its checksum is not the one that was written"
            )
        tile = decode_whole(self.index, number, stored, f"volume {self.label}")
        if checksums is None:
            voxels = inside(self.index, position, tile)
            if not matches_statistics(self.index, number, voxels):
                raise IntegrityError(
                    f"tile {number} at grid position {position} of volume {self.label} is damaged: "
                    "minimum, maximum or sum are not those that were written"
                )
        return tile
