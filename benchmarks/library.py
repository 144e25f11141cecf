"""The library's inner modules, wherever the commit under test keeps them.

Today's benchmarks measure older commits too. Public names are imported as users do; what lies
deeper is asked for here by today's path, and looked for under the path that it had before.
"""

from __future__ import annotations

import importlib
import os
import time
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

    Raises
    ------
    ImportError
        If it lies neither there nor where it lay before. A module that is there and misses
        another one is broken, and its own error comes through.
    """
    try:
        return importlib.import_module(f"radiobject.{module}")
    except ModuleNotFoundError as error:
        before = MOVED.get(module)
        if before is None or not f"radiobject.{module}.".startswith(f"{error.name}."):
            raise
        return importlib.import_module(f"radiobject.{before}")


@contextmanager
def decoded_cache(budget_mb: int | None) -> Iterator[None]:
    """Read with an empty decoded cache of its own, or, for None, with none."""
    from radiobject.ctx import ReadConfig, configure, get_radiobject_config

    before, settings = os.environ.get("RADIOBJECT_CACHE"), get_radiobject_config().read
    name = f"bench-{os.getpid()}-{time.monotonic_ns()}"
    _use_cache("off" if budget_mb is None else name)
    if budget_mb is not None:
        configure(read=ReadConfig(tile_cache_size_mb=budget_mb))
    try:
        yield
    finally:
        configure(read=settings)
        _use_cache(before)


def _use_cache(name: str | None) -> None:
    inner("storage.read.reader").close_all()
    inner("storage.cache.tile_cache").detach()
    if name is None:
        os.environ.pop("RADIOBJECT_CACHE", None)
    else:
        os.environ["RADIOBJECT_CACHE"] = name
