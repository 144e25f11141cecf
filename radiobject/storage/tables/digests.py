"""Size and digest of every table file, as the commits record them.

libtiledb believes what it reads: one flipped bit of a table's file can kill the process, ask for
10 GiB, or give another subject's id. So a commit records each file that its tables got, in the same
write that publishes it, and a table is opened only after its files were compared. Files that no
commit recorded, as an interrupted merge leaves them, are kept from the reader.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from stat import S_ISREG
from typing import Any

from radiobject.addresses import is_remote
from radiobject.exceptions import DiskFullError, IntegrityError, StorageError
from radiobject.process import new_threads
from radiobject.storage.io import layout, owned, remote
from radiobject.storage.io import tiledb_names as tdb
from radiobject.storage.io.array_files import open_files, open_regular, refuse_strange, strange
from radiobject.storage.io.checksum import digest
from radiobject.storage.io.files import remove_file, write_small
from radiobject.storage.io.libtiledb import FOREVER
from radiobject.storage.tables import groups
from radiobject.storage.tables.packs import Packing, is_pack, name_of
from radiobject.storage.tables.staging import Files, altered, keep_content, staged
from radiobject.system import temporary

FIRST_VERSION = 3
"""Format version from which on every table file is recorded."""

KEY = "digests:"
COMMIT = "commit:"
RECORDED = "recorded"
"""The metadata that says what all parts of the record are: one that is gone would hide files."""
HEAD = "head"
VERSION = "radiobject.format_version"
OWNER = "owner"

_FOLDERS = (tdb.SCHEMA, tdb.COMMITS, tdb.FRAGMENTS)
_MAX_FILE_BYTES = 1 << 40
_STAGED_BYTES = 64 << 20
"""Tables of an object store up to this size are fetched whole and compared before they are opened;
of larger ones libtiledb fetches what it needs, and each row's own checksum is what protects it."""
_MAX_SEAL_BYTES = 16 << 20
_RETRIES_S = (0.0, 0.05, 0.2, 0.5)
_FETCHES = 16


@dataclass
class Manifest:
    """The recorded files of a data set's tables.

    Parameters
    ----------
    head : int
        Timestamp up to which everything is recorded.
    tables : dict of str to dict
        By the table's place below the data set.
    keys : dict of str to str
        The metadata that this was read from, each with the digest of what it says.
    states : frozenset of int
        Timestamps of the commits in the history, where that was read with it.
    """

    head: int
    tables: dict[str, Files] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    states: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, uri: str, metadata: Mapping[str, Any]) -> Manifest | None:
        """Return what a group's metadata records; None for a data set of an older format.

        Raises
        ------
        IntegrityError
            If the record is damaged.
        """
        version = str(metadata.get(VERSION, ""))
        if not version.isdigit() or int(version) < FIRST_VERSION:
            return None
        found = {key: value for key, value in metadata.items() if key.startswith(KEY)}
        keys = {k: digest(v) for k, v in sorted(found.items()) if isinstance(v, bytes)}
        try:
            states = {int(k[len(COMMIT) :]) for k in metadata if k.startswith(COMMIT)}
            manifest = cls(int(metadata.get(HEAD, 0)), keys=keys, states=frozenset(states))
            if len(keys) != len(found) or metadata.get(RECORDED, sum_of(keys)) != sum_of(keys):
                raise ValueError("it is not the one that was written")
            for key in keys:
                for table, files in _entries(metadata[key]).items():
                    manifest.tables.setdefault(table, {}).update(files)
        except (ValueError, TypeError, AttributeError, zlib.error, RecursionError) as error:
            raise IntegrityError(
                f"the record of the table files of {uri} is damaged ({error}); restore its folder "
                f"{tdb.METADATA} from a copy"
            ) from error
        return manifest


def pack(tables: Mapping[str, Files]) -> bytes:
    """Return files of tables as one value of a group's metadata."""
    nested: dict[str, dict[str, dict[str, tuple[int, str]]]] = {}
    for table, files in tables.items():
        folders = nested.setdefault(table, {})
        for path, entry in sorted(files.items()):
            folder, _, name = path.rpartition("/")
            folders.setdefault(folder, {})[name] = entry
    return zlib.compress(json.dumps(nested, separators=(",", ":")).encode(), 6)


@lru_cache(maxsize=16)
def _entries(packed: Any) -> Mapping[str, Files]:
    """Return what one value of the metadata records; a process opens a state again and again."""
    tables: dict[str, Files] = {}
    for table, folders in json.loads(_unpacked(packed)).items():
        files = tables[str(table)] = {}
        for folder, entries in folders.items():
            for name, (size, code) in entries.items():
                files[f"{folder}/{name}"] = (int(size), str(code))
    return tables


def sum_of(keys: Mapping[str, str]) -> str:
    """Return the digest of a whole record from those of its parts."""
    return digest(json.dumps(sorted(keys.items())).encode())


def _unpacked(packed: Any) -> bytes:
    if not isinstance(packed, bytes):
        raise ValueError("it is no sequence of bytes")
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(packed, 1 << 28)
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError("it is cut or too large")
    return content


_known: dict[str, Manifest | None] = {}
_touched: set[str] = set()


def remember(uri: str, metadata: Mapping[str, Any]) -> Manifest | None:
    """Keep what the metadata of the data set at `uri` records, for the tables below it."""
    manifest = Manifest.parse(uri, metadata)
    _known[uri] = manifest
    return manifest


def known(uri: str) -> Manifest | None:
    """Return what was last read of the data set's record; None for an older format."""
    return _known.get(uri)


def keep(uri: str, manifest: Manifest) -> Manifest:
    """Keep a record that was just written."""
    _known[uri] = manifest
    return manifest


def touch(table_uri: str) -> None:
    """Note that a table got files, which the next commit has to record.

    Readers write derived tables, without a commit: these are sealed fragment by fragment.
    """
    if layout.base_name(table_uri) not in layout.DERIVED:
        _touched.add(table_uri)


def seal(table_uri: str, fragment: str) -> None:
    """Record the files of a fragment that was written to a table without a commit."""
    own = (f"{tdb.FRAGMENTS}/{fragment}/", f"{tdb.COMMITS}/{fragment}.", f"{tdb.SCHEMA}/")
    files = {p: entry for p, entry in new_files(table_uri, {}).items() if p.startswith(own)}
    write_small(
        layout.join(table_uri, layout.DIGESTS, f"{fragment}.json"), json.dumps(files).encode()
    )


def unseal(table_uri: str, fragments: Iterable[str]) -> None:
    """Remove what this library keeps of fragments that are about to be removed."""
    for name in fragments:
        remove_file(layout.join(table_uri, layout.DIGESTS, f"{name}.json"))
        remove_file(layout.join(table_uri, name_of(name)))


def _sealed(table_uri: str) -> Files | None:
    """Return the files that the seals of a table record; None if it has none."""
    source = open_files(table_uri)
    seals = [
        n for n in source.names() if n.startswith(f"{layout.DIGESTS}/") and n.endswith(".json")
    ]
    recorded: Files = {}
    for name in sorted(seals):
        try:
            found = json.loads(source.read(name, _MAX_SEAL_BYTES))
            recorded |= {str(path): (int(size), str(d)) for path, (size, d) in found.items()}
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise altered(f"{table_uri}/{name}", f"is damaged ({error})") from error
    return recorded if seals else None


def take_touched(root: str) -> set[str]:
    """Return the tables below `root` that got files since this was last asked, and forget them."""
    found = {uri for uri in tuple(_touched) if uri.startswith(f"{root}/")}
    _touched.difference_update(found)
    return found


def new_files(table_uri: str, recorded: Mapping[str, Any]) -> Files:
    """Return size and digest of the files of a table that are not recorded yet.

    Parameters
    ----------
    table_uri : str
    recorded : mapping
        Paths that are.
    """
    files = open_files(table_uri)
    paths = [path for path in files.names() if path not in recorded and _belongs(path)]

    packing = Packing()

    def measure(path: str) -> tuple[str, tuple[int, str]]:
        content = files.read(path, _MAX_FILE_BYTES)
        entry = len(content), digest(content)
        if is_remote(table_uri):
            keep_content(table_uri, path, entry, content)
        packing.add(path, content)
        return path, entry

    if is_remote(table_uri):
        with new_threads("digest", _FETCHES) as threads:
            found = dict(threads.map(measure, paths))
    else:
        found = dict(map(measure, paths))
    if layout.base_name(table_uri) not in layout.DERIVED:
        for path, content in packing.packs().items():
            _write_pack(table_uri, path, content)
            found[path] = (len(content), digest(content))
    return found


def _write_pack(table_uri: str, path: str, content: bytes) -> None:
    if is_remote(table_uri):
        remote.RemoteFiles(table_uri).write(path, content)
    else:
        write_small(layout.join(table_uri, path), content)


def _belongs(path: str) -> bool:
    return tdb.is_in(path, *_FOLDERS) and bool(owned.ARRAY.fullmatch(path))


def _lookup(table_uri: str) -> tuple[str, str] | None:
    """Return the data set that records the files of a table, and the table's place in it."""
    group, name = layout.parent(table_uri), layout.base_name(table_uri)
    if layout.base_name(layout.parent(group)) == layout.COLLECTIONS:
        root = layout.parent(layout.parent(group))
        place = f"{layout.COLLECTIONS}/{layout.base_name(group)}/{name}"
        manifest = _manifest(root)
        if manifest is not None and place in manifest.tables:
            return root, place
    manifest = _manifest(group)
    return (group, name) if manifest is not None and name in manifest.tables else None


def _manifest(root: str) -> Manifest | None:
    return _known[root] if root in _known else reload(root)


def reload(root: str) -> Manifest | None:
    """Read again what the data set at `root` records; None if none is there."""
    return remember(root, groups.read_metadata(root) or {})


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
    found = _lookup(table_uri)
    if found is not None and for_rows:
        _refuse_forgotten(found[0], _known[found[0]], timestamp)
    if found is None:
        yield table_uri
    elif is_remote(table_uri):
        # What this process wrote to it and did not commit yet is not recorded.
        if table_uri in _touched or not remote.reads(table_uri):
            yield table_uri
            return
        with _fetched(table_uri, *found, timestamp) as place:
            yield place
    else:
        strangers = _compare_local(table_uri, *found, timestamp)
        if not strangers:
            yield table_uri
            if for_rows:
                _refuse_replaced(table_uri, *found, timestamp)
        else:
            manifest = _known[found[0]]
            assert manifest is not None
            with _linked(table_uri, manifest.tables[found[1]]) as place:
                yield place


@contextmanager
def _checked_by_seals(table_uri: str) -> Iterator[str]:
    if is_remote(table_uri) and not remote.reads(table_uri):
        yield table_uri
        return
    recorded = _sealed(table_uri)
    if recorded is None:
        yield table_uri
    elif is_remote(table_uri):
        with staged(table_uri, recorded) as folder:
            yield folder
    else:
        _compare(table_uri, recorded)
        # What another process is writing now is not sealed yet.
        if _strangers(table_uri, Manifest(FOREVER, {"": recorded}), ""):
            with _linked(table_uri, recorded) as place:
                yield place
        else:
            yield table_uri


def _refuse_forgotten(root: str, manifest: Manifest | None, timestamp: int | None) -> None:
    """Raise if a record that was read anew lists no state of `timestamp` any more."""
    states = manifest.states if manifest is not None else frozenset()
    if timestamp is not None and states and timestamp not in states and timestamp < max(states):
        raise StorageError(
            f"the state {timestamp} of {root} was given up by vacuum() after it was opened here; "
            "open the data set again, history() lists the states that it has"
        )


def _refuse_replaced(table_uri: str, root: str, place: str, timestamp: int | None) -> None:
    """Raise if files were replaced while rows were read, and the state given up with them."""
    manifest = _known.get(root)
    try:
        _compare(table_uri, {} if manifest is None else manifest.tables.get(place, {}))
    except IntegrityError:
        _refuse_forgotten(root, reload(root), timestamp)


def _compare_local(table_uri: str, root: str, place: str, timestamp: int | None) -> list[str]:
    """Compare a local table with its record; return what is there beside it, of committed times.

    A merge replaces files while this looks, so a difference counts once the record was read anew.
    """
    error: IntegrityError | None = None
    strangers: list[str] = []
    for wait in (None, *_RETRIES_S):
        if wait is not None:
            time.sleep(wait)
            _refuse_forgotten(root, reload(root), timestamp)
        manifest = _known.get(root)
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


def _strangers(table_uri: str, manifest: Manifest, place: str) -> list[str]:
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
                target.symlink_to(f"{table_uri}/{path}")
        yield str(place)


@contextmanager
def _fetched(table_uri: str, root: str, place: str, timestamp: int | None) -> Iterator[str]:
    """Give a folder with the compared files of a table of an object store."""
    manifest = _known[root]
    assert manifest is not None
    recorded = manifest.tables[place]
    if sum(size for path, (size, _) in recorded.items() if not is_pack(path)) > _STAGED_BYTES:
        yield table_uri
        return
    with ExitStack() as stack:
        for number, wait in enumerate((None, *_RETRIES_S), start=-len(_RETRIES_S)):
            if wait is not None:
                time.sleep(wait)
                manifest = reload(root)
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
