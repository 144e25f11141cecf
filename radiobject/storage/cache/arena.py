"""The memory of the decoded-tile cache: one arena for all processes that can have it in common.

On Linux that is every process of the user: the arena is an anonymous memory file, which they find
in each other. Elsewhere it is a section of the user's session, or memory that the processes which
this one starts are given (`radiobject.system.common_memory`). None of them leaves anything behind,
however its processes end.

Layout: a header, a table of processes, a directory of volumes (open addressing), then one region
per volume. In a sparse file only pages that were allocated exist, so it may be larger than all
memory; other memory is as large as what it may take.
See docs/design/decoded-cache.md.
"""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from radiobject.system.common_memory import CommonMemory
from radiobject.system.files import read_at
from radiobject.system.memory import PAGE
from radiobject.system.processes import pid_namespace, start_time

VIRTUAL_BYTES = 1 << 42
PROCESSES = 256
_MOST_VOLUMES = {True: 1 << 16, False: 1 << 12}
"""Of a sparse arena, and of one that has all of its memory."""

_HEADER = np.dtype(
    [
        ("magic", "u8"),
        ("namespace", "u8"),
        ("charged", "u8"),
        ("next", "u8"),
        ("default_budget", "u8"),
        ("reserved", "u8"),
        ("spanned", "u8"),
        ("refused", "u8"),
        ("volumes", "u8"),
    ]
)
_PROCESS = np.dtype([("pid", "u8"), ("started", "u8")])
_VOLUME = np.dtype(
    [
        ("state", "u8"),
        ("key", "u1", 16),
        ("offset", "u8"),
        ("size", "u8"),
        ("charged", "u8"),
        ("reserved", "u8"),
        ("allocated", "u8"),
        ("users", "u1", PROCESSES),
    ]
)
_EMPTY, _USED, _DELETED = 0, 1, 2


def magic_of(*tables: np.dtype) -> int:
    """Return the mark of arenas with these tables: a version with others makes its own arena."""
    return 0x52544F42 << 32 | zlib.crc32(repr([table.descr for table in tables]).encode())


MAGIC = magic_of(_HEADER, _PROCESS, _VOLUME)
_PATIENCE = 8
"""Refusals per volume, with no tile admitted in between, that show that nobody needs the room."""
_MOST_RESIDENT = 2
"""Memory taken, background that shares pages with tiles included, per byte of the budget."""
_LOOK_AGAIN_S = 1.0
"""How often a process looks for volumes that nobody uses any more, for another to be admitted."""


def _round_up(size: int) -> int:
    return -(-size // PAGE) * PAGE


_PROCESS_AT = PAGE
_VOLUME_AT = _PROCESS_AT + _round_up(PROCESSES * _PROCESS.itemsize)


def _data_at(sparse: bool) -> int:
    return _VOLUME_AT + _round_up(_MOST_VOLUMES[sparse] * _VOLUME.itemsize)


def bytes_for(budget: int) -> int:
    """Return the size of an arena that is not sparse: tables, tiles, and background among them."""
    return _data_at(False) + _round_up(budget + budget // 2)


def format_arena(memory: CommonMemory, default_budget: int) -> None:
    """Make an empty arena of new memory."""
    memory.allocate(0, _VOLUME_AT)
    header: np.ndarray = np.frombuffer(memory.mapping, _HEADER, 1, memory.first)
    header["namespace"], header["next"] = pid_namespace(), _data_at(memory.sparse)
    header["default_budget"] = default_budget
    header["magic"] = MAGIC


def is_arena(fd: int) -> bool:
    """Return whether a memory file is an arena of these tables and of the same process ids."""
    header = np.frombuffer(read_at(fd, _HEADER.itemsize, 0), _HEADER)[0]
    return int(header["magic"]) == MAGIC and int(header["namespace"]) == pid_namespace()


class Arena:
    """The mapped arena, and this process's place in it.

    Everything that changes the tables holds `locked`, which excludes other threads and other
    processes; reading voxels needs no lock.

    Parameters
    ----------
    memory : CommonMemory
        New, or one that `format_arena` has made an arena of.
    """

    def __init__(self, memory: CommonMemory) -> None:
        self.common = memory
        self._places = _MOST_VOLUMES[memory.sparse]
        self._header = self.view(0, (1,), _HEADER)
        self._processes = self.view(_PROCESS_AT, (PROCESSES,), _PROCESS)
        self._volumes = self.view(_VOLUME_AT, (self._places,), _VOLUME)
        self._thread_lock = threading.RLock()
        self._depth = 0
        self._slot: int | None = None
        self._users: Counter[int] = Counter()
        self._look_again = 0.0

    def renew_in_child(self) -> None:
        """Give a forked child its own lock and, on first use, its own place."""
        self._thread_lock = threading.RLock()
        self._depth = 0
        self._slot = None
        self._users.clear()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Exclude every other thread and process that would change the tables."""
        with self._thread_lock:
            # A volume can be released by a finalizer while its thread is in here.
            self._depth += 1
            try:
                # In here: Ctrl-C just behind it would leave all other processes waiting.
                if self._depth == 1:
                    self.common.lock()
                yield
            finally:
                self._depth -= 1
                if not self._depth:
                    self.common.unlock()

    @property
    def is_ready(self) -> bool:
        """Whether it was made an arena of these tables."""
        return int(self._header["magic"][0]) == MAGIC

    @property
    def charged(self) -> int:
        """Bytes of non-constant tiles that were admitted."""
        return int(self._header["charged"][0])

    @property
    def default_budget(self) -> int:
        """A quarter of the memory that was free when the arena was made."""
        return int(self._header["default_budget"][0])

    @property
    def resident(self) -> int:
        """Bytes of memory that the arena takes, tables and background included.

        Where the system does not tell, those that were given to the volumes in it.
        """
        taken = self.common.taken()
        if taken is None:
            given = (int(self._volumes[place]["allocated"]) for place in self._used_places())
            return _VOLUME_AT + sum(given)
        return taken

    def attach(self, key: bytes, size: int, head: int) -> tuple[int, int] | None:
        """Find or make the region of a volume and mark it as used by this process.

        Parameters
        ----------
        key : bytes, 16 of them
        size : int
            Bytes of the region.
        head : int
            Its first bytes, which are allocated at once.

        Returns
        -------
        entry, offset : int
            Place in the directory and position of the region; None when the tables are full.

        Raises
        ------
        OSError
            If memory cannot be allocated.
        """
        with self.locked():
            slot = self._own_slot()
            found = self._find(key)
            if slot is None or found is None:
                return None
            row = self._volumes[found]
            if row["state"] != _USED:
                offset = self._room_for(_round_up(size))
                if offset is None:
                    return None
                self.common.allocate(offset, head)
                # The region is taken before the row says so, however this is interrupted: two
                # volumes must never have one.
                self._header["next"] = max(self._header["next"], offset + _round_up(size))
                row["key"] = np.frombuffer(key, np.uint8)
                row["offset"], row["size"] = offset, size
                row["charged"] = row["reserved"] = 0
                row["allocated"] = _round_up(head)
                row["users"] = 0
                row["state"] = _USED
                self._header["spanned"] += np.uint64(size)
                self._header["volumes"] += np.uint64(1)
            elif int(row["size"]) != size:
                return None
            row["users"][slot] = 1
            self._users[found] += 1
            return found, int(row["offset"])

    def release(self, entry: int) -> None:
        """Tell that this process no longer uses the volume at `entry` of the directory.

        The arena may then give its memory to another volume, so nothing may read it any more.
        """
        with self.locked():
            if self._slot is not None:
                self._users[entry] -= 1
                if not self._users[entry]:
                    self._volumes[entry]["users"][self._slot] = 0

    def admit(self, entry: int, whole: int, budget: int) -> bool:
        """Return whether tiles of a volume may be admitted; the caller holds the lock.

        Volumes are admitted while all that they may ever need fits: a budget for a quarter of the
        data then serves a quarter of the patches at full speed, and not a quarter of each patch.
        When those that are in ask for no more, what they left of it is open to others.

        Parameters
        ----------
        entry : int
            The volume's place in the directory.
        whole : int
            Bytes of all its tiles that may ever be admitted.
        budget : int
        """
        row, header = self._volumes[entry], self._header
        if row["reserved"]:
            return True
        room = self._reserved + whole <= budget
        if not room and time.monotonic() >= self._look_again:
            self._drop_unused()
            self._look_again = time.monotonic() + _LOOK_AGAIN_S
            room = self._reserved + whole <= budget
        if not room:
            header["refused"] += np.uint64(1)
            if header["refused"] > _PATIENCE * header["volumes"]:
                self._give_back_reservations()
                room = self._reserved < budget
        if room:
            row["reserved"] = whole
            header["reserved"] += np.uint64(whole)
        return room

    def is_roomy(self, budget: int) -> bool:
        """Return whether all volumes may take all of their memory, background included."""
        return int(self._header["spanned"][0]) <= _MOST_RESIDENT * budget

    @property
    def _reserved(self) -> int:
        return int(self._header["reserved"][0])

    def _give_back_reservations(self) -> None:
        for place in self._used_places():
            self._volumes[place]["reserved"] = self._volumes[place]["charged"]
        self._header["reserved"] = self._header["charged"]
        self._header["refused"] = 0

    def reserve(self, entry: int, amount: int, budget: int) -> bool:
        """Admit `amount` bytes for a volume if they fit into `budget`; the caller holds the lock.

        When they do not, volumes that no living process uses are dropped first. The memory really
        taken may exceed the counted bytes by background that shares pages with tiles; it is kept
        below twice the budget.
        """
        if not self._fits(amount, budget):
            self._drop_unused()
            if not self._fits(amount, budget):
                return False
        self._volumes[entry]["charged"] += np.uint64(amount)
        self._header["charged"] += np.uint64(amount)
        self._header["refused"] = 0
        return True

    def allocate(self, entry: int, offset: int, size: int) -> None:
        """Give memory to a part of a volume's region, so that touching it cannot fail.

        Raises
        ------
        OSError
            If there is none.
        """
        self.common.allocate(offset, size)
        row = self._volumes[entry]
        row["allocated"] = min(int(row["allocated"]) + size, int(row["size"]))

    def view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return a part of the arena as an array."""
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self.common.mapping, dtype, count, self.common.first + offset).reshape(
            shape
        )

    @property
    def memory(self) -> np.ndarray:
        """All of the arena as bytes; only what was allocated may be touched."""
        return self.view(0, (self.common.size,), np.dtype(np.uint8))

    def is_allocated(self, offset: int, size: int) -> bool:
        """Return whether every page of a part of the arena has memory."""
        return self.common.is_allocated(offset, size)

    def _room_for(self, size: int) -> int | None:
        """Return where a region can be: behind all others, else where one was given up."""
        offset = int(self._header["next"][0])
        if offset + size <= self.common.size:
            return offset
        return self._gap(size) or self._gap(size, after_dropping=True)

    def _gap(self, size: int, *, after_dropping: bool = False) -> int | None:
        if after_dropping:
            self._drop_unused()
        begin = _data_at(self.common.sparse)
        for place in sorted(self._used_places(), key=lambda p: int(self._volumes[p]["offset"])):
            row = self._volumes[place]
            if int(row["offset"]) - begin >= size:
                return begin
            begin = int(row["offset"]) + _round_up(int(row["size"]))
        return begin if begin + size <= self.common.size else None

    def _fits(self, amount: int, budget: int) -> bool:
        return self.charged + amount <= budget and self.resident + amount <= _MOST_RESIDENT * budget

    def _find(self, key: bytes) -> int | None:
        """Return the row of `key`, or the first free one on its way, or None if there is none."""
        start = int.from_bytes(key[:8], "little")
        free = None
        wanted = np.frombuffer(key, np.uint8)
        for step in range(self._places):
            place = (start + step) % self._places
            self._allocate_row(place)
            state = self._volumes[place]["state"]
            if state == _EMPTY:
                return place if free is None else free
            if state == _DELETED:
                free = place if free is None else free
            elif np.array_equal(self._volumes[place]["key"], wanted):
                return place
        return free

    def _allocate_row(self, place: int) -> None:
        self.common.allocate(_VOLUME_AT + place * _VOLUME.itemsize, _VOLUME.itemsize)

    def _own_slot(self) -> int | None:
        if self._slot is None:
            self._sweep_processes()
            free = np.flatnonzero(self._processes["pid"] == 0)
            if len(free) == 0:
                return None
            slot = int(free[0])
            self._processes[slot] = (os.getpid(), start_time(os.getpid()))
            self._slot = slot
        return self._slot

    def _sweep_processes(self) -> None:
        """Free the places of processes that have ended, and what only they used."""
        for slot in np.flatnonzero(self._processes["pid"]):
            process = self._processes[slot]
            pid = int(process["pid"])
            gone = start_time(pid) != int(process["started"])
            if gone or (pid == os.getpid() and slot != self._slot):
                for place in self._used_places():
                    self._volumes[place]["users"][slot] = 0
                self._processes[slot] = (0, 0)

    def _drop_unused(self) -> None:
        self._sweep_processes()
        for place in self._used_places():
            row = self._volumes[place]
            if not row["users"].any():
                # What is free must be empty: the next volume there reads its marks of tiles.
                self.common.drop(int(row["offset"]), _round_up(int(row["size"])))
                row["state"] = _DELETED
        # Counted afresh, which also mends what a process left that was killed half-way.
        left = self._used_places()
        self._header["volumes"] = len(left)
        for total, of_volume in (("charged",) * 2, ("reserved",) * 2, ("spanned", "size")):
            self._header[total] = sum(int(self._volumes[place][of_volume]) for place in left)

    def _used_places(self) -> list[int]:
        places: set[int] = set()
        end = _VOLUME_AT + self._places * _VOLUME.itemsize
        for start, stop in self.common.parts(_VOLUME_AT, end):
            first = max((start - _VOLUME_AT) // _VOLUME.itemsize, 0)
            last = min(-(-(stop - _VOLUME_AT) // _VOLUME.itemsize), self._places)
            used = np.flatnonzero(self._volumes["state"][first:last] == _USED)
            places.update((first + used).tolist())
        return sorted(places)
