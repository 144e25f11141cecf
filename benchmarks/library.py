"""The library's inner modules, wherever the commit under test keeps them.

Today's benchmarks measure older commits too. Public names are imported as users do; what lies
deeper is asked for here by today's path, and looked for under the path that it had before.
"""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

# By today's path, the path of version 0.2.0.
MOVED = {
    "geometry.box": "plan.box",
    "ingest.plan": "ingest_plan",
    "storage.cache.tile_cache": "storage.tile_cache",
    "storage.commits.head": "storage.commit",
    "storage.commits.transaction": "storage.commit",
    "storage.io.layout": "storage.layout",
    "storage.io.libtiledb": "storage.handles",
    "storage.read.reader": "storage.reader",
    "storage.read.thread_pool": "storage.side_by_side",
    "storage.schema.collection": "storage.collection",
    "storage.schema.dataset": "storage.dataset",
    "storage.schema.volume_rows": "storage.volume_rows",
    "storage.tables.table": "storage.table",
    "storage.tables.writer": "storage.writer",
}


def inner(module: str) -> ModuleType:
    """Return a module of the library, named by its path below ``radiobject`` of today.

    A module that is there and misses another one is broken, and its own error comes through.
    """
    try:
        return importlib.import_module(f"radiobject.{module}")
    except ModuleNotFoundError as error:
        before = MOVED.get(module)
        if before is None or not f"radiobject.{module}.".startswith(f"{error.name}."):
            raise
        return importlib.import_module(f"radiobject.{before}")


@contextmanager
def nothing_decoded() -> Iterator[None]:
    """Read without a decoded cache, and with nothing of an earlier one to be found."""
    before = os.environ.get("RADIOBJECT_CACHE")
    _use_cache("off")
    try:
        yield
    finally:
        _use_cache(before)


def _use_cache(name: str | None) -> None:
    inner("storage.read.reader").close_all()
    inner("storage.cache.tile_cache").detach()
    if name is None:
        os.environ.pop("RADIOBJECT_CACHE", None)
    else:
        os.environ["RADIOBJECT_CACHE"] = name
