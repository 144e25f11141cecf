"""Forgetting old states, and what only they had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radiobject.exceptions import DiskFullError
from radiobject.executors import ExecutorLike, run
from radiobject.storage.commits import compaction
from radiobject.storage.commits.head import Commit
from radiobject.storage.commits.purge import purge
from radiobject.storage.commits.transaction import Transaction
from radiobject.storage.io import files, layout, owned
from radiobject.storage.read import reader
from radiobject.storage.schema.collection import INDEX_KEY, CollectionStore


def vacuum(tx: Transaction, keep: int, executor: ExecutorLike | None = None) -> dict[str, int]:
    """Keep the last `keep` states of a data set and remove what no kept state reads.

    The history is shortened first, by a commit of its own: a crash later leaves files that nothing
    refers to, which the next vacuum removes, and never a state without its files. Only where the
    disk has no room for that commit, room is made first, by removing what no kept state reads.
    What goes is chosen here; its files are removed where `executor` runs. Rows that were deleted or
    replaced, and values of dropped columns, leave the tables' files with the last state that had
    them.

    Returns
    -------
    dict
        Numbers of states, collections and volumes removed.

    Raises
    ------
    ValueError
        If `keep` is below 1: the last state is the only copy.
    DiskFullError
        If there is no room for the commit, and nothing to remove that would make it.
    """
    if keep < 1:
        raise ValueError(f"vacuum keeps at least the last state, got keep={keep}")
    if tx.head is None:
        return {"states": 0, "collections": 0, "volumes": 0}
    kept, gone = tx.head.commits[-keep:], tx.head.commits[:-keep]
    last = kept[-1]
    # Chosen before: a state is not read any more once it is forgotten.
    chosen = _choose(tx.uri, kept, gone)
    removed: dict[str, int] | None = None
    if gone:
        try:
            _forget(tx, gone)
        except DiskFullError:
            removed = _remove(tx.uri, chosen, executor)
            if not any(removed.values()):
                raise
            _forget(tx, gone)
    if removed is None:
        removed = _remove(tx.uri, chosen, executor)
    _purge_tables(tx, kept)
    compaction.compact(tx, last.collections, force=True)
    return {"states": len(gone), **removed}


def _forget(tx: Transaction, gone: Sequence[Commit]) -> None:
    """Commit a history without the states `gone`."""
    assert tx.last is not None
    tx.commit(
        collections=tx.last.collections,
        n_subjects=tx.last.n_subjects,
        n_volumes=tx.last.n_volumes,
        forget=gone,
    )


@dataclass(frozen=True)
class _Chosen:
    """What no kept state reads: collections, and volumes of others."""

    collections: list[str]
    volumes: list[str]


def _choose(uri: str, kept: Sequence[Commit], gone: Sequence[Commit]) -> _Chosen:
    places = {place for state in kept for place in state.collections.values()}
    former = {place for state in gone for place in state.collections.values()} - places
    located = [layout.located(uri, place) for place in sorted(former)]
    volumes: list[str] = []
    for place in sorted(places):
        users = tuple(state for state in kept if place in state.collections.values())
        others = tuple(state for state in gone if place in state.collections.values())
        volumes += _unneeded(layout.located(uri, place), users, others)
    return _Chosen([place for place in located if files.is_something(place)], volumes)


def _remove(uri: str, chosen: _Chosen, executor: ExecutorLike | None) -> dict[str, int]:
    """Remove what was chosen; return how many collections and volumes that are."""
    for location in chosen.collections:
        reader.forget(location)
        owned.remove(location, owned.COLLECTION)
    for volume in chosen.volumes:
        reader.forget(volume)
    removed = run(_remove_volume, chosen.volumes, executor=executor, places=[uri])
    return {"collections": len(chosen.collections), "volumes": sum(1 for _ in removed)}


def _purge_tables(tx: Transaction, kept: Sequence[Commit]) -> None:
    """Remove from the tables what no kept state reads."""
    oldest = kept[0].timestamp
    purge(tx, layout.join(tx.uri, layout.OBS_META), oldest)
    for place in sorted({place for state in kept for place in state.collections.values()}):
        uri = layout.located(tx.uri, place)
        states = [state for state in kept if place in state.collections.values()]
        ids: set[str] = set()
        for state in states:
            ids |= set(CollectionStore(uri, state.timestamp).rows.obs_ids.tolist())
        purge(tx, layout.join(uri, layout.OBS), oldest)
        purge(tx, layout.join(uri, layout.TILE_INDEX), oldest, (INDEX_KEY, _arrays(uri, states)))
        for name in layout.DERIVED:
            purge(tx, layout.join(uri, name), oldest, (layout.OBS_ID, ids))


def _unneeded(uri: str, kept: Sequence[Commit], gone: Sequence[Commit]) -> list[str]:
    """Return the volumes that no row of a kept state needs."""
    needed = _arrays(uri, kept)
    return [v for v in _removable(uri, gone) if layout.base_name(v) not in needed]


def _remove_volume(volume: str) -> None:
    reader.forget(volume)
    owned.remove(volume, owned.ARRAY)


def _arrays(uri: str, states: Sequence[Commit]) -> set[str]:
    """Return the names of the arrays that the rows of any of `states` need."""
    found: set[str] = set()
    for state in states:
        found |= set(np.unique(CollectionStore(uri, state.timestamp).rows.arrays.astype(str)))
    return found


def _removable(uri: str, gone: Sequence[Commit]) -> list[str]:
    """Return the volumes that are the collection's own, read by any state or by none.

    In its own folder these are the ones with names of our form. Where that folder is a link, others
    may keep theirs in the same place: there they are the ones that a state names.
    """
    folder = layout.join(uri, layout.VOLUMES)
    if files.is_link(folder):
        named = _arrays(uri, gone)
        found = [v for v in files.list_folder(folder) if layout.base_name(v) in named]
    else:
        found = files.own_entries(folder)
    return [v for v in found if layout.is_array_name(layout.base_name(v)) and not files.is_link(v)]
