"""The loaders' goals: what they add to the reads, and what a variant of them costs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.boxes import Task
from benchmarks.forms import COLLECTION, MASK_COLLECTION
from benchmarks.goals import (
    CONSTRUCTION,
    FIRST_BATCH,
    FOREGROUND,
    GROWTH,
    OVERHEAD,
    PAIRS,
    RING,
    TABLE_READS,
    Goal,
    Outcome,
    of_ratio,
)
from benchmarks.infrastructure.measure import endless, touch
from benchmarks.infrastructure.resources import held_mib
from benchmarks.infrastructure.turns import Ratio, interleaved, ratio, summary
from benchmarks.library import inner
from benchmarks.operations import segmentation_loader, store_uri, training_loader
from benchmarks.tables import write_tables

ROUNDS = 11
BATCHES = 50
LARGE = 100_000


def draining(loader: Any, batches: int = BATCHES) -> Callable[[], None]:
    """Return a call that takes so many batches of a loader that is running."""
    delivered = endless(loader)
    for batch in itertools.islice(delivered, len(loader)):
        touch(batch)

    def call() -> None:
        for batch in itertools.islice(delivered, batches):
            touch(batch)

    return call


def _collection(task: Task, name: str = COLLECTION) -> Any:
    from radiobject import RadiObject

    return RadiObject(store_uri(task)).collection(name)


def _decoded(task: Task, *names: str) -> Any:
    """Return the first of some collections, every tile of all in the decoded cache."""
    collections = [_collection(task, name) for name in names or (COLLECTION,)]
    for collection in collections:
        for number in range(len(collection)):
            collection.iloc[number].to_numpy()
    return collections[0]


def overhead(task: Task, rounds: int = ROUNDS) -> Ratio:
    """Return the loader's time over that of `read_into` for the boxes it has just delivered.

    Both fill a new batch each time.
    """
    Box, read_into = inner("geometry.box").Box, inner("storage.read.reader").read_into
    collection = _decoded(task)
    locators = collection.locators()
    delivered = endless(training_loader(task, collection))
    shape, dtype = (task.batch_size, *task.patch_size), task.cohort.subjects[0].dtype
    kept: list[tuple[Any, Any]] = []  # where patches came from, not the batches themselves

    def load() -> None:
        kept.clear()
        for batch in itertools.islice(delivered, BATCHES):
            touch(batch)
            kept.append((batch["idx"], batch["patch_start"]))

    def read() -> None:
        for of_batch in boxes:
            out = np.empty(shape, dtype)
            for place, (volume, box) in zip(out, of_batch, strict=True):
                read_into(locators[volume], box, place)
            touch(out)

    taken: dict[str, list[float]] = {"load": [], "read": []}
    load()
    for _ in range(rounds):
        taken["load"].append(_seconds(load))
        boxes = [
            [
                (int(volume), Box.at([int(n) for n in start], task.patch_size))
                for volume, *start in zip(volumes, *starts, strict=True)
            ]
            for volumes, starts in kept
        ]
        taken["read"].append(_seconds(read))
    return ratio(taken["load"], taken["read"])


def _seconds(call: Callable[[], None]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def ring(task: Task, rounds: int = ROUNDS) -> Ratio:
    """Return the speed of two workers with the shared ring over that of the thread path."""
    collection = _decoded(task)
    calls = {n: draining(training_loader(task, collection, workers=n)) for n in (0, 2)}
    taken = interleaved({str(n): call for n, call in calls.items()}, rounds)
    return ratio(taken["0"], taken["2"])


def pairs(task: Task, rounds: int = ROUNDS) -> Ratio:
    """Return the speed of image with mask over that of the image alone."""
    calls = {
        "image": draining(training_loader(task, _decoded(task, COLLECTION, MASK_COLLECTION))),
        "pair": draining(segmentation_loader(task)),
    }
    taken = interleaved(calls, rounds)
    return ratio(taken["image"], taken["pair"])


def foreground(task: Task, rounds: int = ROUNDS) -> Ratio:
    """Return the time of patches around foreground over that of uniform ones."""
    _decoded(task, COLLECTION, MASK_COLLECTION)
    calls = {
        name: draining(segmentation_loader(task, foreground_sampling=name == "foreground"))
        for name in ("uniform", "foreground")
    }
    taken = interleaved(calls, rounds)
    return ratio(taken["foreground"], taken["uniform"])


RATIOS: dict[str, tuple[Goal, Callable[[Task, int], Ratio]]] = {
    "overhead": (OVERHEAD, overhead),
    "ring": (RING, ring),
    "pairs": (PAIRS, pairs),
    "foreground": (FOREGROUND, foreground),
}


def ratio_outcome(name: str, task: Task, rounds: int = ROUNDS) -> Outcome:
    """Return the outcome of one of `RATIOS`."""
    goal, measured = RATIOS[name]
    return of_ratio(goal, measured(task, rounds))


def first_batch_outcome(task: Task, rounds: int = 9) -> Outcome:
    """Return the outcome of opening a store, making a loader and taking its first batch."""

    def first() -> None:
        touch(next(iter(training_loader(task, _collection(task)))))

    _decoded(task)
    first()
    return of_ratio(FIRST_BATCH, summary([_seconds(first) * 1e3 for _ in range(rounds)]))


def construction_outcomes(
    folder: Path, volumes: int = LARGE, rounds: int = 7
) -> tuple[Outcome, Outcome]:
    """Return the outcomes of a loader over many volumes: seconds, and tables read."""
    from radiobject import RadiObject
    from radiobject.ml import create_training_dataloader

    uri = str(folder / f"tables-{volumes}")
    write_tables(uri, volumes)

    def make() -> None:
        create_training_dataloader(
            RadiObject(uri).collection("CT"), patch_size=(64, 64, 64), num_workers=0
        )

    make()
    with _counted_table_reads() as reads:
        make()
    seconds = summary([_seconds(make) for _ in range(rounds)])
    return of_ratio(CONSTRUCTION, seconds), Outcome(TABLE_READS, float(sum(reads)), rounds=1)


@contextmanager
def _counted_table_reads() -> Iterator[list[int]]:
    """Yield a list that grows by a 1 with every table read."""
    Table = inner("storage.tables.table").Table
    read, counted = Table.read, []

    def counting(self: Any, *arguments: Any, **options: Any) -> Any:
        counted.append(1)
        return read(self, *arguments, **options)

    Table.read = counting  # type: ignore[method-assign]
    try:
        yield counted
    finally:
        Table.read = read  # type: ignore[method-assign]


def growth_outcome(task: Task, workers: int, patches: int = LARGE) -> Outcome:
    """Return the outcome of memory over many patches, workers and shared pages included."""
    collection = _decoded(task)
    call = draining(training_loader(task, collection, workers=workers), 250)
    call()
    before = highest = held_mib()
    for _ in range(max(1, patches // (250 * task.batch_size))):
        call()
        highest = max(highest, held_mib())
    return Outcome(GROWTH[workers], highest - before, rounds=1)
