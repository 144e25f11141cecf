"""Nothing but `radiobject.system` asks what the system has."""

import ast

import pytest
from imports import modules

MODULES = {"fcntl", "msvcrt", "resource", "pwd", "grp", "platform", "winreg", "posix", "nt"}
NAMES = {
    "os": {
        "O_BINARY", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_TEMPORARY", "SCHED_BATCH",
        "SEEK_DATA", "SEEK_HOLE", "chown", "fchmod", "fork", "getegid", "geteuid", "getgid",
        "getuid", "link", "memfd_create", "mkfifo", "name", "posix_fadvise", "posix_fallocate",
        "pread", "preadv", "pwrite", "register_at_fork", "rename", "replace",
        "sched_getaffinity", "sched_setaffinity", "sched_setscheduler", "statvfs", "symlink",
        "sysconf", "uname",
    },
    "socket": {"AF_UNIX", "SO_EXCLUSIVEADDRUSE", "SO_REUSEADDR", "SO_REUSEPORT"},
    "sys": {"platform", "getwindowsversion"},
    "ctypes": {"CDLL", "WinDLL", "windll"},
}  # fmt: skip
PREFIXES = {"mmap": ("MAP_", "MADV_", "PROT_"), "os": ("MFD_",)}
ELSEWHERE = {"radiobject.ml.device.driver", "radiobject.ml.device.nvcomp"}
"""Load the driver of a graphics card and its library, which are none of these."""
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
        elif isinstance(node, ast.Attribute) and node.attr in ("st_uid", "st_gid", "symlink_to"):
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
    assert list(_slashes(ast.parse("f'{os.path.realpath(a)}/{b}'")))
    for line in ("open(p)", "open(p, 'a')", "p.open('w')", "p.read_text()", "p.write_text(t)"):
        assert list(_without_encoding(ast.parse(line))), line
    for line in ("open(p, 'rb')", "v.open(u, 'rb')", "tiledb.open(u, 'r')", "p.read_text('utf-8')"):
        assert not list(_without_encoding(ast.parse(line))), line
    found = sorted(_asks(ast.parse("\n".join(lines))))
    expected = ["/proc/self", "fcntl", "mmap.MAP_PRIVATE", "os.pread", "os.replace", "st_mode"]
    assert found == expected


PATHS = {"realpath", "abspath", "normpath", "relpath", "commonpath", "resolve", "absolute"}
TEXT = {"open": 1, "read_text": 0, "write_text": 1, "fdopen": 1}


def _called(node):
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _slashes(tree):
    """Yield strings that put a path of the system together with slashes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part for part in ast.walk(node) if isinstance(part, ast.Call)]
            slash = any("/" in str(part.value) for part in node.values if hasattr(part, "value"))
            if slash and any(_called(part) in PATHS for part in parts):
                yield ast.unparse(node)


def _without_encoding(tree):
    """Yield calls that read or write text in whatever encoding the system has."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or _called(node) not in TEXT:
            continue
        words = {word.arg for word in node.keywords}
        at = TEXT[_called(node)]
        modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
        modes += [w.value.value for w in node.keywords if w.arg == "mode"]
        binary = any(isinstance(mode, str) and "b" in mode for mode in modes)
        if "encoding" in words or (_called(node) in ("open", "fdopen") and binary):
            continue
        if _called(node) == "read_text" and node.args:  # the encoding
            continue
        if _called(node) == "open" and not _opens_text(node):
            continue
        if len(node.args) >= at:
            yield ast.unparse(node)


def _opens_text(node):
    """Return whether it is the function of that name, or a method told how to open a text."""
    if isinstance(node.func, ast.Name) or not (node.args or node.keywords):
        return True
    first = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
    return isinstance(first, str) and bool(first) and set(first) <= set("rwxat+")


@pytest.mark.parametrize("look", [_slashes, _without_encoding])
def test_no_separator_and_no_encoding_of_a_system_is_assumed(look):
    found = {}
    for module, path in modules("radiobject").items():
        if said := list(look(ast.parse(path.read_text(encoding="utf-8")))):
            found[module] = said
    assert found == {}
