"""Files: locks, private ones, positions, and names that are replaced in one step."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from radiobject.exceptions import StorageError
from radiobject.system.present import fcntl, msvcrt, os, resource, winreg
from radiobject.system.processes import start_time, user_code

T = TypeVar("T")

_PRIVATE = 0o600
# Of what the system has: not inherited, no translated line ends, and no link followed.
_ALWAYS = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOINHERIT", "O_BINARY"))
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
# Where a file that is open can be neither replaced nor deleted, a virus scanner or a reader that
# is about to close it is waited for: access denied, sharing and lock violations, a folder with a
# file that is gone with its last handle, that file itself, and one that is mapped.
_SHARING = (5, 32, 33, 145, 303, 1224)
_WAITS_S = (0.01, 0.03, 0.1, 0.3, 0.6)
_LOCKED_BYTE = 1 << 30
"""A lock of Windows keeps others from reading what it covers: far behind every record."""
_LAST_LOCKED_BYTE = (1 << 31) - 1
"""Windows' C library takes positions for locks in 32 bits with a sign."""
_LOCK_PAUSE_S = 0.002
_CANNOT_RESERVE = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_PIECE_BYTES = 1 << 20
_NAME_BYTES = 100
_OPEN_FILES = 512
"""What every system allows a process without asking."""
UNFINISHED = r"\.(\d+)-[0-9a-f]{8}\.part"
"""Ending of a file that `written_whole` has begun, with the process that did."""
_UNFINISHED = re.compile(rf"\..*{UNFINISHED}")


def is_link(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a symbolic link, or what Windows has for folders: a junction."""
    try:
        state = os.lstat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISLNK(state.st_mode) or getattr(state, "st_reparse_tag", 0) == _JUNCTION


def open_private(path: str | Path, *, create: bool = True) -> int:
    """Open a file of the user's own for reading and writing; a symbolic link is refused.

    Raises
    ------
    OSError
        If it cannot be opened, or is a link.
    """
    if not _NO_FOLLOW and is_link(path):
        raise OSError(errno.ELOOP, "it is a symbolic link", str(path))
    return open_mode(path, _PRIVATE, create=create)


def open_mode(path: str | Path, mode: int, *, create: bool = True) -> int:
    """Open a file that is no link for reading and writing, made with `mode` if it is not there."""
    flags = os.O_RDWR | _ALWAYS | _NO_FOLLOW | (os.O_CREAT if create else 0)
    return int(os.open(path, flags, mode))


def open_when_gone(path: str | Path) -> int:
    """Open or make a private file, once one of that name that is being deleted is gone.

    Windows refuses a name until the last of those who had its file open has closed it, and its C
    library says no more of that than that access is denied.

    Raises
    ------
    OSError
        If it cannot be opened, or is a link.
    """
    for wait_s in _WAITS_S if msvcrt is not None else ():
        try:
            return open_private(path)
        except PermissionError:
            time.sleep(wait_s)
    return open_private(path)


def create_private(path: str | Path) -> BinaryIO:
    """Make or empty a file that only the user can read, and open it for writing."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _ALWAYS | _NO_FOLLOW
    return open(os.open(path, flags, _PRIVATE), "wb")


def reserve_file(path: str | Path, size: int) -> None:
    """Make or empty a file of the user's own, all zero, with room on the disk for all of it.

    Raises
    ------
    OSError
        If there is none; the file is gone then.
    """
    try:
        with create_private(path) as file:
            if not size or _has_reserved(file.fileno(), size):
                return
            piece = bytes(min(size, _PIECE_BYTES))
            for written in range(0, size, _PIECE_BYTES):
                file.write(piece[: size - written])
    except OSError:
        with suppress(OSError):
            os.unlink(path)
        raise


def _has_reserved(fd: int, size: int) -> bool:
    """Reserve room where system, C library and file system can do so without writing it."""
    if not hasattr(os, "posix_fallocate"):
        return False
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno in _CANNOT_RESERVE:
            return False
        raise
    return True


def read_at(fd: int, size: int, offset: int) -> bytes:
    """Return at most `size` bytes of a file from `offset` on."""
    if hasattr(os, "pread"):
        return bytes(os.pread(fd, size, offset))
    os.lseek(fd, offset, os.SEEK_SET)
    return bytes(os.read(fd, size))


can_read_pieces = hasattr(os, "preadv")
"""Whether `read_pieces_at` is to be had; it moves no position, so that threads share a file."""


def read_pieces_at(fd: int, pieces: Sequence[memoryview], offset: int) -> int:
    """Read a file from `offset` on into memories, one after the other; return how many bytes."""
    return int(os.preadv(fd, pieces, offset))


def write_at(fd: int, content: bytes, offset: int) -> None:
    """Write bytes into a file from `offset` on."""
    if hasattr(os, "pwrite"):
        os.pwrite(fd, content, offset)
        return
    os.lseek(fd, offset, os.SEEK_SET)
    os.write(fd, content)


can_lock = fcntl is not None or msvcrt is not None


def lock(fd: int, *, wait: bool = False, at: int = _LOCKED_BYTE) -> bool:
    """Lock a file for this process; the system drops the lock with the process, however it ends.

    Parameters
    ----------
    fd : int
    wait : bool
        Until whoever holds it lets go.
    at : int
        The byte that is locked where locks are of bytes (`lock_byte`); elsewhere all of the file.

    Returns
    -------
    bool
        False when another process holds it and `wait` is not asked for.

    Raises
    ------
    OSError
        If the file system has no locks.
    """
    while True:
        try:
            _lock(fd, wait, at)
        except OSError as error:
            if error.errno not in _HELD:
                raise
            if not wait:
                return False
            time.sleep(_LOCK_PAUSE_S)
        else:
            return True


def _lock(fd: int, wait: bool, at: int) -> None:
    if fcntl is not None:
        fcntl.lockf(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        os.lseek(fd, at, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    else:
        raise OSError(errno.ENOTSUP, "this system has no file locks")


def unlock(fd: int, *, at: int = _LOCKED_BYTE) -> None:
    """Give a lock back."""
    if fcntl is not None:
        fcntl.lockf(fd, fcntl.LOCK_UN)
    elif msvcrt is not None:
        os.lseek(fd, at, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)


def lock_file(*, own: bool = False) -> int:
    """Return a descriptor to lock.

    Parameters
    ----------
    own : bool
        Of a file without a name, which only those have to whom the descriptor is handed on. Else
        of the one that all processes of the user lock, each lock at a `lock_byte` of its own. It
        stays, empty: Windows opens no file for anybody any more once one of those who wanted it
        deleted with their handle has closed that, though others have it open.
    """
    if own:
        with tempfile.TemporaryFile() as file:
            return int(os.dup(file.fileno()))
    path = Path(tempfile.gettempdir(), f"radiobject-{user_code()}.lock")
    return open_private(path)


def lock_byte(name: str) -> int:
    """Return the byte that a lock of this name has in the file that all locks have in common."""
    code = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return _LOCKED_BYTE + 1 + code % (_LAST_LOCKED_BYTE - _LOCKED_BYTE)


@contextmanager
def folder_lock(folder: str | Path, patience_s: float) -> Iterator[None]:
    """Hold the lock of a folder that always exists, or go on without it after a while.

    Where the file system has no locks, it goes on at once. The lock is on the folder itself where
    it can be opened, and else on the file that the locks of the user have in common.
    """
    take: Callable[[int], bool]
    if hasattr(os, "O_DIRECTORY"):
        fd, take = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _ALWAYS), _lock_folder
    else:
        fd, take = lock_file(), partial(lock, at=lock_byte(str(folder)))
    try:
        deadline = time.monotonic() + patience_s
        with suppress(OSError):
            while can_lock and not take(fd) and time.monotonic() < deadline:
                time.sleep(_LOCK_PAUSE_S)
        yield
    finally:
        os.close(fd)


def _lock_folder(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def replace(source: str | Path, target: str | Path) -> None:
    """Give a file the name of another, which is gone then, in one step that a crash cannot halve.

    Raises
    ------
    StorageError
        If another program keeps the target open, on a system where that forbids it.
    OSError
        For any other reason.
    """
    _patiently(lambda: os.replace(source, target), target)


def rename(source: str | Path, target: str | Path) -> None:
    """Give a file or a folder a name that nothing has, in one step.

    Raises
    ------
    StorageError
        If another program keeps a file of it open, on a system where that forbids it.
    OSError
        For any other reason.
    """
    _patiently(lambda: os.rename(source, target), source)


def remove_file(path: str | Path) -> None:
    """Delete a file if it is there.

    Raises
    ------
    StorageError
        If another program keeps it open, on a system where that forbids it.
    """
    with suppress(FileNotFoundError):
        _patiently(lambda: os.unlink(path), path)


def remove_tree(path: str | Path) -> None:
    """Delete a folder and what it holds.

    Raises
    ------
    StorageError
        If another program keeps a file of it open, on a system where that forbids it.
    """
    _patiently(lambda: shutil.rmtree(path), path)


def remove_empty_folder(path: str | Path) -> None:
    """Delete a folder that nothing is in.

    Raises
    ------
    StorageError
        If another program keeps it, or what was just deleted in it, open.
    OSError
        If something is in it.
    """
    _patiently(lambda: os.rmdir(path), path)


def discard_tree(path: str | Path) -> None:
    """Delete a folder that nobody needs any more; what cannot be deleted stays."""
    try:
        remove_tree(path)
    except (OSError, StorageError):
        shutil.rmtree(path, ignore_errors=True)


def _patiently(act: Callable[[], T], path: str | Path) -> T:
    for wait_s in (*_WAITS_S, None):
        try:
            return act()
        except OSError as error:
            if getattr(error, "winerror", None) not in _SHARING:
                raise
            if wait_s is None:
                raise StorageError(
                    f"{path} is open in another program, or protected against writing, and cannot "
                    "be replaced, renamed or deleted; close that program, or try again"
                ) from error
            time.sleep(wait_s)
    raise AssertionError("unreachable")


@contextmanager
def written_whole(target: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a path to write a file to, which then has the name `target`, whole or not at all.

    Parameters
    ----------
    target : str or Path
        What lay there stays until the block ends without an error. The unfinished file lies
        beside it under a hidden name; see `remove_unfinished`.
    durable : bool
        Wait until the file has reached the disk, so that not even a power cut halves it.

    Raises
    ------
    StorageError
        If another program keeps the target open, on a system where that forbids it.
    """
    target = Path(target)
    begun = f"{os.getpid()}-{uuid.uuid4().hex[:8]}.part"
    part = target.with_name(f".{shortened(target.name)}.{begun}")
    try:
        yield part
        if durable:
            with open(part, "rb+") as file:
                _sync(file.fileno())
        replace(part, target)
        if durable:
            sync_folder(target.parent)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def shortened(name: str) -> str:
    """Return the beginning of a file name, so short that something can be added to it.

    Systems count a name's bytes, of which a letter may have four.
    """
    return os.fsencode(name)[:_NAME_BYTES].decode("utf-8", "ignore")


def _sync(fd: int) -> None:
    """Wait until a file has reached the disk, and not only the memory that the disk has itself."""
    if hasattr(fcntl, "F_FULLFSYNC"):  # without it, a Mac's disk may write in another order
        with suppress(OSError):  # a share that has no such thing
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def remove_unfinished(folder: str | Path) -> int:
    """Remove what killed processes of this machine began with `written_whole`; return how many."""
    removed = 0
    for entry in os.scandir(folder):
        begun = _UNFINISHED.fullmatch(entry.name)
        if begun is not None and not start_time(int(begun.group(1))):
            with suppress(OSError):
                os.unlink(entry.path)
                removed += 1
    return removed


def sync_folder(folder: str | Path) -> None:
    """Make the names in a folder survive a power cut, where a folder can be opened for that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a share that has no such thing
            raise
    finally:
        os.close(fd)


def give_name(source: str | Path, target: str | Path) -> None:
    """Let a file be found at a second path, by whatever the system and its disks have for that.

    A link to it; where the user may make none (Windows), a second name; on another disk, a copy.

    Raises
    ------
    OSError
        If there is no room, or the source cannot be read.
    """
    for make in (os.symlink, os.link):
        with suppress(OSError):
            make(source, target)
            return
    shutil.copyfile(source, target)


def hard_link(source: str | Path, target: str | Path) -> None:
    """Give a file a second name.

    Raises
    ------
    OSError
        If the file system has no such thing.
    """
    os.link(source, target)


def open_file_limit() -> int:
    """Return how many files this process may have open."""
    if resource is None:
        return _OPEN_FILES
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else int(limit)


_PORTS = (f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³")
DEVICE_NAMES = frozenset(("con", "prn", "aux", "nul", "conin$", "conout$", *_PORTS))
"""File names that Windows keeps for devices, whatever suffix follows them."""

_JUNCTION = 0xA0000003
_LONGEST_PATH = 4096
"""With the NUL at its end."""
_LONGEST_WINDOWS_PATH = 259
_FILE_SYSTEM_KEY = r"SYSTEM\CurrentControlSet\Control\FileSystem"


def path_length(path: str) -> int:
    """Return how long a path is as this system counts: in bytes, or Windows in UTF-16's units."""
    if winreg is None:
        return len(os.fsencode(path))
    return len(path.encode("utf-16-le", "surrogatepass")) // 2


def longest_path() -> tuple[int, str]:
    """Return how long a path may be on this system (see `path_length`), and how to allow more."""
    if winreg is None:
        longest = _LONGEST_PATH
        with suppress(AttributeError, OSError, ValueError):
            longest = os.pathconf("/", "PC_PATH_MAX")  # 1,024 on a Mac
        return longest - 1, ""
    with suppress(OSError), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _FILE_SYSTEM_KEY) as key:
        if winreg.QueryValueEx(key, "LongPathsEnabled")[0]:
            return 8 * _LONGEST_PATH - 1, ""
    return _LONGEST_WINDOWS_PATH, ", or allow long paths in Windows (LongPathsEnabled)"
