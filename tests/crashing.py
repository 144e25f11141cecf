"""Death between any two storage calls, for the tests of recovery.

Each call that changes a store counts twice: before it begins, and after it returned. At the
chosen count the process dies: by SIGKILL in a child, or in-process by an exception that no code of
the library catches. After that every further storage call dies too, so that no clean-up runs, as
after a real kill.
"""

import os
import signal
from contextlib import ExitStack, contextmanager
from unittest import mock

import tiledb
import tiledb.libtiledb as lt

from radiobject.storage.cache import tile_cache
from radiobject.storage.cache.arena import Arena
from radiobject.storage.cache.tile_cache import VolumeImage
from radiobject.storage.tables import groups

CHANGING = (
    (groups, "create"),
    (groups, "write_metadata"),
    (groups, "add_arrays"),
    (tiledb.Array, "create"),
    (tiledb.Group, "create"),
    (tiledb.ArraySchemaEvolution, "array_evolve"),
    (lt.Query, "_submit"),
    (lt.Query, "finalize"),
    (tiledb.VFS, "remove_dir"),
    (tiledb.VFS, "remove_file"),
    (tiledb, "consolidate"),
    (tiledb, "vacuum"),
    (os, "unlink"),
    (os, "rmdir"),
    (os, "pwrite"),
    (os, "ftruncate"),
    (os, "replace"),
)
ON_CLOSE = ((tiledb.Array, "close"), (tiledb.Group, "close"))
"""Closing writes metadata; only a real death can come before it, as a destructor writes it too."""
FILLING = (
    (Arena, "attach"),
    (Arena, "reserve"),
    (Arena, "allocate"),
    (VolumeImage, "admit"),
    (VolumeImage, "fill"),
    (tile_cache, "_lock"),
)
"""What changes the shared cache; its lock is taken between a tile's voxels and their mark."""


class Killed(BaseException):
    """Stands for the end of the process."""


class Death:
    """Counts storage calls, and dies at number `at`; never if that is None."""

    def __init__(self, at=None, *, by_signal=False):
        self.at = at
        self.calls = 0
        self.dead = False
        self._by_signal = by_signal

    def point(self):
        self.calls += 1
        if self.dead or (self.at is not None and self.calls >= self.at):
            self.dead = True
            if self._by_signal:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Killed(f"at storage call {self.at}")

    def wrap(self, call):
        def counted(*args, **kwargs):
            self.point()
            result = call(*args, **kwargs)
            self.point()
            return result

        return counted


@contextmanager
def dying(at=None, calls=None, *, by_signal=False):
    """Run the block until call number `at` of `calls`; gives the `Death` that counts."""
    death = Death(at, by_signal=by_signal)
    if calls is None:
        calls = CHANGING + (ON_CLOSE if by_signal else ())
    with ExitStack() as stack:
        for owner, name in calls:
            stack.enter_context(mock.patch.object(owner, name, _like(owner, name, death)))
        yield death


class _CountedLock:
    def __init__(self, lock, death):
        self._lock, self._death = lock, death

    def __enter__(self):
        self._death.point()
        return self._lock.__enter__()

    def __exit__(self, *error):
        self._lock.__exit__(*error)
        self._death.point()


def _like(owner, name, death):
    if hasattr(getattr(owner, name), "__enter__"):
        return _CountedLock(getattr(owner, name), death)
    counted = death.wrap(getattr(owner, name))
    static = isinstance(vars(owner).get(name), staticmethod | classmethod)
    return staticmethod(counted) if static else counted
