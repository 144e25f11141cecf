"""The files of one fragment in one object, so that a table is read by few requests.

TileDB keeps two or three files a column, some 60 for a table of volumes, most of them of a few
bytes: over a network the number of requests is what a read costs. Beside the files themselves,
which any TileDB client reads, a commit leaves one object that holds them all; on a disk, too,
which no local reader looks at, because any program may copy a data set into a bucket. It is never
the only copy: where it is missing or altered the files are fetched one by one.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Mapping

from radiobject.storage.io import layout
from radiobject.storage.io import tiledb_names as tdb

_PREFIX = f"{layout.DIGESTS}/"
_SUFFIX = ".pack"
_MAGIC = b"RadiObject files 1\n"
_LENGTH = struct.Struct("<I")
_FEWEST_FILES = 3
MAX_BYTES = 16 << 20
"""Larger fragments take long enough to fetch that the number of requests matters little."""


def name_of(fragment: str) -> str:
    """Return the path below its table of what holds the files of a fragment."""
    return f"{_PREFIX}{fragment}{_SUFFIX}"


def is_pack(path: str) -> bool:
    """Return whether a recorded path is that of a pack."""
    return path.endswith(_SUFFIX) and path.startswith(_PREFIX)


class Packing:
    """New files of a table as they are measured, kept as long as their fragment is small.

    Each pack holds a fragment; the first also what belongs to none: schemas, marks of commits.
    """

    def __init__(self) -> None:
        self._fragments: dict[str, dict[str, bytes]] = {}
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def add(self, path: str, content: bytes) -> None:
        """Take a file; what a fragment has gathered goes once it is too large for a pack."""
        folder, _, rest = path.partition("/")
        fragment = rest.partition("/")[0] if folder == tdb.FRAGMENTS else ""
        with self._lock:
            size = self._sizes[fragment] = self._sizes.get(fragment, 0) + len(content)
            if size <= MAX_BYTES:
                self._fragments.setdefault(fragment, {})[path] = content
            else:
                self._fragments.pop(fragment, None)

    def packs(self) -> dict[str, bytes]:
        """Return what is to be written, by its path below the table."""
        others = self._fragments.pop("", {})
        packs = {}
        for fragment, held in sorted(self._fragments.items()):
            if len(held) + len(others) >= _FEWEST_FILES:
                packs[name_of(fragment)] = _packed({**others, **held})
                others = {}
        return packs


def _packed(contents: Mapping[str, bytes]) -> bytes:
    sizes = {path: len(contents[path]) for path in sorted(contents)}
    header = json.dumps(sizes, separators=(",", ":")).encode()
    pieces = [_MAGIC, _LENGTH.pack(len(header)), header, *(contents[path] for path in sizes)]
    return b"".join(pieces)


def unpacked(pack: bytes) -> dict[str, bytes]:
    """Return the files in a pack, by their path; none if it is not whole.

    Nothing here is believed: whoever takes a file compares it with its own record.
    """
    start = len(_MAGIC) + _LENGTH.size
    if not pack.startswith(_MAGIC) or len(pack) < start:
        return {}
    stop = start + _LENGTH.unpack_from(pack, len(_MAGIC))[0]
    try:
        sizes = {str(path): int(size) for path, size in json.loads(pack[start:stop]).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
    found = {}
    for path, size in sizes.items():
        start, stop = stop, stop + size
        if not start <= stop <= len(pack):
            return {}
        found[path] = pack[start:stop]
    return found
