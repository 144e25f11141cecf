"""Deleting what this library wrote, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import tiledb

from radiobject.ctx import get_tiledb_ctx, ignore_ctx
from radiobject.exceptions import StorageError, StoreNotFoundError
from radiobject.storage.commits import recovery
from radiobject.storage.commits.head import OWNER, is_ours, parse_head, withdraw
from radiobject.storage.commits.transaction import remove_leftovers
from radiobject.storage.io import files, layout, owned
from radiobject.storage.io.lock import acquire
from radiobject.storage.read import reader
from radiobject.storage.schema import description
from radiobject.storage.tables import groups

_log = logging.getLogger(__name__)


def uri_exists(uri: str, ctx: tiledb.Ctx | None = None) -> bool:
    """Return whether a TileDB group or array lies at `uri`."""
    ignore_ctx(ctx)
    return groups.object_kind(layout.normalise_uri(uri)) is not None


def delete_tiledb_uri(uri: str, ctx: tiledb.Ctx | None = None) -> None:
    """Delete a data set, a collection of its own, or a volume of its own.

    Raises
    ------
    StoreNotFoundError
        If nothing of the kind lies at `uri`.
    StorageError
        If it is something else, a symbolic link, or part of a data set.
    LockError
        If it is being written.
    """
    ignore_ctx(ctx)
    location = layout.normalise_uri(uri)
    if files.is_link(location):
        raise StorageError(f"{location} is a symbolic link; delete what it points to by its name")
    kind = groups.object_kind(location)
    if kind is None:
        raise StoreNotFoundError(f"nothing to delete at {location}: no TileDB object lies there")
    if kind == "array":
        _require_standalone_volume(location)
        reader.forget(location)
        left = owned.remove(location, owned.ARRAY)
        _say_what_is_left(location, left)
    else:
        _delete_group(location)


def _delete_group(uri: str) -> None:
    metadata = groups.read_metadata(uri) or {}
    if not is_ours(metadata):
        parse_head(uri, metadata)
    if metadata.get(OWNER):
        raise StorageError(f"{uri} belongs to a data set; delete its volumes or subjects there")
    lock = acquire(uri, "delete")
    try:
        keep = _foreign_collections(uri, metadata)
        # Half a deletion is an unfinished data set: not opened, and deleted by the next try.
        withdraw(uri)
        reader.forget(uri)
        left = owned.remove(uri, owned.DATASET, keep=keep)
    finally:
        lock.abandon()
    if layout.LOCK in left:
        left.remove(layout.LOCK)
        remove_leftovers(uri)
    _say_what_is_left(uri, [*left, *keep])


def _foreign_collections(uri: str, metadata: Mapping[str, Any]) -> frozenset[str]:
    """Return the folders of collections that lie in the data set and never became part of it."""
    try:
        known = parse_head(uri, metadata).locations
    except StoreNotFoundError:
        known = set()  # its creation, or an earlier deletion, was never finished
    alone = {f"{layout.COLLECTIONS}/{name}" for name in recovery.standing_alone(uri)}
    return frozenset(alone - known)


def _say_what_is_left(uri: str, left: Sequence[str]) -> None:
    if left:
        _log.warning(
            "%s: %d files or links that RadiObject did not write were left there, such as %s",
            uri, len(left), sorted(left)[0],
        )  # fmt: skip


def _require_standalone_volume(uri: str) -> None:
    if description.is_part_of_collection(uri):
        raise StorageError(f"{uri} belongs to a collection; delete it with its delete()")
    with tiledb.open(uri, "r", ctx=get_tiledb_ctx()) as array:
        if array.schema.sparse or not array.schema.has_attr(layout.VOXELS_ATTR):
            raise StorageError(f"{uri} is a TileDB array, but no volume of this library")
