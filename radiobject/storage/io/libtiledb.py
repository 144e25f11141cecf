"""Reading boxes through libtiledb: open arrays and the context they live in.

This is the way for arrays that the tile index refuses, correct for everything that TileDB can
read. Three facts about libtiledb 2.30 shape it: resident memory grows by about 13.6 KB per query
in one context, so a context serves 500 queries; a forked child must neither use nor free what it
inherited; and ``tiledb.Query`` makes a reference cycle that keeps its buffers alive until the
garbage collector runs, so the low-level query is used.
"""

from __future__ import annotations

import ctypes
import gc
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import tiledb
import tiledb.libtiledb as lt

from radiobject import process
from radiobject.addresses import is_remote
from radiobject.ctx import config_generation, get_radiobject_config, get_tiledb_ctx
from radiobject.exceptions import IntegrityError, RadiObjectError, StorageError, StoreNotFoundError
from radiobject.geometry.box import Box
from radiobject.storage.io import layout, sharing, stats
from radiobject.storage.io.array_files import refuse_strange
from radiobject.system import room
from radiobject.system.processes import has_throughput_policy, prefer_throughput

QUERIES_PER_CONTEXT = 500
MAX_OPEN_ARRAYS = 64
_FOR_GROUP = " for a group"
FOREVER = 2**63 - 1
"""Timestamp that no write is later than, whatever the clock of the machine that wrote."""

# A message of libtiledb that quotes damaged bytes is none that Python can decode.
_FAILURES = (tiledb.TileDBError, UnicodeDecodeError)


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn every low-level error of a read into one of ours.

    Damaged files make libtiledb, and what unpacks its answers, fail in many ways: with its own
    error, with text that is none, with sizes that no memory has.

    Raises
    ------
    StorageError
        Naming `what` is read, what happened, and what to do.
    """
    try:
        yield
    except RadiObjectError:
        raise
    except (*_FAILURES, MemoryError, OverflowError, ZeroDivisionError, struct.error) as error:
        raise unreadable(what, error) from error


@contextmanager
def writing(uri: str, needed: int | None = None) -> Iterator[None]:
    """Turn every low-level error of a write to the object at `uri` into one of ours.

    Raises
    ------
    DiskFullError
        If the disk has no room; see `radiobject.system.room.writing`.
    StorageError
        Naming what is written, what happened, and what to do.
    """
    with room.writing(uri) if needed is None else room.writing(uri, needed):
        try:
            yield
        except _FAILURES as error:
            # libtiledb puts request ids and headers in between; what happened is said at the end.
            said = str(error).rsplit("] : ", 1)[-1].strip()
            raise StorageError(
                f"{uri} cannot be written: {said[:300]}; check the permissions of its folder, or "
                "what the credentials permit"
            ) from error


def unreadable(what: str, error: BaseException) -> StorageError:
    """Return the error that says that libtiledb could not read `what`."""
    # libtiledb puts request ids and headers in between; what happened is said at the end.
    said = str(error).rsplit("] : ", 1)[-1].strip() or type(error).__name__
    return StorageError(
        f"{what} cannot be read: {said[:300]}; if its files were altered, cut or not copied whole, "
        "restore them from a copy"
    )


@dataclass(frozen=True, slots=True)
class OpenArray:
    """A dense array open for reading.

    The context is the last field because fields are freed in order, and an array must be freed
    before its context.
    """

    array: Any
    attribute: str
    dtype: np.dtype
    origin: tuple[int, ...]
    shape: tuple[int, ...]
    ctx: tiledb.Ctx


class Session:
    """One libtiledb context, the arrays open in it, and the number of queries it has served."""

    def __init__(self, kind: str) -> None:
        settings = get_radiobject_config().to_tiledb_config()
        if kind.endswith(_FOR_GROUP):
            for name, value in sharing.PERMISSIONS.items():
                settings[name] = value
        if kind.startswith("write"):
            # One volume per thread of the caller: threads below that cost a quarter more CPU.
            settings["sm.compute_concurrency_level"] = "1"
            settings["sm.io_concurrency_level"] = "1"
            # Memory handed back after each volume is cleared by the system for the next one.
            settings["sm.mem.malloc_trim"] = "false"
        elif kind == "rows":
            # Of a few rows each file is small: one request, not the four of a part-wise upload.
            settings["vfs.s3.use_multipart_upload"] = "false"
        elif kind == "local":
            # The defaults merge far-apart tiles into one read: good over a network, waste on disk.
            settings["vfs.min_batch_size"] = "0"
            settings["vfs.min_batch_gap"] = "0"
        self.generation = config_generation()
        self.queries = 0
        batch = kind.startswith("write")
        self.ctx = _batch_context(settings) if batch else tiledb.Ctx(settings)
        self._arrays: OrderedDict[str, OpenArray] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, uri: str) -> OpenArray:
        """Return the array at `uri`, opened now or before."""
        with self._lock:
            known = self._arrays.get(uri)
            if known is not None:
                self._arrays.move_to_end(uri)
                return known
        opened = _open(uri, self.ctx)
        with self._lock:
            self._arrays[uri] = opened
            while len(self._arrays) > MAX_OPEN_ARRAYS:
                self._arrays.popitem(last=False)
        return opened

    def forget(self, uri: str) -> None:
        """Drop the arrays at `uri` and below; reads under way keep theirs until they end."""
        below = f"{uri.rstrip('/')}/"
        with self._lock:
            for key in [k for k in self._arrays if k == uri or k.startswith(below)]:
                del self._arrays[key]


def _batch_context(settings: tiledb.Config) -> tiledb.Ctx:
    """Return a context whose threads do not interrupt others when they are woken.

    libtiledb wakes its threads several times for each tile, mostly for work that the thread which
    waits for it takes on itself. Under Linux's policy for batch work the woken one queues up
    instead: 7 % less CPU for a volume written, in no more time.
    """
    if not has_throughput_policy:
        return tiledb.Ctx(settings)

    def make() -> tiledb.Ctx:
        # The policy is that of this one thread and of those that it starts.
        with suppress(OSError):
            prefer_throughput()
        return tiledb.Ctx(settings)

    with process.new_threads("context", 1) as starter:
        return starter.submit(make).result()


def _open(uri: str, ctx: tiledb.Ctx) -> OpenArray:
    refuse_strange(uri)
    try:
        # Not as of now: the writer's clock may be ahead of this machine's.
        array = lt.Array(ctx, uri, lt.QueryType.READ, (0, FOREVER))
        schema = tiledb.ArraySchema.from_pybind11(ctx, array._schema())
    except _FAILURES as error:
        if "does not exist" in str(error):
            raise StoreNotFoundError(f"no volume lies at {uri!r}") from error
        raise StorageError(f"volume at {uri!r} cannot be opened: {error}") from error
    if schema.sparse or schema.nattr != 1:
        raise StorageError(
            f"{uri!r} is not a volume: expected a dense array with one attribute, got a "
            f"{'sparse' if schema.sparse else 'dense'} array with {schema.nattr}"
        )
    _refuse_lost(uri, array, schema, ctx)
    stats.count(array_opens=1)
    bounds = [schema.domain.dim(i).domain for i in range(schema.ndim)]
    return OpenArray(
        array,
        schema.attr(0).name,
        schema.attr(0).dtype,
        tuple(int(low) for low, _ in bounds),
        tuple(int(high) - int(low) + 1 for low, high in bounds),
        ctx,
    )


def _refuse_lost(uri: str, array: Any, schema: tiledb.ArraySchema, ctx: tiledb.Ctx) -> None:
    """Raise if a volume of a collection has no voxels: libtiledb would give the fill value."""
    if layout.base_name(layout.parent(uri)) != layout.VOLUMES:
        return
    if array._non_empty_domain_is_empty(0, schema.domain.dim(0).dtype, ctx):
        raise IntegrityError(
            f"volume at {uri!r} has lost its voxels: its array is there and holds no fragment; "
            "restore its folder from a copy"
        )


def text_metadata(uri: str, key: str) -> str | None:
    """Return a text of an array's metadata, None where it has none of that name.

    Raises
    ------
    StoreNotFoundError, StorageError
        If the array cannot be opened.
    """
    current = session(remote=is_remote(uri))
    refuse_strange(uri)
    try:
        with tiledb.open(uri, "r", timestamp=(0, FOREVER), ctx=current.ctx) as array:
            found = array.meta.get(key)
    except _FAILURES as error:
        if "does not exist" in str(error):
            raise StoreNotFoundError(f"no volume lies at {uri!r}") from error
        raise StorageError(f"volume at {uri!r} cannot be opened: {error}") from error
    return None if found is None else str(found)


_sessions: dict[str, Session] = {}
_lock = threading.Lock()


def session(*, remote: bool) -> Session:
    """Return the session that serves the next query, counting that query."""
    return _serve("remote" if remote else "local")


def writing_ctx(uri: str) -> tiledb.Ctx:
    """Return the context in which the volume at `uri` is written; the caller keeps it meanwhile.

    Raises
    ------
    StorageError
        If its group would not get what is written there.
    """
    return _serve(f"write{_whose(uri)}").ctx


def changing_ctx(uri: str) -> tiledb.Ctx:
    """Return the context in which the table or group at `uri` is written; see `writing_ctx`."""
    whose = _whose(uri)
    return _serve(f"tables{whose}").ctx if whose else get_tiledb_ctx()


def _whose(uri: str) -> str:
    if not sharing.is_shared(uri):
        return ""
    sharing.refuse_private_umask(uri)
    return _FOR_GROUP


def rows_ctx() -> tiledb.Ctx:
    """Return the context in which a few rows are written to an object store."""
    return _serve("rows").ctx


def _serve(kind: str) -> Session:
    with _lock:
        current = _sessions.get(kind)
        if (
            current is None
            or current.queries >= QUERIES_PER_CONTEXT
            or current.generation != config_generation()
        ):
            current = _sessions[kind] = Session(kind)
        current.queries += 1
        return current


def forget(uri: str) -> None:
    """Drop what is open at `uri` or below, because the array there is deleted or replaced."""
    with _lock:
        for current in _sessions.values():
            current.forget(uri)


def close_all() -> None:
    """Drop every session; the next read starts afresh."""
    with _lock:
        _sessions.clear()


def _abandon_inherited() -> None:
    """Make what a forked child inherited immortal, so that it is neither used nor freed there.

    That goes for garbage, too: objects of tiledb-py form cycles, which hold contexts that were
    replaced until the collector finds them. What is frozen it does not look at.
    """
    global _lock
    gc.freeze()
    for inherited in _sessions.values():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
    _sessions.clear()
    _lock = threading.Lock()


process.at_fork("libtiledb", in_child=_abandon_inherited)

# tiledb-py makes every fork warn of deadlocks once a context exists. A child that uses what it
# inherited does deadlock; here no child does, so workers may fork without a warning each.
if hasattr(tiledb.ctx, "_needs_fork_wrapper"):
    tiledb.ctx._needs_fork_wrapper = False


def describe(uri: str) -> tuple[tuple[int, ...], np.dtype]:
    """Return the shape in voxels and the stored type of the volume at `uri`.

    Raises
    ------
    StoreNotFoundError
        If nothing lies there.
    StorageError
        If it cannot be opened, or is not a dense array with one attribute.
    """
    opened = session(remote=is_remote(uri)).open(uri)
    return opened.shape, opened.dtype


def query_into(uri: str, box: Box, out: np.ndarray) -> None:
    """Read `box` of the volume at `uri` through libtiledb.

    Parameters
    ----------
    uri : str
        A dense array with one attribute.
    box : Box
        In voxel indices from 0, inside the volume, with no empty side.
    out : ndarray, shape ``box.shape``
        C-contiguous, of the stored type, in stored units.

    Raises
    ------
    StoreNotFoundError
        If nothing lies at `uri`.
    StorageError
        If libtiledb cannot read it; `out` may then be partly written.
    """
    opened = session(remote=is_remote(uri)).open(uri)
    if opened.dtype != out.dtype:
        raise StorageError(f"volume at {uri!r} holds {opened.dtype}, expected {out.dtype}")
    try:
        status = _submit(opened, box, out)
    except _FAILURES as error:
        raise StorageError(f"volume at {uri!r}, box {box}: {error}") from error
    if status != lt.QueryStatus.COMPLETE:
        raise StorageError(f"volume at {uri!r}, box {box}: the query ended as {status.name}")
    stats.count(fallback_reads=1)


def _submit(opened: OpenArray, box: Box, out: np.ndarray) -> Any:
    """Run one query; its objects die here, before the array and the context of the caller."""
    subarray = lt.Subarray(opened.ctx, opened.array)
    for axis, origin in enumerate(opened.origin):
        subarray._add_dim_range(axis, (box.start[axis] + origin, box.stop[axis] + origin - 1))
    query = lt.Query(opened.ctx, opened.array, lt.QueryType.READ)
    query.layout = lt.LayoutType.ROW_MAJOR
    query.set_subarray(subarray)
    flat = out.reshape(-1)
    query.set_data_buffer(opened.attribute, _as_bytes_if_bool(flat), flat.size)
    return query._submit()


def _as_bytes_if_bool(flat: np.ndarray) -> np.ndarray:
    return flat.view(np.uint8) if flat.dtype == np.bool_ else flat
