"""Finding the collection that has a volume, by as few tables as can be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from radiobject.addresses import is_remote
from radiobject.storage.read.thread_pool import run_on_threads
from radiobject.storage.schema.collection import CollectionStore

_AT_ONCE = 16


class _Collections(Protocol):
    uri: str

    def collection(self, name: str) -> CollectionStore:
        """Return the collection called `name`."""


def read_rows(store: _Collections, names: Iterable[str]) -> list[CollectionStore]:
    """Return collections whose rows are at hand: over a network, they are read side by side."""
    found = [store.collection(name) for name in names]
    if is_remote(store.uri):
        run_on_threads(lambda collection: collection.position, found, _AT_ONCE)
    return found


def collections_with(store: _Collections, names: Iterable[str], obs_id: str) -> list[str]:
    """Return the names of the collections that have a volume `obs_id`; at most one in a sound set.

    An id is most often made of the subject's and the collection's: what it names is looked at
    first. Then come the ones whose rows are at hand, and then all others.
    """
    names = list(names)
    by_name = sorted((n for n in names if obs_id.endswith(f"_{n}") or n == obs_id), key=len)[::-1]
    at_hand = [name for name in names if "rows" in store.collection(name).__dict__]
    for some in (by_name, at_hand):
        for name in some:
            if obs_id in store.collection(name).position:
                return [name]
    rest = [name for name in names if name not in by_name and name not in at_hand]
    if not is_remote(store.uri):
        return next(([name] for name in rest if obs_id in store.collection(name).position), [])
    read = zip(rest, read_rows(store, rest), strict=True)
    return [name for name, collection in read if obs_id in collection.position]
