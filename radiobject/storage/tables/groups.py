"""TileDB groups and their metadata, written and read at explicit timestamps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tiledb

from radiobject.ctx import get_radiobject_config, get_tiledb_ctx
from radiobject.exceptions import StorageError
from radiobject.storage.io import remote
from radiobject.storage.io.array_files import refuse_strange
from radiobject.storage.io.atomic import atomic
from radiobject.storage.io.libtiledb import FOREVER, changing_ctx, reading, writing
from radiobject.storage.tables.group_metadata import read_remote


def object_kind(uri: str) -> str | None:
    """Return ``"group"`` or ``"array"`` for a TileDB object at `uri`, else None.

    Raises
    ------
    StorageError
        If the place cannot be reached: no such bucket, no answer, no permission.
    """
    with _reaching(uri):
        return tiledb.object_type(uri, ctx=get_tiledb_ctx())


def read_metadata(uri: str) -> dict[str, Any] | None:
    """Return the metadata of the TileDB group at `uri`, or None if there is no group.

    Everything ever written is seen, also by a machine whose clock is behind the writer's.
    """
    if remote.reads(uri):
        with _reaching(uri):
            found = read_remote(uri)
        if found is not None:
            return found
    if object_kind(uri) != "group":
        return None
    with reading(f"what the group at {uri} says of itself"):
        refuse_strange(uri)
        with _open(uri, "r", FOREVER) as group:
            return dict(group.meta)


def write_metadata(uri: str, values: Mapping[str, Any], timestamp: int) -> None:
    """Write group metadata in one file, hence all or nothing; None deletes a key."""
    with _changing(uri, timestamp) as group:
        for key, value in values.items():
            if value is None:
                del group.meta[key]
            else:
                group.meta[key] = value


def create(uri: str, values: Mapping[str, Any], timestamp: int) -> None:
    """Create a group with metadata."""
    with writing(uri):
        tiledb.Group.create(uri, ctx=changing_ctx(uri))
    write_metadata(uri, values, timestamp)


def add_arrays(uri: str, names: list[str], timestamp: int) -> None:
    """Make arrays directly below the group at `uri` its members, for other TileDB clients."""
    with _changing(uri, timestamp) as group:
        for name in names:
            group.add(name, name=name, relative=True, type=tiledb.Array)


@contextmanager
def _changing(uri: str, timestamp: int) -> Iterator[tiledb.Group]:
    ctx = changing_ctx(uri)
    with writing(uri), atomic(uri) as place, _open(place, "w", timestamp, ctx) as group:
        yield group


def _open(uri: str, mode: str, timestamp_end: int, ctx: tiledb.Ctx | None = None) -> tiledb.Group:
    return tiledb.Group(uri, mode, config=_config(timestamp_end), ctx=ctx or get_tiledb_ctx())


def _config(timestamp_end: int) -> tiledb.Config:
    config = get_radiobject_config().to_tiledb_config()
    config["sm.group.timestamp_end"] = str(timestamp_end)
    return config


@contextmanager
def _reaching(uri: str) -> Iterator[None]:
    try:
        yield
    except (tiledb.TileDBError, StorageError) as error:
        # libtiledb puts request ids and headers in between; what happened is said at the end.
        said = str(error).rsplit("] : ", 1)[-1].strip()
        raise StorageError(
            f"{uri} cannot be reached: {said}; check the bucket, the endpoint "
            "(AWS_ENDPOINT_URL_S3), the region and the credentials"
        ) from error
