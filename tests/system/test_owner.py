"""Nothing but `radiobject.system` asks what the system has."""

import ast

from imports import modules

MODULES = {"fcntl", "msvcrt", "resource", "pwd", "grp", "platform", "winreg", "posix", "nt"}
NAMES = {
    "os": {
        "O_BINARY", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_TEMPORARY", "SCHED_BATCH",
        "SEEK_DATA", "SEEK_HOLE", "chown", "fchmod", "fork", "getegid", "geteuid", "getgid",
        "getuid", "link", "memfd_create", "mkfifo", "name", "posix_fadvise", "posix_fallocate",
        "pread", "preadv", "pwrite", "register_at_fork", "rename", "replace",
        "sched_getaffinity", "sched_setaffinity", "sched_setscheduler", "statvfs", "sysconf",
        "uname",
    },
    "socket": {"AF_UNIX", "SO_EXCLUSIVEADDRUSE", "SO_REUSEADDR", "SO_REUSEPORT"},
    "sys": {"platform", "getwindowsversion"},
    "ctypes": {"CDLL", "WinDLL", "windll"},
}  # fmt: skip
PREFIXES = {"mmap": ("MAP_", "MADV_", "PROT_"), "os": ("MFD_",)}
ELSEWHERE = {"radiobject.ml.device.driver"}
"""Loads the driver of a graphics card, which is none of these."""
FILES = ("/proc/", "/sys/", "/dev/shm")


def _asks(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            if node.module in MODULES:
                yield str(node.module)
            yield from (
                f"{node.module}.{a.name}"
                for a in node.names
                if a.name in NAMES.get(str(node.module), ())
            )
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner, name = node.value.id, node.attr
            if name in NAMES.get(owner, ()) or name.startswith(PREFIXES.get(owner, ("\0",))):
                yield f"{owner}.{name}"
        elif isinstance(node, ast.Attribute) and node.attr in ("st_uid", "st_gid"):
            yield node.attr
        elif isinstance(node, ast.BinOp) and getattr(node.left, "attr", "") == "st_mode":
            yield "st_mode"
        elif isinstance(node, ast.Constant) and str(node.value).startswith(FILES):
            yield str(node.value)


def test_what_differs_between_systems_has_one_owner():
    asked = {
        module: sorted(set(found))
        for module, path in modules("radiobject").items()
        if not module.startswith("radiobject.system")
        and module not in ELSEWHERE
        and (found := list(_asks(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert asked == {}


def test_the_search_finds_what_it_looks_for():
    lines = ("import fcntl", "from os import pread", "os.replace(a, b)", "x = '/proc/self'")
    lines += ("s.st_mode & 0o77", "mmap.MAP_PRIVATE")
    found = sorted(_asks(ast.parse("\n".join(lines))))
    expected = ["/proc/self", "fcntl", "mmap.MAP_PRIVATE", "os.pread", "os.replace", "st_mode"]
    assert found == expected
