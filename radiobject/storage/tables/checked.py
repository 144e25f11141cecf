"""A table's files, compared with what the commits record of them before libtiledb opens them.

Files that no commit recorded, as an interrupted merge leaves them, are kept from the reader.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from stat import S_ISREG

from radiobject.addresses import is_remote
from radiobject.exceptions import DiskFullError, IntegrityError, StorageError
from radiobject.storage.io import layout, remote
from radiobject.storage.io import tiledb_names as tdb
from radiobject.storage.io.array_files import open_files, open_regular, refuse_strange, strange
from radiobject.storage.io.libtiledb import FOREVER
from radiobject.storage.tables import digests
from radiobject.storage.tables.packs import is_pack
from radiobject.storage.tables.staging import Files, altered, staged
from radiobject.system import temporary
from radiobject.system.files import give_name

_STAGED_BYTES = 64 << 20
"""Tables of an object store up to this size are fetched whole and compared before they are opened;
of larger ones the names and sizes are compared, and libtiledb fetches what it needs: each row's own
checksum is what protects it."""
_RETRIES_S = (0.0, 0.05, 0.2, 0.5)


@contextmanager
def checked(
    table_uri: str, timestamp: int | None = None, *, for_rows: bool = False
) -> Iterator[str]:
    """Give the URI to open a table at, after every file of it was compared with its record.

    A table of an older format, or one that belongs to no data set, is given as it is.

    Parameters
    ----------
    table_uri : str
    timestamp : int, optional
        The state that is to be read.
    for_rows : bool
        Read are rows, which a vacuum removes with their states: that none are found is no answer
        then, before the block and after it.

    Raises
    ------
    IntegrityError
        If a file is missing, cut or altered; the message names it.
    StorageError
        If the state was given up since it was opened: the files are those of the states kept.
    """
    refuse_strange(table_uri)
    if layout.base_name(table_uri) in layout.DERIVED:
        with _checked_by_seals(table_uri) as place:
            yield place
        return
    found = digests.lookup(table_uri)
    # Columns are asked for at times of no state, too: when they came and went.
    asked = timestamp if for_rows else None
    if found is None:
        yield table_uri
        _refuse_given_up([root for root, _ in digests.places_of(table_uri)], asked)
        return
    root, inside = found
    _refuse_forgotten(root, digests.known(root), asked)
    if not is_remote(table_uri):
        strangers = _compare_local(table_uri, root, inside, asked)
        manifest = digests.known(root)
        if strangers and manifest is not None:
            with _linked(table_uri, manifest.tables[inside]) as place:
                yield place
        else:
            yield table_uri
        if for_rows:
            _refuse_replaced(table_uri, root, inside, asked)
    elif digests.is_touched(table_uri):
        # What this process wrote to it and did not commit yet is not recorded; it has the lock.
        yield table_uri
    elif remote.reads(table_uri) and _size_of(root, inside) <= _STAGED_BYTES:
        with _fetched(table_uri, root, inside, asked) as place:
            yield place
    else:
        if remote.reads(table_uri):
            _compare_listed(table_uri, root, inside, asked)
        yield table_uri
        _refuse_given_up([root], asked)


@contextmanager
def _checked_by_seals(table_uri: str) -> Iterator[str]:
    if is_remote(table_uri) and not remote.reads(table_uri):
        yield table_uri
        return
    recorded = digests.sealed(table_uri)
    if recorded is None:
        yield table_uri
    elif is_remote(table_uri):
        with staged(table_uri, recorded) as folder:
            yield folder
    else:
        _compare(table_uri, recorded)
        # What another process is writing now is not sealed yet.
        if _strangers(table_uri, digests.Manifest(FOREVER, {"": recorded}), ""):
            with _linked(table_uri, recorded) as place:
                yield place
        else:
            yield table_uri


def _refuse_forgotten(root: str, manifest: digests.Manifest | None, timestamp: int | None) -> None:
    """Raise if a record that was read anew lists no state of `timestamp` any more."""
    states = manifest.states if manifest is not None else frozenset()
    if timestamp is not None and states and timestamp not in states and timestamp < max(states):
        raise StorageError(
            f"the state {timestamp} of {root} was given up by vacuum() after it was opened here; "
            "open the data set again, history() lists the states that it has"
        )


def _refuse_given_up(roots: Sequence[str], timestamp: int | None) -> None:
    """Raise if the state that was read of a table that cannot be compared is there no more."""
    for root in roots if timestamp is not None else ():
        _refuse_forgotten(root, digests.reload(root), timestamp)


def _refuse_replaced(table_uri: str, root: str, place: str, timestamp: int | None) -> None:
    """Raise if files were replaced while rows were read, and the state given up with them."""
    manifest = digests.known(root)
    try:
        _compare(table_uri, {} if manifest is None else manifest.tables.get(place, {}))
    except IntegrityError:
        _refuse_forgotten(root, digests.reload(root), timestamp)


def _compare_local(table_uri: str, root: str, place: str, timestamp: int | None) -> list[str]:
    """Compare a local table with its record; return what is there beside it, of committed times.

    A merge replaces files while this looks, so a difference counts once the record was read anew.
    """
    error: IntegrityError | None = None
    strangers: list[str] = []
    for wait in (None, *_RETRIES_S):
        if wait is not None:
            time.sleep(wait)
            _refuse_forgotten(root, digests.reload(root), timestamp)
        manifest = digests.known(root)
        if manifest is None or place not in manifest.tables:
            return []  # the table was removed, or the data set replaced
        try:
            _compare(table_uri, manifest.tables[place])
        except IntegrityError as found:
            error = found
            continue
        error, strangers = None, _strangers(table_uri, manifest, place)
        if not strangers:
            return []
    if error is not None:
        raise error
    return strangers


_compared: dict[str, tuple[int, int, int, str]] = {}


def _compare(table_uri: str, files: Files) -> None:
    for path, (size, expected) in files.items():
        if is_pack(path):
            continue  # a second copy, which no local reader takes
        where = f"{table_uri}/{path}"
        try:
            state = os.stat(where)
        except FileNotFoundError:
            raise altered(where, "is missing, lost or not copied with the others") from None
        except OSError as error:
            raise StorageError(f"{where} cannot be read: {error.strerror}") from error
        if not S_ISREG(state.st_mode):
            raise strange(where)
        if state.st_size != size:
            raise altered(where, f"has {state.st_size} bytes, expected {size}")
        seen = (state.st_ino, state.st_mtime_ns, size, expected)
        if _compared.get(where) == seen:
            continue
        try:
            with open_regular(where) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        except OSError as error:
            raise StorageError(f"{where} cannot be read: {error.strerror}") from error
        if found != expected:
            raise altered(where, "is not the file that was written")
        _compared[where] = seen


def _strangers(table_uri: str, manifest: digests.Manifest, place: str) -> list[str]:
    """Return committed fragments and schemas that are not recorded."""
    recorded = manifest.tables[place]
    found = []
    for folder in (tdb.SCHEMA, tdb.COMMITS):
        for name in os.listdir(f"{table_uri}/{folder}"):
            span = tdb.SPAN.match(name)
            if span and int(span.group(1)) <= manifest.head and f"{folder}/{name}" not in recorded:
                found.append(f"{folder}/{name}")
    return found


@contextmanager
def _linked(table_uri: str, files: Iterable[str]) -> Iterator[str]:
    """Give a folder with links to exactly `files`."""
    with temporary.folder("table", f"links to the files of {table_uri}") as place:
        with temporary.keeping(f"links to the files of {table_uri}"):
            for path in files:
                if is_pack(path):
                    continue
                target = place / path
                target.parent.mkdir(parents=True, exist_ok=True)
                give_name(f"{table_uri}/{path}", target)
        yield str(place)


def _size_of(root: str, place: str) -> int:
    manifest = digests.known(root)
    recorded = {} if manifest is None else manifest.tables[place]
    return sum(size for path, (size, _) in recorded.items() if not is_pack(path))


def _compare_listed(table_uri: str, root: str, place: str, timestamp: int | None) -> None:
    """Compare names and sizes of a table that is too large to be fetched whole."""
    for wait in (None, *_RETRIES_S):
        if wait is not None:
            time.sleep(wait)
            _refuse_forgotten(root, digests.reload(root), timestamp)
        manifest = digests.known(root)
        recorded = {} if manifest is None else manifest.tables.get(place, {})
        there = open_files(table_uri).sizes()
        wrong = [p for p, (size, _) in recorded.items() if not is_pack(p) and there.get(p) != size]
        if not wrong:
            return
    size = there.get(wrong[0])
    what = "is missing, lost or not copied with the others" if size is None else (
        f"has {size} bytes, expected {recorded[wrong[0]][0]}"
    )  # fmt: skip
    raise altered(f"{table_uri}/{wrong[0]}", what)


@contextmanager
def _fetched(table_uri: str, root: str, place: str, timestamp: int | None) -> Iterator[str]:
    """Give a folder with the compared files of a table of an object store."""
    manifest = digests.known(root)
    with ExitStack() as stack:
        for number, wait in enumerate((None, *_RETRIES_S), start=-len(_RETRIES_S)):
            if wait is not None:
                time.sleep(wait)
                manifest = digests.reload(root)
                _refuse_forgotten(root, manifest, timestamp)
            if manifest is None or place not in manifest.tables:
                raise StorageError(f"the table {table_uri} was removed meanwhile; open it again")
            try:
                folder = stack.enter_context(staged(table_uri, manifest.tables[place]))
                break
            except DiskFullError:
                raise
            except StorageError:
                if number == 0:
                    raise
        yield folder
