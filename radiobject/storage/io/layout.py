"""Where everything of a data set lies: one function per name."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain, count
from pathlib import Path

from radiobject._types import OBS_ID as OBS_ID
from radiobject._types import OBS_IDS as OBS_IDS
from radiobject._types import SUBJECT_ID as SUBJECT_ID
from radiobject.addresses import is_local, local_path, with_home
from radiobject.exceptions import ConfigurationError, IntegrityError, SchemaError, StorageError
from radiobject.system.files import DEVICE_NAMES, is_link, longest_path, path_length

FORMAT_VERSION = 3
"""Version of the layout that this library writes.

2 is 0.2.0's, whose commits record no digests of table files, and 1 that of the published 0.1.x.
"""

OBS_META = "obs_meta"
OBS = "obs"
COLLECTIONS = "collections"
VOLUMES = "volumes"
TILE_INDEX = "tile_index"
LABEL_INDEX = "label_index"
INTENSITY_INDEX = "intensity_index"
DERIVED = (LABEL_INDEX, INTENSITY_INDEX)
"""Tables that readers write, without a commit: what they say can be made again from the voxels."""
OWN_FOLDER = ".radiobject"
DIGESTS = f"{OWN_FOLDER}/digests"
"""Below a table: seals of fragments without a commit, and packs."""
LOCK = f"{OWN_FOLDER}/lock"
"""Below a folder, as TileDB opens every file that lies beside a group's own."""
STAND_INS = f"{OWN_FOLDER}/aside"
"""Below an object: where its metadata and schemas are written before they are moved into place."""
VOXELS_ATTR = "voxels"
TO_ROOT = "../.."
"""The data set as seen from a collection of its own."""

ARRAY_FORM = r"(?:[A-Za-z0-9._-]{1,80}-)?[0-9a-f]{12}\.[1-9a-f][0-9a-f]{0,15}"
"""Names that `array_name` gives."""
_ARRAY_NAME = re.compile(ARRAY_FORM)
_PLACE = re.compile(rf"{COLLECTIONS}/(?!\.\.?$)[^/\0]+")
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,80}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_READABLE_LENGTH = 80
_ID_BYTES = 4096
_LONGEST_INSIDE = 180
"""Characters of the longest path below a data set whose names are not themselves long."""


def normalise_uri(uri: object) -> str:
    """Return `uri` as TileDB takes it: absolute for a local path, without a trailing slash.

    Slashes part the names of a path on every system, so that what is below it is found the same
    way. A ``file:`` address becomes the path that it names.

    Raises
    ------
    TypeError
        If `uri` is neither a string nor a path.
    ValueError
        If it is empty, a ``file:`` address of another machine, of a kind that stores nothing, or a
        path with bytes that are no UTF-8.
    """
    if isinstance(uri, Path):
        uri = str(uri)
    if not isinstance(uri, str):
        raise TypeError(f"a URI is a string or a path, got {type(uri).__name__} {uri!r}")
    if not uri.strip():
        raise ValueError("the URI is empty; give a folder or s3://bucket/name")
    if not is_local(uri):
        return _known_kind(uri).rstrip("/")
    given = with_home(local_path(uri))
    if given.startswith("~") and not os.path.lexists(given):
        raise ConfigurationError(
            f"{uri!r} begins with the home folder of a user whom this system does not know; give "
            f"the whole path, or ./{given} for a folder of that name"
        )
    place = Path(given).absolute().as_posix()
    refuse_other_bytes(place)
    return place


def refuse_other_bytes(place: str) -> None:
    """Raise a `ConfigurationError` if TileDB would look for a local path elsewhere than Python.

    TileDB takes paths in UTF-8, and Python in the encoding of the locale.
    """
    with suppress(UnicodeEncodeError):
        if place.encode() == os.fsencode(place):
            return
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        raise ConfigurationError(
            f"{place!a} has other bytes in this locale's encoding {encoding} than in UTF-8, in "
            "which TileDB takes paths; set PYTHONUTF8=1, or a locale with UTF-8"
        )
    raise ConfigurationError(
        f"{place} holds bytes that are no UTF-8, in which TileDB takes paths; rename the folder"
    )


REMOTE_KINDS = ("s3", "gs", "gcs", "azure")


def _known_kind(uri: str) -> str:
    """Return a remote `uri` with its scheme in small letters; refuse what no host stores.

    libtiledb would take other schemes for other things: a catalogue in its makers' cloud, a web
    server that cannot list what it has.
    """
    scheme, _, rest = uri.partition("://")
    if scheme.lower() not in REMOTE_KINDS:
        raise ConfigurationError(
            f"{uri!r} is a {scheme}: address, which holds no data set; give a folder, "
            "s3://bucket/name, gs://bucket/name or azure://container/name, and download files of "
            "the web first"
        )
    if "?" in rest:
        # What follows is no part of the name to libtiledb, and is to others.
        raise ConfigurationError(f"{uri!r} holds a '?', which no address of a data set may have")
    return f"{scheme.lower()}://{rest}"


def join(uri: str, *parts: str) -> str:
    """Return the URI of something below `uri`."""
    return "/".join((uri.rstrip("/"), *parts))


def parent(uri: str) -> str:
    """Return the URI that holds `uri`."""
    return uri.rstrip("/").rsplit("/", 1)[0]


def located(root: str, place: str) -> str:
    """Return where a collection is that the data set at `root` says it has at `place`.

    Raises
    ------
    IntegrityError
        If that is not a folder of its own collections: a path of another form, or a link that
        leads out of the data set.
    """
    if not isinstance(place, str) or not _PLACE.fullmatch(place):
        raise IntegrityError(
            f"the data set at {root} says that a collection lies at {place!r}, which is not in "
            f"its folder {COLLECTIONS!r}; it was altered, restore it from a copy"
        )
    uri = join(root, place)
    if is_local(uri) and is_link(uri):
        folder = os.path.realpath(root)
        target = os.path.realpath(uri)
        if not target.startswith(f"{folder}{os.sep}"):
            raise IntegrityError(
                f"{uri} is a link to {target}, outside the data set; nothing there is read or "
                "removed. Add that collection with RadiObject.add_collection instead"
            )
    return uri


def refuse_linked_volume(uri: str) -> None:
    """Raise an `IntegrityError` if `uri` is a link among a collection's volumes.

    The folder of the volumes may be one, to larger disks; what it holds is the data set's own.
    """
    if is_local(uri) and base_name(parent(uri)) == VOLUMES and is_link(uri):
        raise IntegrityError(
            f"{uri} is a link to {os.path.realpath(uri)}, where a volume of the data set should "
            "be; restore the volume from a copy"
        )


def owning_root(collection_uri: str, owner: object) -> str:
    """Return the data set of a collection whose group names its `owner`.

    Raises
    ------
    IntegrityError
        If it names anything but the data set that it lies in.
    """
    if owner != TO_ROOT:
        raise IntegrityError(
            f"the collection at {collection_uri} says that it belongs to {owner!r}, expected "
            f"{TO_ROOT!r}; it was altered, restore it from a copy"
        )
    return parent(parent(collection_uri))


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
        encoding = sys.getfilesystemencoding()
        hint = "" if encoding == "utf-8" else (
            f"; this locale's encoding {encoding} cannot read the names of files that hold other "
            "letters: set PYTHONUTF8=1, or a locale with UTF-8"
        )  # fmt: skip
        raise SchemaError(f"{what} is not valid Unicode: {value!r}{hint}") from None
    if size > _ID_BYTES:
        raise SchemaError(f"{what} has {size} bytes, more than {_ID_BYTES}: {value[:40]!r}...")
    return value


def safe_name(identifier: str, attempt: str = "") -> str:
    """Return a file name for any identifier: readable, bounded, and different for different ones.

    The digest keeps apart what the readable part cannot: slashes, other scripts, long tails, and
    names that differ only by case on a file system that ignores it.
    """
    readable = _UNSAFE.sub("_", identifier).strip(".")[:_READABLE_LENGTH]
    if readable.split(".")[0].casefold() in DEVICE_NAMES:  # one, to Windows, whatever follows a dot
        readable = readable.replace(".", "_")
    digest = hashlib.sha256(f"{identifier}{attempt}".encode()).hexdigest()[:12]
    return f"{readable}-{digest}" if readable else digest


def array_name(obs_id: str, timestamp: int, attempt: str = "") -> str:
    """Return the name of the array that holds volume `obs_id` written by commit `timestamp`.

    The commit is part of the name, so a volume that was deleted and added again never overwrites
    the one that older heads still read, and what an unfinished commit left is known by its name.
    Another `attempt` at the same write has a name of its own: who made the first may be alive yet.
    """
    return f"{safe_name(obs_id, attempt)}.{timestamp:x}"


def is_array_name(name: str) -> bool:
    """Return whether `name` has exactly the form that `array_name` gives."""
    return _ARRAY_NAME.fullmatch(name) is not None


def array_timestamp(name: str) -> int | None:
    """Return the commit that wrote the array called `name`, or None if the name is not ours."""
    return int(name.rpartition(".")[2], 16) if is_array_name(name) else None


def collection_directory(name: str, taken: Iterable[str] = ()) -> str:
    """Return a free directory for collection `name`: the name itself where it is a plain word.

    What some system cannot hold is no plain word: the data set may be copied there.
    A directory that an older state reads is never used again, so a name that was given up and
    given anew gets another one.
    """
    folded = {directory.casefold() for directory in taken} | DEVICE_NAMES
    if _PLAIN.fullmatch(name) and name.casefold() not in folded:
        return name
    escaped = safe_name(name)
    numbered = (f"{escaped}.{number}" for number in count(2))
    return next(d for d in chain([escaped], numbered) if d.casefold() not in folded)


def refuse_long(uri: str) -> None:
    """Raise a `StorageError` if files below a local `uri` would have paths too long to open."""
    longest, remedy = longest_path()
    if is_local(uri) and path_length(uri) + _LONGEST_INSIDE > longest:
        raise StorageError(
            f"{uri[:60]}... is a path of {len(uri)} characters; a data set needs about "
            f"{_LONGEST_INSIDE} more for its files, and paths here have at most {longest}: "
            f"choose a shorter one{remedy}"
        )
