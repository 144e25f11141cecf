"""The files of one fragment in one object, so that a table is read by few requests.

TileDB keeps two or three files a column, some 60 for a table of volumes, most of them of a few
bytes: over a network the number of requests is what a read costs. Beside the files themselves,
which any TileDB client reads, a commit leaves one object that holds them all. It is never the only
copy: where it is missing or altered the files are fetched one by one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping

from radiobject.storage.io import layout

FOLDER = f"{layout.OWN_FOLDER}/digests"
_SUFFIX = ".pack"
_MAGIC = b"RadiObject files 1\n"
_LENGTH = struct.Struct("<I")
_FEWEST_FILES = 3
MAX_BYTES = 16 << 20
"""Larger fragments take long enough to fetch that the number of requests matters little."""


def name_of(fragment: str) -> str:
    """Return the path below its table of what holds the files of a fragment."""
    return f"{FOLDER}/{fragment}{_SUFFIX}"


def is_pack(path: str) -> bool:
    """Return whether a recorded path is that of a pack."""
    return path.startswith(f"{FOLDER}/") and path.endswith(_SUFFIX)


def packs_for(contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return packs, by their path, for new files of a table.

    Each holds a fragment; the first also what belongs to none, as schemas and marks of commits.
    """
    fragments: dict[str, list[str]] = {}
    others: list[str] = []
    for path in sorted(contents):
        folder, _, rest = path.partition("/")
        if folder == "__fragments":
            fragments.setdefault(rest.partition("/")[0], []).append(path)
        else:
            others.append(path)
    packs = {}
    for fragment, paths in fragments.items():
        if sum(len(contents[path]) for path in paths) <= MAX_BYTES:
            held, others = [*others, *paths], []
            if len(held) >= _FEWEST_FILES:
                packs[name_of(fragment)] = _packed(held, contents)
    return packs


def _packed(paths: Iterable[str], contents: Mapping[str, bytes]) -> bytes:
    sizes = {path: len(contents[path]) for path in paths}
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
