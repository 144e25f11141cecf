"""This process: what has to happen when it forks, and the threads that work for it.

Each component that holds a lock, a thread or a handle of a C library names itself in `ORDER` and
registers what a fork asks of it. The order is fixed here, and not by which module happened to be
imported first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from radiobject.system import processes

ORDER = (
    # First: what libtiledb left must not be freed in a child, and any hook may free something.
    "libtiledb",
    # Then what the others call: counters, the lock around the import of Blosc2, threads.
    "counters",
    "blosc2",
    "threads",
    "object stores",
    "remote files",
    "table copies",
    "writers",
    # Files before the volumes that read them; what a device may read and the
    # cache before the volumes that give back theirs.
    "tile files",
    "unread tiles",
    "registrations",
    "decoded cache",
    "open volumes",
    "transforms",
    # It starts anew, and needs nobody.
    "huge pages",
    # Last, so before a fork first: who imports may need what the others hold.
    "imports",
)
"""Components in the order in which a forked child renews them; before a fork, in reverse."""

Hook = Callable[[], object]


@dataclass(frozen=True, slots=True)
class _Hooks:
    before: Hook | None
    in_parent: Hook | None
    in_child: Hook | None


class ForkHooks:
    """What components want done at a fork.

    Parameters
    ----------
    order : sequence of str
        The components there may be, in the order in which a child renews them.
    """

    def __init__(self, order: Iterable[str] = ORDER) -> None:
        self._order = tuple(order)
        self._hooks: dict[str, _Hooks] = {}

    def add(
        self,
        component: str,
        *,
        before: Hook | None = None,
        in_parent: Hook | None = None,
        in_child: Hook | None = None,
    ) -> None:
        """Set what a component wants done.

        Parameters
        ----------
        component : str
            One of the order.
        before, in_parent, in_child : callable, optional
            Run before the fork, and after it in either process.

        Raises
        ------
        ValueError
            If the order does not name the component.
        """
        if component not in self._order:
            raise ValueError(f"{component!r} has no place in the order {self._order}")
        self._hooks[component] = _Hooks(before, in_parent, in_child)

    def before(self) -> None:
        """Run the hooks before a fork, from the last component to the first."""
        self._run(lambda hooks: hooks.before, reversed(self._order))

    def in_parent(self) -> None:
        """Run the parent's hooks after a fork, from the first component to the last."""
        self._run(lambda hooks: hooks.in_parent, self._order)

    def in_child(self) -> None:
        """Run the child's hooks after a fork, from the first component to the last."""
        self._run(lambda hooks: hooks.in_child, self._order)

    def _run(self, choose: Callable[[_Hooks], Hook | None], order: Iterable[str]) -> None:
        """Run every hook, whichever fails, and then raise the first error."""
        errors = []
        for component in order:
            hook = choose(self._hooks[component]) if component in self._hooks else None
            if hook is not None:
                try:
                    hook()
                except Exception as error:  # noqa: BLE001 - the others must be renewed first
                    errors.append(error)
        if errors:
            try:
                raise errors[0]
            finally:
                errors.clear()  # an error holds this frame


_hooks = ForkHooks()
at_fork = _hooks.add
processes.at_fork(
    before=_hooks.before, after_in_parent=_hooks.in_parent, after_in_child=_hooks.in_child
)

_pools: dict[tuple[str, int], ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def new_threads(
    name: str, count: int, initializer: Callable[[], object] | None = None
) -> ThreadPoolExecutor:
    """Return `count` threads of the caller's own, started as they are needed.

    Parameters
    ----------
    name : str
        How debuggers and the tests call them: ``radiobject-NAME``.
    count : int
    initializer : callable, optional
        Run first in each thread.
    """
    return ThreadPoolExecutor(count, f"radiobject-{name}", initializer)


def lasting_threads(
    name: str, count: int, initializer: Callable[[], object] | None = None
) -> ThreadPoolExecutor:
    """Return threads that the whole process shares and that stay; a forked child has its own.

    A thread takes as long to start as to decode three tiles, and `malloc` keeps for it what it
    freed, tens of megabytes after an image was decoded, which another thread may not find.
    """
    with _pools_lock:
        pool = _pools.get((name, count))
        if pool is None:
            pool = _pools[name, count] = new_threads(name, count, initializer)
        return pool


def _forget_threads() -> None:
    """Make new threads in a forked child, which has none of its parent's."""
    global _pools_lock
    _pools_lock = threading.Lock()
    _pools.clear()


at_fork("threads", in_child=_forget_threads)
