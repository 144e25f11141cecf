"""Files and folders of a data set, on a disk or an object store, through TileDB's own VFS."""

from __future__ import annotations

import os
import re
from pathlib import Path

import tiledb

from radiobject.ctx import get_tiledb_ctx
from radiobject.storage.io import layout

_STAMPED = re.compile(r"^__(\d+)_(\d+)_[0-9a-f]{32}")
_STAMPED_FOLDERS = ("__commits", "__schema", "__meta", "__fragment_meta", "__fragments", "__group")


def _vfs() -> tiledb.VFS:
    return tiledb.VFS(ctx=get_tiledb_ctx())


def is_link(uri: str) -> bool:
    """Return whether `uri` is a symbolic link, which nothing here follows to delete."""
    return layout.is_local(uri) and os.path.islink(uri)


def list_folder(uri: str) -> list[str]:
    """Return the URIs directly below `uri`, sorted; empty if there is nothing."""
    if layout.is_local(uri):
        if not os.path.isdir(uri):
            return []
        return [layout.join(uri, name) for name in sorted(os.listdir(uri))]
    vfs = _vfs()
    return sorted(entry.rstrip("/") for entry in vfs.ls(uri) if entry.rstrip("/") != uri)


def is_something(uri: str) -> bool:
    """Return whether a file or a non-empty folder lies at `uri`."""
    if layout.is_local(uri):
        return os.path.lexists(uri) and (not os.path.isdir(uri) or bool(os.listdir(uri)))
    return bool(list_folder(uri)) or bool(_vfs().is_file(uri))


def remove(uri: str) -> None:
    """Remove a file or a folder with what it holds; nothing happens if it is not there."""
    if is_link(uri):
        os.unlink(uri)
        return
    vfs = _vfs()
    if vfs.is_dir(uri):
        vfs.remove_dir(uri)
    elif vfs.is_file(uri):
        vfs.remove_file(uri)


def make_folder(uri: str) -> None:
    """Make a local folder with its parents; an object store has none to make."""
    if layout.is_local(uri):
        Path(uri).mkdir(parents=True, exist_ok=True)


def remove_folder_if_empty(uri: str) -> None:
    """Remove a local folder that holds nothing."""
    if layout.is_local(uri) and os.path.isdir(uri) and not os.listdir(uri):
        os.rmdir(uri)


def remove_uncommitted(uri: str) -> None:
    """Remove fragments of the array at `uri` that have no commit marker: no reader sees them."""
    markers = list_folder(layout.join(uri, "__commits"))
    fragments = list_folder(layout.join(uri, "__fragments"))
    if any(marker.endswith(".con") for marker in markers):
        return
    committed = {layout.base_name(marker).rpartition(".")[0] for marker in markers}
    for entry in fragments:
        if layout.base_name(entry) not in committed:
            remove(entry)


def remove_merged(folder: str) -> None:
    """Remove the files in `folder` whose span of time a merged file there covers."""
    spans = {}
    for entry in list_folder(folder):
        stamp = _STAMPED.match(layout.base_name(entry))
        if stamp is not None:
            spans[entry] = (int(stamp.group(1)), int(stamp.group(2)))
    merged = {span for span in spans.values() if span[0] < span[1]}
    covered = [
        entry
        for entry, (first, last) in spans.items()
        if any(a <= first and last <= b and (a, b) != (first, last) for a, b in merged)
    ]
    for entry in covered:
        remove(entry)


def remove_after(uri: str, timestamp: int) -> None:
    """Remove what was written to the array or group at `uri` after `timestamp`.

    Commit markers go first, so that a fragment is never visible without its marker's removal
    having failed loudly.
    """
    for folder in _STAMPED_FOLDERS:
        for entry in list_folder(layout.join(uri, folder)):
            stamp = _STAMPED.match(layout.base_name(entry))
            if stamp is not None and int(stamp.group(1)) > timestamp:
                remove(entry)
