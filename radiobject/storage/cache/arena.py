"""The shared memory of the decoded-tile cache: one per user and machine, and never a file.

The arena is an anonymous memory file (memfd). A process finds the one that others of the same
user hold through ``/proc/<pid>/fd`` and opens it there, so that fork, forkserver, spawn and
unrelated programs share it alike. It has no name in any file system: when the last process that
holds it ends, however it ends, the kernel frees every byte. Only the user can open it.

Layout, in a sparse file of which only pages that were allocated exist: a header, a table of
processes, a directory of volumes (open addressing), then one region per volume.
See docs/design/decoded-cache.md.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from radiobject.system.huge_pages import map_shared
from radiobject.system.processes import pid_namespace, start_time

VIRTUAL_BYTES = 1 << 42
PROCESSES = 256
VOLUMES = 1 << 16
PAGE = mmap.PAGESIZE

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
"""How often a process looks for volumes that nobody uses any more, for another to be let in."""


def _round_up(size: int) -> int:
    return -(-size // PAGE) * PAGE


_PROCESS_AT = PAGE
_VOLUME_AT = _PROCESS_AT + _round_up(PROCESSES * _PROCESS.itemsize)
_DATA_AT = _VOLUME_AT + _round_up(VOLUMES * _VOLUME.itemsize)


def format_arena(fd: int, default_budget: int) -> None:
    """Make an empty arena of a new memory file."""
    os.ftruncate(fd, VIRTUAL_BYTES)
    # Nobody can cut it short, so a page that was allocated stays readable.
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    os.posix_fallocate(fd, 0, _VOLUME_AT)
    header = np.zeros(1, _HEADER)
    header["namespace"], header["next"] = pid_namespace(), _DATA_AT
    header["default_budget"] = default_budget
    header["magic"] = MAGIC
    os.pwrite(fd, header.tobytes(), 0)


def is_arena(fd: int) -> bool:
    """Return whether a memory file is an arena of this user and of the same process ids."""
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_size != VIRTUAL_BYTES:
        return False
    header = np.frombuffer(os.pread(fd, _HEADER.itemsize, 0), _HEADER)[0]
    return int(header["magic"]) == MAGIC and int(header["namespace"]) == pid_namespace()


class Arena:
    """The mapped arena, and this process's place in it.

    Everything that changes the tables holds `locked`, which excludes other threads and other
    processes; reading voxels needs no lock.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map, self._first = map_shared(fd, VIRTUAL_BYTES)
        self._header = self.view(0, (1,), _HEADER)
        self._processes = self.view(_PROCESS_AT, (PROCESSES,), _PROCESS)
        self._volumes = self.view(_VOLUME_AT, (VOLUMES,), _VOLUME)
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
            if not self._depth:
                fcntl.lockf(self.fd, fcntl.LOCK_EX)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if not self._depth:
                    fcntl.lockf(self.fd, fcntl.LOCK_UN)

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
        """Bytes of memory that the arena takes, tables and background included."""
        return os.fstat(self.fd).st_blocks * 512

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
                offset = int(self._header["next"][0])
                if offset + _round_up(size) > VIRTUAL_BYTES:
                    return None
                os.posix_fallocate(self.fd, offset, head)
                row["key"] = np.frombuffer(key, np.uint8)
                row["offset"], row["size"] = offset, size
                row["charged"] = row["reserved"] = 0
                row["users"] = 0
                row["state"] = _USED
                self._header["next"] = offset + _round_up(size)
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

        Volumes are let in while all that they may ever need fits: a budget for a quarter of the
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
        taken may exceed the charged bytes by background that shares pages with tiles; it is kept
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

    def allocate(self, offset: int, size: int) -> None:
        """Give memory to a part of the arena, so that touching it cannot fail.

        Raises
        ------
        OSError
            If there is none.
        """
        os.posix_fallocate(self.fd, offset, size)

    def view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return a part of the arena as an array."""
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self._map, dtype, count, self._first + offset).reshape(shape)

    @property
    def memory(self) -> np.ndarray:
        """All of the arena as bytes; only what was allocated may be touched."""
        return self.view(0, (VIRTUAL_BYTES,), np.dtype(np.uint8))

    def is_allocated(self, offset: int, size: int) -> bool:
        """Return whether every page of a part of the arena has memory."""
        try:
            return os.lseek(self.fd, offset, os.SEEK_HOLE) >= offset + size
        except OSError:  # it begins beyond the last page that has
            return False

    def _fits(self, amount: int, budget: int) -> bool:
        return self.charged + amount <= budget and self.resident + amount <= _MOST_RESIDENT * budget

    def _find(self, key: bytes) -> int | None:
        """Return the row of `key`, or the first free one on its way, or None if there is none."""
        start = int.from_bytes(key[:8], "little")
        free = None
        wanted = np.frombuffer(key, np.uint8)
        for step in range(VOLUMES):
            place = (start + step) % VOLUMES
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
        os.posix_fallocate(self.fd, _VOLUME_AT + place * _VOLUME.itemsize, _VOLUME.itemsize)

    def _own_slot(self) -> int | None:
        if self._slot is None:
            self._sweep_processes()
            free = np.flatnonzero(self._processes["pid"] == 0)
            if len(free) == 0:
                return None
            self._slot = int(free[0])
            self._processes[self._slot] = (os.getpid(), start_time(os.getpid()))
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
                row["state"] = _DELETED
                begin, size = self._first + int(row["offset"]), _round_up(int(row["size"]))
                self._map.madvise(mmap.MADV_REMOVE, begin, size)
        # Counted afresh, which also mends what a process left that was killed half-way.
        left = self._used_places()
        self._header["volumes"] = len(left)
        for total, of_volume in (("charged",) * 2, ("reserved",) * 2, ("spanned", "size")):
            self._header[total] = sum(int(self._volumes[place][of_volume]) for place in left)

    def _used_places(self) -> list[int]:
        # Reading a page of the table that was never allocated would allocate it: look for data.
        places = []
        position, end = _VOLUME_AT, _VOLUME_AT + VOLUMES * _VOLUME.itemsize
        while position < end:
            try:
                position = os.lseek(self.fd, position, os.SEEK_DATA)
            except OSError:
                break
            hole = min(os.lseek(self.fd, position, os.SEEK_HOLE), end)
            first = max((position - _VOLUME_AT) // _VOLUME.itemsize, 0)
            last = min(-(-(hole - _VOLUME_AT) // _VOLUME.itemsize), VOLUMES)
            places += [p for p in range(first, last) if self._volumes[p]["state"] == _USED]
            position = hole
        return sorted(set(places))
