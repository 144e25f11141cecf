"""A system that lacks what Windows or macOS lacks, made by hiding it from the library.

What the library imports is filtered: modules are gone, names of `os`, `mmap` and `fcntl` are gone,
``/proc`` and ``/sys`` do not exist. What such a system has instead is imitated: locks of `msvcrt`,
sections of memory found by name, files that cannot be deleted while they are open. Other packages
see the system as it is. This is no Windows and no Mac: paths, the console and C libraries are
those of Linux.
"""

import builtins
import fcntl
import hashlib
import importlib
import mmap
import multiprocessing
import os
import pathlib
import shutil
import struct
import sys
import types

_LINUX_OS = {
    "memfd_create",
    "MFD_CLOEXEC",
    "MFD_ALLOW_SEALING",
    "sched_getaffinity",
    "sched_setscheduler",
    "sched_param",
    "SCHED_BATCH",
    "posix_fallocate",
    "posix_fadvise",
    "SEEK_DATA",
    "SEEK_HOLE",
}
_UNIX_OS = {
    "register_at_fork",
    "fork",
    "getuid",
    "geteuid",
    "getgid",
    "pread",
    "preadv",
    "pwrite",
    "fchmod",
    "chown",
    "statvfs",
    "mkfifo",
    "sysconf",
    "O_NOFOLLOW",
    "O_DIRECTORY",
    "O_CLOEXEC",
    "O_NONBLOCK",
}
_LINUX_MMAP = {"MADV_REMOVE", "MADV_HUGEPAGE", "MAP_POPULATE", "MAP_NORESERVE"}
_UNIX_MMAP = {name for name in dir(mmap) if name.startswith(("MAP_", "MADV_", "PROT_"))}
_SEALS = {name for name in dir(fcntl) if "SEAL" in name}
_TEMPORARY = 1 << 28
_SHARING_VIOLATION, _NO_PRIVILEGE = 32, 1314
_LONGEST_LOCKED = (1 << 31) - 1


class _Part(types.ModuleType):
    """A module without some of its names, and with others."""

    def __init__(self, real, hidden, extra=()):
        super().__init__(real.__name__)
        self._real, self._hidden, self._extra = real, frozenset(hidden), dict(extra)

    def __getattr__(self, name):
        if name in self._hidden:
            raise AttributeError(f"this world's {self.__name__} has no {name}")
        if name in self._extra:
            return self._extra[name]
        return getattr(self._real, name)


def install(name):
    """Hide what the named system lacks from all that the library imports from now on."""
    windows = name == "windows"
    absent = {"fcntl", "resource", "pwd", "grp", "termios", "_posixshmem"} if windows else set()
    if windows:
        given = {
            "os": _Part(os, _LINUX_OS | _UNIX_OS, _windows_os()),
            "mmap": _Part(mmap, _UNIX_MMAP, {"mmap": _Section}),
            "msvcrt": _msvcrt(),
        }
    else:
        given = {
            "os": _Part(os, _LINUX_OS),
            "mmap": _Part(mmap, _LINUX_MMAP),
            "fcntl": _Part(fcntl, _SEALS),
        }
    _filter_imports(absent, given)
    _hide_system_files()
    _start_by("spawn", ["spawn"] if windows else ["spawn", "fork", "forkserver"])
    if windows:
        _forbid_deletion_of_open_files()
        _forbid_links()
        os.fork = _skip


def _is_ours(frame_globals):
    return str((frame_globals or {}).get("__name__", "")).split(".")[0] == "radiobject"


def _filter_imports(absent, given):
    plain_import, plain_module = builtins.__import__, importlib.import_module

    def filtered(name, globals=None, locals=None, fromlist=(), level=0):
        if level == 0 and _is_ours(globals):
            if name in absent:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name in given:
                return given[name]
        return plain_import(name, globals, locals, fromlist, level)

    def filtered_module(name, package=None):
        if _is_ours(sys._getframe(1).f_globals):
            if name in absent:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name in given:
                return given[name]
        return plain_module(name, package)

    builtins.__import__, importlib.import_module = filtered, filtered_module


def _hide_system_files():
    def hiding(method, absent):
        plain = getattr(pathlib.Path, method)

        def asked(self, *arguments, **named):
            if str(self).startswith(("/proc", "/sys")) and _is_ours(sys._getframe(1).f_globals):
                return absent(self)
            return plain(self, *arguments, **named)

        setattr(pathlib.Path, method, asked)

    def missing(path):
        raise FileNotFoundError(2, "No such file or directory", str(path))

    for method in ("read_text", "read_bytes", "stat", "open"):
        hiding(method, missing)
    for method in ("exists", "is_dir", "is_file"):
        hiding(method, lambda path: False)


def _start_by(default, methods):
    multiprocessing.set_start_method(default)
    plain = multiprocessing.get_context

    def of_this_world(method=None):
        if method is not None and method not in methods:
            raise ValueError(f"cannot find context for {method!r}")
        return plain(method)

    multiprocessing.get_all_start_methods = lambda: list(methods)
    multiprocessing.get_context = of_this_world


def _skip():
    """End a test that forks by itself, which no test can do there."""
    import pytest

    pytest.skip("Windows has no fork")


def _refused(path, code):
    error = PermissionError(13, "refused", str(path))
    error.winerror = code
    return error


def _windows_os():
    """Files that go with a handle: nobody opens them once one such handle is closed."""
    temporary = {}

    def open_(path, flags, mode=0o777, **named):
        if os.path.exists(f"{path}.closed"):
            raise _refused(path, 5)
        fd = os.open(path, flags & ~_TEMPORARY | os.O_CLOEXEC, mode, **named)
        if flags & _TEMPORARY:
            temporary[fd] = path
        return fd

    def close(fd):
        os.close(fd)
        if fd in temporary:
            pathlib.Path(f"{temporary.pop(fd)}.closed").touch()

    given = {"open": open_, "close": close, "O_TEMPORARY": _TEMPORARY}
    return given | {"O_BINARY": 0, "O_NOINHERIT": 0}


def _msvcrt():
    """Locks as Windows has them: of a range from the file's position, held by its handle."""
    module = types.ModuleType("msvcrt")
    module.LK_NBLCK, module.LK_UNLCK = 2, 0

    def locking(fd, mode, nbytes):
        start = os.lseek(fd, 0, os.SEEK_CUR)
        if start > _LONGEST_LOCKED:
            raise OSError(22, "the C library's positions have 32 bits")
        kind = fcntl.F_UNLCK if mode == module.LK_UNLCK else fcntl.F_WRLCK
        # Linux' locks of an open file, whose structure is that of a 64-bit system.
        span = struct.pack("hhxxxxqqixxxx", kind, os.SEEK_SET, start, nbytes, 0)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, span)

    module.locking = locking
    return module


class _Section(mmap.mmap):
    """Memory that processes find by name, as far as a file can imitate it; no flags."""

    def __new__(cls, fileno, length, tagname=None, access=mmap.ACCESS_DEFAULT, offset=0):
        if tagname is None:
            if fileno == -1:
                return super().__new__(cls, -1, length)
            return super().__new__(cls, fileno, length, access=access, offset=offset)
        if not tagname.startswith("Local\\"):
            raise PermissionError(13, "only an administrator makes a global section")
        name = hashlib.sha256(tagname.encode()).hexdigest()
        path = pathlib.Path(os.environ["RADIOBJECT_WORLD_SECTIONS"], name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(fd).st_size == 0:
                os.ftruncate(fd, length)
            if os.fstat(fd).st_size < length:
                raise PermissionError(13, "the section is smaller")
            return super().__new__(cls, fd, length)
        finally:
            os.close(fd)


def _forbid_links():
    """Refuse the library symbolic links, which take a privilege there."""
    plain = os.symlink

    def symlink(source, target, *arguments, **named):
        for level in (1, 2):  # itself, or through a method of a path
            if _is_ours(sys._getframe(level).f_globals):
                raise _refused(target, _NO_PRIVILEGE)
        plain(source, target, *arguments, **named)

    os.symlink = symlink


def _forbid_deletion_of_open_files():
    shutil._use_fd_functions = False  # Windows has none: trees are removed by path

    def refusing(name, place):
        plain = getattr(os, name)

        def act(*arguments, **named):
            path = os.path.realpath(arguments[place])
            if named.get("dir_fd") is None and _is_open(path):
                raise _refused(arguments[place], _SHARING_VIOLATION)
            return plain(*arguments, **named)

        setattr(os, name, act)

    for name in ("unlink", "remove", "rename", "rmdir"):
        refusing(name, 0)
    refusing("replace", 1)


def _is_open(path):
    """Return whether this process has a file open or mapped, or one in that folder."""
    held = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            held.add(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        held.update(line[73:].rstrip("\n") for line in maps if "/" in line)
    return any(one == path or one.startswith(f"{path}/") for one in held)
