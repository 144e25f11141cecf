"""Forgetting old states, and what only they had."""

from __future__ import annotations

import numpy as np

from radiobject.storage.commits import compaction
from radiobject.storage.commits.head import Commit, Head
from radiobject.storage.commits.transaction import Transaction
from radiobject.storage.io import files, layout
from radiobject.storage.read import reader
from radiobject.storage.schema.collection import CollectionStore


def vacuum(tx: Transaction, keep: int) -> dict[str, int]:
    """Keep the last `keep` states of a data set and remove what no kept state reads.

    The history is shortened first, by a commit of its own: a crash later leaves files that nothing
    refers to, which the next vacuum removes, and never a state without its files.

    Returns
    -------
    dict
        Numbers of states, collections and volumes removed.

    Raises
    ------
    ValueError
        If `keep` is below 1: the last state is the only copy.
    """
    if keep < 1:
        raise ValueError(f"vacuum keeps at least the last state, got keep={keep}")
    if tx.head is None:
        return {"states": 0, "collections": 0, "volumes": 0}
    kept, gone = tx.head.commits[-keep:], tx.head.commits[:-keep]
    last = kept[-1]
    if gone:
        tx.commit(
            collections=last.collections,
            n_subjects=last.n_subjects,
            n_volumes=last.n_volumes,
            forget=gone,
        )
    places = {place for state in kept for place in state.collections.values()}
    removed = {"states": len(gone), "collections": 0, "volumes": 0}
    for folder in _dropped_collections(tx.head, gone, places):
        files.remove(layout.join(tx.uri, folder))
        removed["collections"] += 1
    for place in sorted(places):
        users = tuple(state for state in kept if place in state.collections.values())
        removed["volumes"] += _vacuum_collection(layout.located(tx.uri, place), users)
    compaction.compact(tx.uri, last.collections, force=True)
    return removed


def _dropped_collections(head: Head, gone: tuple[Commit, ...], kept: set[str]) -> list[str]:
    dropped = {place for state in gone for place in state.collections.values()} - kept
    return sorted(place for place in dropped if place == layout.located("", place).lstrip("/"))


def _vacuum_collection(uri: str, kept: tuple[Commit, ...]) -> int:
    needed: set[str] = set()
    for state in kept:
        needed |= set(np.unique(CollectionStore(uri, state.timestamp).rows.arrays.astype(str)))
    removed = 0
    for volume in files.list_folder(layout.join(uri, layout.VOLUMES)):
        name = layout.base_name(volume)
        if name not in needed and layout.array_timestamp(name) is not None:
            reader.forget(volume)
            files.remove(volume)
            removed += 1
    return removed
