"""Where everything of a data set lies: one function per name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from itertools import chain, count
from pathlib import Path

from radiobject.addresses import is_absolute, is_local, local_path
from radiobject.exceptions import SchemaError

FORMAT_VERSION = 2
"""Version of the layout that this library writes; 1 is the published 0.1.x."""

OBS_META = "obs_meta"
OBS = "obs"
COLLECTIONS = "collections"
VOLUMES = "volumes"
TILE_INDEX = "tile_index"
LABEL_INDEX = "label_index"
OWN_FOLDER = ".radiobject"
LOCK = f"{OWN_FOLDER}/lock"
"""Below a folder, as TileDB opens every file that lies beside a group's own."""
VOXELS_ATTR = "voxels"
SUBJECT_ID = "obs_subject_id"
OBS_ID = "obs_id"
OBS_IDS = "obs_ids"
"""System column of obs_meta: JSON list of the subject's volume ids, sorted."""
TO_ROOT = "../.."
"""The data set as seen from a collection of its own."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,80}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_READABLE_LENGTH = 80
_ID_BYTES = 4096


def normalise_uri(uri: object) -> str:
    """Return `uri` as TileDB takes it: absolute for a local path, without a trailing slash.

    Slashes part the names of a path on every system, so that what is below it is found the same
    way. A ``file:`` address becomes the path that it names.

    Raises
    ------
    TypeError
        If `uri` is neither a string nor a path.
    ValueError
        If it is empty, or a ``file:`` address of another machine.
    """
    if isinstance(uri, Path):
        uri = str(uri)
    if not isinstance(uri, str):
        raise TypeError(f"a URI is a string or a path, got {type(uri).__name__} {uri!r}")
    if not uri.strip():
        raise ValueError("the URI is empty; give a folder or s3://bucket/name")
    if not is_local(uri):
        return uri.rstrip("/")
    return Path(local_path(uri)).expanduser().absolute().as_posix()


def join(uri: str, *parts: str) -> str:
    """Return the URI of something below `uri`."""
    return "/".join((uri.rstrip("/"), *parts))


def parent(uri: str) -> str:
    """Return the URI that holds `uri`."""
    return uri.rstrip("/").rsplit("/", 1)[0]


def resolve(uri: str, relative: str) -> str:
    """Return where `relative`, as stored in the data set at `uri`, points to."""
    if is_absolute(relative):
        return relative
    while relative.startswith("../"):
        uri, relative = parent(uri), relative[3:]
    return parent(uri) if relative == ".." else join(uri, relative)


def located(root: str, place: str) -> str:
    """Return where a collection is that the data set at `root` has at `place`."""
    return place if is_absolute(place) else join(root, place)


def base_name(uri: str) -> str:
    """Return the last part of `uri`."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


def checked_id(value: object, what: str) -> str:
    """Return `value` if it can be an identifier of a volume, a subject or a collection.

    Raises
    ------
    SchemaError
        If it is not a string, is empty, holds a NUL or a lone surrogate, or is over 4096 bytes.
    """
    if not isinstance(value, str):
        raise SchemaError(f"{what} must be a string, got {type(value).__name__} {value!r}")
    if not value or "\0" in value:
        raise SchemaError(f"{what} must be non-empty and without NUL, got {value!r}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise SchemaError(f"{what} is not valid Unicode: {value!r}") from None
    if size > _ID_BYTES:
        raise SchemaError(f"{what} has {size} bytes, more than {_ID_BYTES}: {value[:40]!r}...")
    return value


def safe_name(identifier: str) -> str:
    """Return a file name for any identifier: readable, bounded, and different for different ones.

    The digest keeps apart what the readable part cannot: slashes, other scripts, long tails, and
    names that differ only by case on a file system that ignores it.
    """
    readable = _UNSAFE.sub("_", identifier).strip(".")[:_READABLE_LENGTH]
    digest = hashlib.sha256(identifier.encode()).hexdigest()[:12]
    return f"{readable}-{digest}" if readable else digest


def array_name(obs_id: str, timestamp: int) -> str:
    """Return the name of the array that holds volume `obs_id` written by commit `timestamp`.

    The commit is part of the name, so a volume that was deleted and added again never overwrites
    the one that older heads still read, and what an unfinished commit left is known by its name.
    """
    return f"{safe_name(obs_id)}.{timestamp:x}"


def array_timestamp(name: str) -> int | None:
    """Return the commit that wrote the array called `name`, or None if the name is not ours."""
    head, dot, tail = name.rpartition(".")
    if not dot or not head:
        return None
    try:
        return int(tail, 16)
    except ValueError:
        return None


def collection_directory(name: str, taken: Iterable[str] = ()) -> str:
    """Return a free directory for collection `name`: the name itself where it is a plain word.

    A directory that an older state reads is never used again, so a name that was given up and
    given anew gets another one.
    """
    folded = {directory.casefold() for directory in taken}
    if _PLAIN.fullmatch(name) and name.casefold() not in folded:
        return name
    escaped = safe_name(name)
    numbered = (f"{escaped}.{number}" for number in count(2))
    return next(d for d in chain([escaped], numbered) if d.casefold() not in folded)
