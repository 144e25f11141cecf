"""Size and digest of every table file, as the commits record them.

libtiledb believes what it reads: one flipped bit of a table's file can kill the process, ask for
10 GiB, or give another subject's id. So a commit records each file that its tables got, in the same
write that publishes it, and a table is opened only after its files were compared (`checked`).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from radiobject.addresses import is_remote
from radiobject.exceptions import IntegrityError
from radiobject.process import new_threads
from radiobject.storage.io import layout, owned, remote
from radiobject.storage.io import tiledb_names as tdb
from radiobject.storage.io.array_files import open_files
from radiobject.storage.io.checksum import digest
from radiobject.storage.io.files import remove_file, write_small
from radiobject.storage.tables import groups
from radiobject.storage.tables.packs import Packing, name_of
from radiobject.storage.tables.staging import Files, altered, keep_content

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
_MAX_SEAL_BYTES = 16 << 20
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
        if not version.isdecimal() or int(version) < FIRST_VERSION:
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


def is_touched(table_uri: str) -> bool:
    """Return whether this process wrote to a table what no commit has recorded yet."""
    return table_uri in _touched


def seal(table_uri: str, fragment: str) -> None:
    """Record the files of a fragment that was written to a table without a commit."""
    own = (f"{tdb.FRAGMENTS}/{fragment}/", f"{tdb.COMMITS}/{fragment}.", f"{tdb.SCHEMA}/")
    files = new_files(table_uri, {}, lambda path: path.startswith(own))
    write_small(
        layout.join(table_uri, layout.DIGESTS, f"{fragment}.json"), json.dumps(files).encode()
    )


def unseal(table_uri: str, fragments: Iterable[str]) -> None:
    """Remove what this library keeps of fragments that are about to be removed."""
    for name in fragments:
        remove_file(layout.join(table_uri, layout.DIGESTS, f"{name}.json"))
        remove_file(layout.join(table_uri, name_of(name)))


def sealed(table_uri: str) -> Files | None:
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


def new_files(
    table_uri: str, recorded: Mapping[str, Any], ours: Callable[[str], bool] | None = None
) -> Files:
    """Return size and digest of the files of a table that are not recorded yet.

    Parameters
    ----------
    table_uri : str
    recorded : mapping
        Paths that are.
    ours : callable, optional
        Says of a path whether it is meant; every one is by default.
    """
    files = open_files(table_uri)
    paths = [path for path in files.names() if path not in recorded and _belongs(path)]
    paths = paths if ours is None else [path for path in paths if ours(path)]

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


def places_of(table_uri: str) -> Iterator[tuple[str, str]]:
    """Yield the data sets that a table may be of, each with the table's place in it."""
    group, name = layout.parent(table_uri), layout.base_name(table_uri)
    if layout.base_name(layout.parent(group)) == layout.COLLECTIONS:
        root = layout.parent(layout.parent(group))
        yield root, f"{layout.COLLECTIONS}/{layout.base_name(group)}/{name}"
    yield group, name


def lookup(table_uri: str) -> tuple[str, str] | None:
    """Return the data set that records the files of a table, and the table's place in it."""
    for root, place in places_of(table_uri):
        manifest = _manifest(root)
        if manifest is not None and place in manifest.tables:
            return root, place
    return None


def _manifest(root: str) -> Manifest | None:
    return _known[root] if root in _known else reload(root)


def reload(root: str) -> Manifest | None:
    """Read again what the data set at `root` records; None if none is there."""
    return remember(root, groups.read_metadata(root) or {})
