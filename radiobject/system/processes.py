"""Processes: forks, processors, users, and telling living processes from dead ones."""

from __future__ import annotations

import getpass
import hashlib
import math
import multiprocessing
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import psutil

from radiobject.system import control_groups
from radiobject.system.present import os

_OF_PROCESSES = Path("/proc/self/stat").exists()
_NAMESPACE = Path("/proc/self/ns/pid")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TICKS_PER_SECOND = 100
_BOOT_TOLERANCE_S = 30
_UNKNOWN_SPACE = f"of {uuid.uuid4().hex}"
"""Another one in every process: nobody is taken for dead where nobody can know."""


def at_fork(
    *,
    before: Callable[[], object],
    after_in_parent: Callable[[], object],
    after_in_child: Callable[[], object],
) -> None:
    """Call functions at every fork, where processes fork at all; for `radiobject.process` alone."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=before, after_in_parent=after_in_parent, after_in_child=after_in_child
        )


def _by_affinity() -> int:
    return len(os.sched_getaffinity(0))


def _by_count() -> int:
    return os.cpu_count() or 1


_present = _by_affinity if hasattr(os, "sched_getaffinity") else _by_count


@lru_cache(maxsize=1)
def _share() -> float | None:
    return control_groups.processors_left()


def processors() -> int:
    """Return how many processors this process may use: where it may run, and for how much time.

    A container with the time of one and a half on a machine of 64 has two.
    """
    count, share = _present(), _share()
    return count if share is None else max(1, min(count, math.ceil(share)))


def end_with_parent() -> None:
    """End this process with the one that it works for, however that ends.

    A process that was forked by a server (as Python 3.14 does on Linux) is a child of that server,
    which stays as long as one of its children: workers that watch their parent would stay for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():
        threading.Thread(
            target=_end_after, args=(parent.sentinel,), name="radiobject-parent", daemon=True
        ).start()


def _end_after(sentinel: Any) -> None:
    wait([sentinel])
    os._exit(1)


workers_start_cheaply = multiprocessing.get_all_start_methods()[0] != "spawn"
"""Whether the system's own way to start a worker copies a process that has imported everything."""


def prefer_throughput() -> None:
    """Let the calling thread, and those that it will start, interrupt no other when they wake.

    Linux's policy for batch work; nothing where there is none.

    Raises
    ------
    OSError
        If the system forbids it.
    """
    if hasattr(os, "SCHED_BATCH"):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


has_throughput_policy = hasattr(os, "SCHED_BATCH")


def user_code() -> str:
    """Return letters and digits for this user that no other user of the machine has."""
    if hasattr(os, "geteuid"):
        return str(os.geteuid())
    return hashlib.sha256(_user_name().casefold().encode()).hexdigest()[:12]


def _user_name() -> str:
    """Return the name of the user: what the system says, before variables that anybody sets."""
    for asked in (os.getlogin, getpass.getuser):
        with suppress(OSError, ImportError, KeyError):
            return str(asked())
    return str(os.path.expanduser("~"))


def is_mine(status: Any) -> bool:
    """Return whether the user owns a file; where files say no owner, the folder decides."""
    return not hasattr(os, "geteuid") or bool(status.st_uid == os.geteuid())


def is_private(status: Any) -> bool:
    """Return whether a file or folder is the user's, and no mode lets others in.

    Where there are no owners the modes say nothing either: access lists decide, and those of a
    user's own folders let nobody else in.
    """
    return not hasattr(os, "geteuid") or (is_mine(status) and not status.st_mode & 0o077)


def start_time(pid: int) -> int:
    """Return when process `pid` started, in a unit of the system's, or 0 if it does not run."""
    return _start_ticks(pid) if _OF_PROCESSES else _start_hundredths(pid)


def _start_ticks(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    fields = stat.rpartition(b")")[2].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def _start_hundredths(pid: int) -> int:
    created = create_time(pid)
    if created is None:
        return 0
    return int(created * _TICKS_PER_SECOND) or 1


def create_time(pid: int) -> float | None:
    """Return when process `pid` started, in seconds since 1970, or None if it does not run.

    Where the system does not tell (a Linux without /proc), 0.0 for every process that runs.
    """
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None if _tells_of(os.getpid()) else _signalled(pid)
    except psutil.Error:
        return 0.0


def _tells_of(pid: int) -> bool:
    try:
        psutil.Process(pid).create_time()
    except psutil.Error:
        return False
    return True


def _signalled(pid: int) -> float | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:  # another user's
        return 0.0
    return 0.0


def pid_namespace() -> int:
    """Return a number that processes share for which process ids mean the same."""
    try:
        return int(os.stat(_NAMESPACE).st_ino)
    except OSError:
        return 0


def pid_space() -> str:
    """Return what processes share for which process ids mean the same, over all machines."""
    try:
        return f"{_BOOT.read_bytes().decode('ascii').strip()}:{pid_namespace()}"
    except OSError:
        pass
    try:
        return f"{psutil.boot_time():.0f}"
    except (OSError, RuntimeError, psutil.Error):
        return _UNKNOWN_SPACE


def is_pid_space(other: str) -> bool:
    """Return whether what `pid_space` gave to another process is what it gives to this one.

    A system that tells only when it was started tells it anew each time, and not to the second.
    """
    mine = pid_space()
    if mine.isdigit() and other.isdigit():
        return abs(int(mine) - int(other)) <= _BOOT_TOLERANCE_S
    return mine == other
