"""Trying what a place can do before it is trusted with a data set."""

from __future__ import annotations

import os
import shutil
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radiobject.addresses import is_remote
from radiobject.exceptions import RadiObjectError
from radiobject.storage.io import files, layout, object_store, owned
from radiobject.system import files as system_files

_LEAST_FREE_BYTES = 1 << 30
_CLOCK_S = 60.0
_LATENCY_S = 0.2
_TRIES = 5
_CONTENT = bytes(range(256)) * 16


@dataclass(frozen=True)
class Finding:
    """One thing that was tried at a place.

    Parameters
    ----------
    what : str
        The thing.
    good : bool
        Whether it is as it should be.
    seen : str
        What was seen.
    remedy : str
        What to do, where it is not.
    """

    what: str
    good: bool
    seen: str
    remedy: str = ""


def examine(uri: str) -> list[Finding]:
    """Try at `uri`, a data set or a place for one, all that reading and writing there needs.

    Files of its own, which are removed again, are all that it writes.
    """
    place = layout.normalise_uri(uri)
    return list(_remote(place) if is_remote(place) else _local(Path(place)))


def _local(folder: Path) -> Iterator[Finding]:
    while not folder.exists():
        if folder == folder.parent:  # a drive, or a machine, that is not there
            yield Finding("folder", False, f"nothing at {folder}", "mount it, or choose another")
            return
        folder = folder.parent
    probe = folder / f".radiobject-{uuid.uuid4().hex}"
    try:
        fd = system_files.open_private(probe)
    except OSError as error:
        yield Finding(
            "write permission", False, f"{folder}: {error.strerror}",
            "ask the folder's owner for permission to write, or choose another folder",
        )  # fmt: skip
    else:
        try:
            yield Finding("write permission", True, str(folder))
            yield _locks(fd, folder)
        finally:
            os.close(fd)
            probe.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    yield Finding(
        "free space", free >= _LEAST_FREE_BYTES, f"{free / (1 << 30):.1f} GiB",
        "make room: radiobject vacuum removes what only old states have",
    )  # fmt: skip


def _locks(fd: int, folder: Path) -> Finding:
    try:
        held = system_files.lock(fd)
    except OSError as error:
        return Finding(
            "file locks", False, f"{folder}: {error.strerror}",
            "mount the share with locks, or write on a local disk and copy with radiobject cp",
        )  # fmt: skip
    return Finding("file locks", held, str(folder), "another process holds a new file; try again")


def _remote(uri: str) -> Iterator[Finding]:
    bucket, prefix = object_store.split(uri)
    store = object_store.open_store(bucket, prefix, retries=False)
    folder = f"doctor-{uuid.uuid4().hex}"
    key = f"{folder}/probe"

    def tried(what: str, act: Callable[[], Any], remedy: str) -> tuple[Finding, Any]:
        try:
            return Finding(what, True, "it is"), object_store.patiently(act)
        except (RadiObjectError, OSError) as error:
            return Finding(what, False, str(error).partition("\n")[0][:200], remedy), None
        except object_store.request_errors() as error:
            return Finding(what, False, object_store.said(error), remedy), None

    listed, _ = tried(
        "permission to list", lambda: next(iter(store.list()), None),
        "check address, region and endpoint, and that the credentials permit listing the bucket",
    )  # fmt: skip
    yield listed
    before = time.time()
    written, _ = tried(
        "permission to write", lambda: store.put(key, _CONTENT),
        "let the credentials write and delete objects below this address",
    )  # fmt: skip
    yield written
    if not written.good:
        return
    yield from _conditions(store, key)
    back, found = tried("reading back", lambda: store.get(key), "let the credentials read objects")
    yield back
    if found is not None:
        yield from _content(bytes(found.bytes()), found.meta, before)
        yield _latency(store, key)
    deleted, _ = tried(
        "permission to delete", lambda: store.delete(key), "let the credentials delete objects"
    )
    yield deleted
    left = [place for place in files.list_folder(uri) if layout.base_name(place) == folder]
    owned.remove(uri, owned.ARRAY, folder=folder)
    yield Finding(
        "empty folders", not left, "none is left" if not left else "the server keeps them",
        "nothing to do: RadiObject removes the empty folders that it leaves",
    )  # fmt: skip


def _conditions(store: Any, key: str) -> Iterator[Finding]:
    """Try the conditional writes that keep writers apart."""
    remedy = "read from this server, and write elsewhere: two writers would destroy each other"
    for what, mode in (
        ("conditional creation (If-None-Match)", "create"),
        ("conditional replacement (If-Match)", {"e_tag": '"0123456789abcdef"', "version": "1"}),
    ):
        try:
            store.put(key, _CONTENT, mode=mode)
        except object_store.request_errors() as error:
            refused = object_store.status_of(error) in (None, 409, 412)
            said = "held" if refused else object_store.said(error)
            yield Finding(what, refused, said, remedy)
        else:
            yield Finding(what, False, "the server ignores the condition", remedy)


def _content(content: bytes, meta: Any, before: float) -> Iterator[Finding]:
    yield Finding(
        "checksums in requests", content == _CONTENT,
        "stored as sent" if content == _CONTENT else "the server stores their framing as data",
        "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required",
    )  # fmt: skip
    ahead = meta["last_modified"].timestamp() - before
    yield Finding(
        "clock", abs(ahead) < _CLOCK_S, f"the server's is {ahead:+.0f} s from this machine's",
        "set this machine's clock (NTP): requests signed at a wrong time are refused",
    )  # fmt: skip


def _latency(store: Any, key: str) -> Finding:
    taken = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        store.get_range(key, start=0, end=16)
        taken.append(time.perf_counter() - start)
    middle = statistics.median(taken)
    return Finding(
        "latency", middle < _LATENCY_S, f"{1000 * middle:.0f} ms a request",
        "work nearer to the bucket, or keep tiles on a local disk (RADIOBJECT_MIRROR)",
    )  # fmt: skip
