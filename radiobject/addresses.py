"""What an address names: a path of this machine, or something in an object store.

A local address is a path or a ``file:`` address as RFC 8089 has it, with its characters escaped;
a drive's letter is no scheme. Anything else with a scheme and ``//`` is remote.
"""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

from radiobject.exceptions import ConfigurationError

_REMOTE = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+://", re.IGNORECASE).match
_FILE = re.compile(r"file:(?://([^/]*))?(/(?!/).*)", re.IGNORECASE | re.DOTALL).fullmatch
_DRIVE = re.compile(r"[A-Za-z]:[\\/]").match
_VERBATIM = re.compile(r"[\\/]{2}\?[\\/](?:(UNC)[\\/]|(?=[A-Z]:))", re.IGNORECASE).match
HAS_DRIVES = bool(os.path.splitdrive("C:/x")[0])


def is_remote(uri: str) -> bool:
    """Return whether `uri` names an object store and not a local path."""
    return _REMOTE(uri) is not None


def is_local(uri: str) -> bool:
    """Return whether `uri` is a path of this machine, or a ``file:`` address of one."""
    return _REMOTE(uri) is None


def is_absolute(place: str) -> bool:
    """Return whether `place` needs nothing before it: remote, or a path from a root or a drive."""
    return place.startswith(("/", "\\\\")) or is_remote(place) or _DRIVE(place) is not None


def with_home(path: str | os.PathLike[str]) -> str:
    """Return a path in which ``~`` at its beginning is the home folder, if that is known.

    A shell puts it in only where a word begins with it, not in ``NAME=~/scans``.
    """
    return os.path.expanduser(os.fspath(path))


def local_path(uri: str, *, drives: bool = HAS_DRIVES) -> str:
    """Return the path that a local `uri` names.

    Parameters
    ----------
    uri : str
        A path, which is returned as it is but for the ``\\\\?\\`` of Windows, which TileDB does not
        know, or a ``file:`` address.
    drives : bool
        Whether paths begin with the letter of a drive, as this system's may.

    Raises
    ------
    ConfigurationError
        If it is a ``file:`` address of another machine, or not of an absolute path.
    """
    if uri[:5].lower() != "file:":
        found = _VERBATIM(uri) if drives else None
        if found is None:
            return uri
        return f"{'//' if found[1] else ''}{uri[found.end() :]}"
    found = _FILE(uri)
    if found is None:
        # Without a slash it is a name like any other that holds a colon, unless // promised more.
        if not uri[5:].startswith("//"):
            return uri
        raise ConfigurationError(f"{uri!r} names no path; write file:///folder/name, or the path")
    host, path = found.groups()
    path = unquote(path)
    if drives and _DRIVE(path[1:]):
        path = path[1:]
    if (host or "").lower() in ("", "localhost"):
        return path
    if drives:
        return f"//{host}{path}"
    raise ConfigurationError(
        f"{uri!r} is a file of the machine {host!r}; write file:///folder/name, or mount that "
        "machine's folder and give its path"
    )
