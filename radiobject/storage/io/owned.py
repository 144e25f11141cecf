"""Removing what this library wrote, known by its name, and nothing else.

A data set's folder may hold links, other people's files and other data sets. Nothing is removed
because of where it lies alone: a file goes if its path below the object has exactly the form that
TileDB and this library give to files there. No link is followed, and none is removed.
"""

from __future__ import annotations

import os
import re

import tiledb

from radiobject.ctx import get_tiledb_ctx
from radiobject.exceptions import StorageError
from radiobject.storage.io import layout
from radiobject.storage.io import tiledb_names as tdb
from radiobject.system import files
from radiobject.system.files import UNFINISHED

_STAMP = tdb.STAMP
_FOLDERS = "|".join((
    tdb.COMMITS, tdb.SCHEMA, tdb.METADATA, tdb.FRAGMENT_METADATA_FOLDER, tdb.GROUP,
    tdb.LABELS,
))  # fmt: skip
_ALONE = "|".join(map(re.escape, (tdb.GROUP_MARK, tdb.OLDEST_SCHEMA, tdb.OLDEST_LOCK)))
_OBJECT = (
    rf"(?:(?:{_FOLDERS})/{_STAMP}(?:\.\w+)?|{tdb.FRAGMENTS}/{_STAMP}/\w+\.tdb"
    rf"|{tdb.SCHEMA}/{tdb.ENUMERATIONS}/\w+|{_ALONE})"
)
_HEX = r"[0-9a-f]{32}"
_RECORD = rf"{_STAMP}\.(?:json|pack)"
_PARTIAL = rf"{re.escape(layout.DIGESTS)}/\.{_RECORD}{UNFINISHED}"
_OWN = (
    rf"(?:{re.escape(layout.OWN_FOLDER)}/(?:lock|lease)"
    rf"|{re.escape(layout.DIGESTS)}/{_RECORD}|{_PARTIAL}"
    rf"|{re.escape(layout.STAND_INS)}/{_HEX}/(?:{_OBJECT}))"
)
_ARRAY = rf"(?:{_OBJECT}|{_OWN})"
_TABLES = "|".join((layout.OBS_META, layout.OBS, layout.TILE_INDEX, *layout.DERIVED))
_COLLECTION = rf"(?:{_ARRAY}|(?:{_TABLES})/{_ARRAY}|{layout.VOLUMES}/{layout.ARRAY_FORM}/{_ARRAY})"
_DATASET = rf"(?:{_COLLECTION}|{layout.COLLECTIONS}/[^/]+/{_COLLECTION})"

ARRAY = re.compile(_ARRAY)
COLLECTION = re.compile(_COLLECTION)
DATASET = re.compile(_DATASET)
PARTS = re.compile(rf"(?!{re.escape(layout.OWN_FOLDER)}/|{layout.COLLECTIONS}/)(?:{_COLLECTION})")
"""A data set's own parts, without its collections and its lock."""
OWN_FOLDER = re.compile(_OWN)
PARTIAL = re.compile(_PARTIAL)
"""A seal or a pack of a table that a process was writing when it ended."""

_MARKS = (tdb.METADATA, tdb.GROUP, tdb.SCHEMA)
"""What says that an object is one comes last, so that an interrupted removal is taken up again."""


def remove(
    uri: str,
    form: re.Pattern[str],
    *,
    folder: str = "",
    keep: frozenset[str] = frozenset(),
) -> list[str]:
    """Remove what lies below `uri` and has the `form`, and the folders that are then empty.

    Parameters
    ----------
    uri : str
        An array, a group, or a folder of either.
    form : Pattern
        What the paths below `uri` have to match as a whole: `ARRAY`, `COLLECTION`, `DATASET` ...
    folder : str
        Look only at what lies below this folder of `uri`.
    keep : frozenset of str
        Folders, relative to `uri`, that are left as they are.

    Returns
    -------
    list of str
        What was left, relative to `uri`: files of other forms, and links.

    Raises
    ------
    StorageError
        If something cannot be removed.
    """
    if layout.is_local(uri):
        return _remove_local(uri, form, folder, keep)
    return _remove_remote(uri, form, folder, keep)


def _kept(path: str, keep: frozenset[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in keep)


def _last(path: str) -> tuple[bool, str]:
    return tdb.is_in(path, *_MARKS) or path == tdb.GROUP_MARK, path


def _remove_local(uri: str, form: re.Pattern[str], within: str, keep: frozenset[str]) -> list[str]:
    start = uri
    for part in ["", *filter(None, within.split("/"))]:
        start = os.path.join(start, part) if part else start
        if files.is_link(start):
            return [os.path.relpath(start, uri).replace(os.sep, "/")]
    if os.path.isfile(start):
        return []
    gone: list[str] = []
    left: list[str] = []
    folders: list[str] = []
    try:
        for base, names, entries in os.walk(start, onerror=_refuse, followlinks=False):
            below = os.path.relpath(base, uri).replace(os.sep, "/")
            prefix = "" if below == "." else f"{below}/"
            names[:] = [n for n in names if not _kept(f"{prefix}{n}", keep)]
            folders.append(base)
            links = {n for n in (*entries, *names) if files.is_link(os.path.join(base, n))}
            for name in [*entries, *(n for n in names if n in links)]:
                path = f"{prefix}{name}"
                ours = form.fullmatch(path) and name not in links
                (gone if ours else left).append(path)
            names[:] = [n for n in names if n not in links]
        for path in sorted(gone, key=_last):
            place = os.path.join(uri, path)
            if path != layout.LOCK:
                files.remove_file(place)
                continue
            try:
                os.unlink(place)
            except PermissionError:
                # Some systems delete no file that is open, as this one is of who removes it.
                left.append(path)
        for folder in reversed(folders):
            if not os.listdir(folder):
                files.remove_empty_folder(folder)
    except FileNotFoundError:
        return left  # another process removed it at the same time
    except OSError as error:
        raise _unremovable(uri, error) from error
    return left


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _unremovable(uri: str, error: OSError) -> StorageError:
    where = error.filename or uri
    return StorageError(
        f"{where} cannot be removed: {error.strerror}; check the permissions of its folder"
    )


def _remove_remote(uri: str, form: re.Pattern[str], within: str, keep: frozenset[str]) -> list[str]:
    vfs = tiledb.VFS(ctx=get_tiledb_ctx())
    below = f"{uri.rstrip('/')}/"
    start = f"{below}{within}/" if within else below
    try:
        found = [entry for entry in vfs.ls_recursive(start) if entry.startswith(start)]
        paths = [entry.removeprefix(below) for entry in found]
        paths = [path for path in paths if not _kept(path, keep)]
        # A name that ends in a slash stands for an empty folder on some servers.
        gone = [path for path in paths if form.fullmatch(path) or path.endswith("/") or not path]
        left = sorted(set(paths) - set(gone))
        if gone and len(gone) == len(found):
            # One request for a thousand objects.
            vfs.remove_dir(start.rstrip("/"))
        else:
            for path in sorted(gone, key=_last):
                vfs.remove_file(f"{below}{path}")
        if len(gone) == len(found):
            _remove_empty_folders(vfs, start.rstrip("/"))
    except tiledb.TileDBError as error:
        raise StorageError(
            f"{uri} cannot be removed: {error}; check what the credentials permit"
        ) from error
    return left


def _remove_empty_folders(vfs: tiledb.VFS, uri: str) -> None:
    """Remove folders in which nothing is left; most object stores have none to remove.

    Some keep them, and TileDB takes an empty folder of members for a group.
    """
    entries = [entry.rstrip("/") for entry in vfs.ls(uri)]
    if not entries or vfs.ls_recursive(f"{uri}/"):
        return
    for entry in entries:
        if entry != uri:
            _remove_empty_folders(vfs, entry)
    if uri.count("/") > 2:  # a bucket is no folder
        vfs.remove_file(f"{uri}/")
