"""The names that TileDB gives to the folders and files of an array or a group.

They are part of its format (https://github.com/TileDB-Inc/TileDB/tree/main/format_spec). What is
written carries its time in its name, ``__first_last_uuid_version``.
"""

from __future__ import annotations

import re

FRAGMENTS = "__fragments"
COMMITS = "__commits"
SCHEMA = "__schema"
METADATA = "__meta"
GROUP = "__group"
"""The members of a group."""
LABELS = "__labels"
FRAGMENT_METADATA_FOLDER = "__fragment_meta"
"""Metadata of several fragments that were merged."""
ENUMERATIONS = "__enumerations"

FRAGMENT_METADATA = "__fragment_metadata.tdb"
"""In the folder of each fragment."""
FIRST_ATTRIBUTE = "a0.tdb"
GROUP_MARK = "__tiledb_group.tdb"
OLDEST_SCHEMA = "__array_schema.tdb"
OLDEST_LOCK = "__lock.tdb"

WRITTEN = ".wrt"
"""Ending of the mark that commits one fragment."""
CONSOLIDATED = ".con"
"""Ending of the mark that commits several."""
DELETED = ".del"
"""Ending of the condition that deletes rows."""
REPLACED = ".vac"
"""Ending of the list of what a merge replaced."""

STAMP = r"__\d+_\d+_[0-9a-f]{32}(?:_\d+)?"
"""Form of a name that carries its time."""
SPAN = re.compile(r"__(\d+)_(\d+)_")
"""Its beginning: the first and the last time of what was written."""
STAMPED = re.compile(rf"({STAMP})(?:\.\w+)?")
"""What lies in the folders of an array or a group that name their entries by time."""


def span(name: str) -> tuple[int, int] | None:
    """Return the first and the last time of what has this name; None for other names."""
    found = SPAN.match(name)
    if found is None or STAMPED.fullmatch(name) is None:
        return None
    return int(found.group(1)), int(found.group(2))


def is_in(path: str, *folders: str) -> bool:
    """Return whether a path below an object lies in one of these folders of it."""
    return path.startswith(tuple(f"{folder}/" for folder in folders))
