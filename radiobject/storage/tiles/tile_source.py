"""Where stored tiles come from: a mapped local file, or ranges of an object."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from radiobject import process
from radiobject.addresses import is_remote, local_path
from radiobject.exceptions import IntegrityError, StorageError
from radiobject.storage.io import stats
from radiobject.storage.io.array_files import map_file, open_regular
from radiobject.storage.tiles.decode import Buffer
from radiobject.storage.tiles.mirror import discard, mirrored
from radiobject.storage.tiles.remote_tiles import RemoteTiles, unread
from radiobject.storage.tiles.tile_index import TileIndex
from radiobject.system.files import can_read_pieces, open_file_limit, read_pieces_at

_MAX_MAPPED_FILES = 256
_MOST_TOGETHER = 512
"""Tiles of one call that reads; Linux takes 1024 places."""
_READ_BYTES = 64 << 20
"""Bytes of one call, but for a tile that has more."""


class TileSource(Protocol):
    """Gives the stored bytes of tiles."""

    remote: bool

    def fetch(self, numbers: Sequence[int]) -> list[Buffer]:
        """Return the stored bytes of the tiles with these numbers, in that order."""

    def read_into(self, numbers: Sequence[int], memory: memoryview, begins: Sequence[int]) -> None:
        """Read the stored bytes of tiles into a memory, each to where it is to begin."""

    def check_size(self) -> None:
        """Raise an `IntegrityError` unless the file is there and as long as it was."""


class LocalTiles:
    """Tiles of a local file, mapped into memory: nothing is copied before it is decoded."""

    remote = False

    def __init__(self, path: Path, index: TileIndex) -> None:
        self._path = path
        self._offsets = index.offset_list
        self._size = index.file_size
        self._map = map_file(self._path)
        self.check_size()
        self._content = memoryview(self._map)
        self._descriptor: int | None = None
        stats.count(index_opens=1)

    def fetch(self, numbers: Sequence[int]) -> list[Buffer]:
        """Return views of the tiles.

        The file's size is looked at each time: touching a mapping beyond the end of a file that
        was cut after it was opened would kill the process.
        """
        self.check_size()
        pieces: list[Buffer] = []
        amount = 0
        for number in numbers:
            start, stop = self._offsets[number], self._offsets[number + 1]
            pieces.append(self._content[start:stop])
            amount += stop - start
        stats.count(bytes_read=amount)
        return pieces

    def read_into(self, numbers: Sequence[int], memory: memoryview, begins: Sequence[int]) -> None:
        """Read tiles into a memory; those that follow each other in the file by one call.

        Where the system can, they are read and not copied out of the mapping: a file that is cut
        meanwhile is an error and not the end of the process.

        Parameters
        ----------
        numbers : sequence of int
            In ascending order.
        memory : memoryview of bytes
            Has room for them.
        begins : sequence of int
            Where in it each begins.

        Raises
        ------
        IntegrityError
            If the file is not as long as it was.
        StorageError
            If it cannot be read.
        """
        self.check_size()
        offsets, amount = self._offsets, 0
        for start, stop, run in _runs(offsets, numbers):
            at = begins[run]
            sizes = [offsets[n + 1] - offsets[n] for n in numbers[run]]
            views = [memory[b : b + size] for b, size in zip(at, sizes, strict=True)]
            self._read(views, start, stop - start)
            amount += stop - start
        stats.count(bytes_read=amount)

    def _read(self, views: list[memoryview], start: int, nbytes: int) -> None:
        if not can_read_pieces:
            for view in views:
                view[:] = self._content[start : start + len(view)]
                start += len(view)
            return
        try:
            while (got := read_pieces_at(self._file(), views, start)) < nbytes:
                if not got:
                    raise IntegrityError(f"tile file {self._path} ends at byte {start}")
                start, nbytes = start + got, nbytes - got
                while got >= len(views[0]):
                    got -= len(views.pop(0))
                views[0] = views[0][got:]
        except OSError as error:
            raise StorageError(f"{self._path} cannot be read: {error.strerror}") from error

    def _file(self) -> int:
        """Return the file, open for reading: opened again on first use, as a mapping has none.

        Another file may lie there by now. Its tiles have other checksums.
        """
        if self._descriptor is None:
            with open_regular(self._path) as file:
                descriptor = os.dup(file.fileno())
            weakref.finalize(self, os.close, descriptor)
            self._descriptor = descriptor
        return self._descriptor

    def remove_copy(self) -> bool:
        """Remove the file, which is a copy of an object, and return whether that can be done.

        Who has it mapped keeps it.
        """
        return discard(self._path)

    def check_size(self) -> None:
        """Raise an `IntegrityError` unless the mapped file is as long as it was."""
        size = self._map.size()
        if size != self._size:
            raise IntegrityError(f"tile file {self._path} has {size} bytes, expected {self._size}")


def _runs(offsets: Sequence[int], numbers: Sequence[int]) -> Iterator[tuple[int, int, slice]]:
    """Yield the ranges of a file that are read by one call, and which of the tiles lie in each.

    Parameters
    ----------
    offsets : sequence of int
        Where each tile begins and the one before it ends.
    numbers : sequence of int
        The tiles, in ascending order.
    """
    first, start, stop = 0, -1, -1
    for place, number in enumerate(numbers):
        end = offsets[number + 1]
        if offsets[number] != stop or place - first == _MOST_TOGETHER or end - start > _READ_BYTES:
            if place > first:
                yield start, stop, slice(first, place)
            first, start = place, offsets[number]
        stop = end
    if first < len(numbers):
        yield start, stop, slice(first, len(numbers))


def open_source(uri: str, index: TileIndex) -> TileSource:
    """Open the tiles of the volume at `uri`: its file, the mirror of its object, or the object."""
    if not is_remote(uri):
        folder = Path(local_path(uri))
        expected = Path(os.path.realpath(folder), index.path)
        if Path(os.path.realpath(folder / index.path)) != expected:
            raise IntegrityError(
                f"the tile file of {uri} is a link out of it; restore the volume from a copy, or "
                "have the files themselves where git-annex or DVC keeps them (git annex unlock)"
            )
        return LocalTiles(folder / index.path, index)
    copy = mirrored(uri, index)
    return RemoteTiles(uri, index) if copy is None else LocalTiles(copy, index)


class SourcePool:
    """The sources that are open, so many that a process does not run out of files."""

    def __init__(self) -> None:
        self._limit = max(8, min(_MAX_MAPPED_FILES, open_file_limit() // 4))
        self._sources: OrderedDict[str, TileSource] = OrderedDict()
        self._lock = threading.Lock()

    def source(self, uri: str, index: TileIndex) -> TileSource:
        """Return the source of the volume at `uri`, opened now or before.

        Raises
        ------
        StorageError
            If it cannot be opened.
        """
        key = f"{uri}/{index.path}"
        with self._lock:
            known = self._sources.get(key)
            if known is not None:
                self._sources.move_to_end(key)
                return known
        opened = open_source(uri, index)
        with self._lock:
            self._sources[key] = opened
            while len(self._sources) > self._limit:
                self._sources.popitem(last=False)
        return opened

    def renewed(self, uri: str, index: TileIndex) -> TileSource:
        """Return a source of a remote volume that has kept nothing which may be altered."""
        with self._lock:
            known = self._sources.get(f"{uri}/{index.path}")
            if isinstance(known, LocalTiles):
                del self._sources[f"{uri}/{index.path}"]
                if not known.remove_copy():  # it would be opened again, as it is
                    self._sources[f"{uri}/{index.path}"] = RemoteTiles(uri, index)
            elif isinstance(known, RemoteTiles):
                known.forget_tiles()
        return self.source(uri, index)

    def forget(self, uri: str) -> None:
        """Close what is open below `uri`."""
        with self._lock:
            for key in [k for k in self._sources if k.startswith(f"{uri}/")]:
                del self._sources[key]
        unread.forget(f"{uri}/")

    def clear(self) -> None:
        """Close everything."""
        with self._lock:
            self._sources.clear()
        unread.forget()

    def renew_in_child(self) -> None:
        """Give a forked child its own locks; mapped files are good in both processes."""
        self._lock = threading.Lock()
        for source in self._sources.values():
            if isinstance(source, RemoteTiles):
                source.renew_in_child()


pool = SourcePool()
process.at_fork("tile files", in_child=pool.renew_in_child)
