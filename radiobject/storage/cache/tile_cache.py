"""Decoded tiles kept in shared memory: one C-order image per volume, filled tile by tile.

Tiles are admitted until the budget is full and are never evicted while a living process uses
their volume: under the random order of training, eviction costs more than it saves.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import weakref
from dataclasses import dataclass

import numpy as np

from radiobject import process
from radiobject.ctx import get_radiobject_config
from radiobject.geometry.tiling import Tiling
from radiobject.storage.cache.arena import PAGE, Arena
from radiobject.storage.cache.arena_discovery import ArenaUnavailableError, open_arena
from radiobject.storage.cache.registration import registered_bytes
from radiobject.storage.io import stats
from radiobject.system.common_memory import CommonMemory
from radiobject.system.huge_pages import HUGE, gather

_lock = threading.Lock()
_arena: Arena | None = None
_unavailable = False
_full_until = 0.0
_RETRY_S = 1.0
_TURN_S = 0.01
"""How long a volume that was sent away waits before it asks again; then twice as long."""


def shared_arena() -> Arena | None:
    """Return the arena of this user and machine, or None where there is none to be had."""
    global _arena, _unavailable
    with _lock:
        if _arena is None and not _unavailable:
            try:
                _arena = open_arena(_wanted_budget())
            except ArenaUnavailableError:
                _unavailable = True
        return _arena


def _renew_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    if _arena is not None:
        _arena.renew_in_child()


process.at_fork("decoded cache", in_child=_renew_in_child)


def inheritance() -> CommonMemory | None:
    """Return what a process that this one starts is to be given, pickled: its cache.

    None where such a process finds it by itself, or there is none.
    """
    arena = shared_arena()
    return arena.common if arena is not None and arena.common.reach == "children" else None


def inherit(memory: CommonMemory | None) -> None:
    """Use the cache of the process that started this one, unless this one has a cache already."""
    global _arena
    with _lock:
        if memory is not None and _arena is None:
            _arena = Arena(memory)


def detach() -> None:
    """Let go of the arena; the next use looks for one again."""
    global _arena, _unavailable, _full_until
    with _lock:
        _arena, _unavailable, _full_until = None, False, 0.0


def _refuse() -> bool:
    """Note that the cache is full, so that for a second no read spends time on asking again."""
    global _full_until
    _full_until = time.monotonic() + _RETRY_S
    stats.count(cache_refused=1)
    return False


def budget_bytes(arena: Arena) -> int:
    """Return how many bytes of tiles may be kept.

    ``ReadConfig.tile_cache_size_mb``, or where that is None a quarter of the memory that was free
    when the arena was made.
    """
    wanted = _wanted_budget()
    return arena.default_budget if wanted is None else wanted


def _wanted_budget() -> int | None:
    wanted = get_radiobject_config().read.tile_cache_size_mb
    return None if wanted is None else wanted << 20


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What the decoded-tile cache holds, for all processes that share it.

    Attributes
    ----------
    tile_bytes : int
        Bytes of the non-constant tiles in it; this is what the budget bounds.
    budget_bytes : int
    resident_bytes : int
        Memory it takes, tables and background that shares pages with tiles included.
    registered_bytes : int
        Part of it that this process has registered with a device.
    shared_by : {"machine", "session", "children", "process", "nobody"}
        Who has it: all processes of the user on this machine (Linux) or in this session (Windows),
        this process and those that it starts (macOS), this process alone (where the system refuses
        shared memory), or nobody: then there is no cache.
    """

    tile_bytes: int
    budget_bytes: int
    resident_bytes: int
    registered_bytes: int = 0
    shared_by: str = "nobody"


def cache_use() -> CacheUse:
    """Return what the cache holds now; all zero where there is none."""
    arena = shared_arena()
    if arena is None:
        return CacheUse(0, 0, 0)
    return CacheUse(
        arena.charged, budget_bytes(arena), arena.resident, registered_bytes(), arena.common.reach
    )


class VolumeImage:
    """The decoded tiles of one volume, as one array in shared memory.

    Attributes
    ----------
    voxels : ndarray, shape of the volume
        Valid where `ready` says so.
    ready : ndarray of uint8, shape of the grid
        1 for tiles that can be read from `voxels`.
    """

    def __init__(
        self,
        arena: Arena,
        entry: int,
        offset: int,
        tiling: Tiling,
        dtype: np.dtype,
        constant: np.ndarray,
    ) -> None:
        self._arena = arena
        self._entry = entry
        self._tiling = tiling
        maps = _map_sizes(tiling)
        byte = np.dtype(np.uint8)
        self.ready = arena.view(offset, tiling.grid, byte)
        self._charged = arena.view(offset + maps[0], tiling.grid, byte)
        self._allocated = arena.view(offset + 2 * maps[0], tiling.grid[:2], byte)
        self._voxels_at = offset + maps[1]
        self._constant = constant
        self._whole = int(_voxels_of_tiles(tiling)[~constant].sum()) * dtype.itemsize
        self._ask_again = 0.0
        self._turn = _TURN_S
        self.voxels = arena.view(self._voxels_at, tiling.shape, dtype)
        # Not when it is dropped from a table, but when no read can be using it any more.
        weakref.finalize(self, _release, arena, entry, os.getpid()).atexit = False

    @property
    def arena(self) -> Arena:
        """The memory that the voxels lie in."""
        return self._arena

    @property
    def region(self) -> tuple[int, int]:
        """Where in the arena the voxels lie, on whole pages: offset and bytes."""
        return self._voxels_at, -(-self.voxels.nbytes // PAGE) * PAGE

    def is_complete(self) -> bool:
        """Return whether every tile can be read, and so every page has memory."""
        return bool(self.ready.all()) and self._arena.is_allocated(*self.region)

    def is_roomy(self) -> bool:
        """Return whether background may be stored as well."""
        return self._arena.is_roomy(budget_bytes(self._arena))

    def may_admit(self) -> bool:
        """Return whether it is worth asking for room: not just after it was refused."""
        now = time.monotonic()
        return now >= self._ask_again and now >= _full_until

    def admit(self, positions: list[tuple[int, ...]]) -> bool:
        """Make room for tiles; False when they do not fit, and nothing can be filled then.

        Parameters
        ----------
        positions : list of tuple of int
            The tiles' places in the grid; those of one value do not count.
        """
        budget = budget_bytes(self._arena)
        with self._arena.locked():
            new = [p for p in positions if not self._constant[p] and not self._charged[p]]
            amount = sum(self._tile_bytes(p) for p in new)
            if amount and not self._arena.admit(self._entry, self._whole, budget):
                self._ask_again = time.monotonic() + self._turn
                self._turn = min(2 * self._turn, _RETRY_S)
                stats.count(cache_refused=1)
                return False
            if amount and not self._arena.reserve(self._entry, amount, budget):
                return _refuse()
            for p in new:
                self._charged[p] = 1
            return self._allocate({p[:2] for p in positions})

    def fill(self, position: tuple[int, ...], voxels: np.ndarray | np.generic) -> None:
        """Store the voxels of one admitted tile, or the one value of all of them.

        Another process may store the same tile at the same time: both write the same bytes.
        """
        self.voxels[self._tiling.box(position).slices] = voxels
        # Taking and leaving a lock twice orders the two writes on every kind of processor.
        with _lock:
            pass
        with _lock:
            self.ready[position] = 1

    def settle(self, positions: list[tuple[int, ...]]) -> None:
        """Tell that tiles were filled: where all around is there too, huge pages are asked for.

        These take memory for background as well, so only while there is room for that.
        """
        if not HUGE or not self.is_roomy():
            return
        for slab in {p[0] for p in positions}:
            if self._is_there(slice(slab, slab + 1)):
                self._gather(slab)

    def _is_there(self, slabs: slice) -> bool:
        return bool((self.ready[slabs] | self._constant[slabs]).all())

    def _gather(self, slab: int) -> None:
        """Gather the huge pages of which a slab of tiles, and perhaps its neighbours, are all."""
        plane, thickness = self.voxels.strides[0], self._tiling.extents[0]
        begin, end = self._voxels_at, self._voxels_at + self.voxels.nbytes
        first = max(begin + slab * thickness * plane - HUGE + 1, begin)
        last = min(begin + (slab + 1) * thickness * plane, end - HUGE + 1)
        for start in range(-(-first // HUGE) * HUGE, last, HUGE):
            inside = slice(
                (start - begin) // plane // thickness,
                (start + HUGE - 1 - begin) // plane // thickness + 1,
            )
            if self._is_there(inside):
                gather(self._arena.view(start, (HUGE,), np.dtype(np.uint8)))

    def _tile_bytes(self, position: tuple[int, ...]) -> int:
        return self._tiling.box(position).size * self.voxels.itemsize

    def _allocate(self, columns: set[tuple[int, ...]]) -> bool:
        """Give memory to whole columns of tiles: those of a column share most of their pages."""
        plane = self.voxels.strides[0]
        row = self.voxels.strides[1]
        for column in columns:
            if self._allocated[column]:
                continue
            box = self._tiling.box((*column, *(0,) * (self.voxels.ndim - 2)))
            start = box.start[1] * row
            length = (box.stop[1] - box.start[1]) * row
            try:
                for x in range(box.start[0], box.stop[0]):
                    self._arena.allocate(self._entry, self._voxels_at + x * plane + start, length)
            except OSError:
                return _refuse()
            self._allocated[column] = 1
        return True


def _release(arena: Arena, entry: int, pid: int) -> None:
    if os.getpid() == pid:
        arena.release(entry)


def _map_sizes(tiling: Tiling) -> tuple[int, int]:
    """Return the bytes of one map of the tiles, and of all maps rounded up to pages."""
    one = -(-tiling.count // 64) * 64
    return one, -(-3 * one // PAGE) * PAGE


def open_image(
    identity: bytes, tiling: Tiling, dtype: np.dtype, constant: np.ndarray
) -> VolumeImage | None:
    """Return the image of a volume, or None where there is no room for another.

    Parameters
    ----------
    identity : bytes
        Different for any two volumes: the packed tile index, which names the fragment and holds
        the checksums of its tiles.
    tiling : Tiling
    dtype : numpy.dtype
    constant : ndarray of bool, shape of the grid
        Tiles of one value, which take no room.
    """
    arena = shared_arena()
    if arena is None:
        return None
    maps = _map_sizes(tiling)
    size = maps[1] + int(np.prod(tiling.shape, dtype=np.int64)) * dtype.itemsize
    key = hashlib.blake2b(identity, digest_size=16).digest()
    try:
        place = arena.attach(key, size, maps[1])
    except OSError:
        return None
    if place is None:
        return None
    return VolumeImage(arena, *place, tiling, dtype, constant)


def _voxels_of_tiles(tiling: Tiling) -> np.ndarray:
    """Return how many voxels of the volume lie in each tile, of the shape of the grid."""
    voxels = np.ones((), np.int64)
    for length, extent, count in zip(tiling.shape, tiling.extents, tiling.grid, strict=True):
        sides = np.full(count, extent)
        sides[-1] = length - extent * (count - 1)
        voxels = np.multiply.outer(voxels, sides)
    return voxels
