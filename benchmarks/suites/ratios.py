"""Comparisons in which both sides are measured in turn, ours first named, lower is better."""

import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.config import use_private_cache
from benchmarks.data.boxes import Box, Task, slices
from benchmarks.data.forms import write_store
from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure.measure import interleaved, seconds_of
from benchmarks.library import inner, nothing_decoded
from benchmarks.operations import drainer, open_collection, segmentation_loader, training_loader
from benchmarks.rivals.blosc2 import Blosc2
from benchmarks.suites.base import BaseCase, chosen_size, skipping

_BOXES, _AT_ONCE, _BATCHES = 24, 4, 50
_TILE = 32


@dataclass
class Sides:
    """Two calls that do the same work, and what must be undone after they were measured."""

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    stack: ExitStack = field(default_factory=ExitStack)
    clock: Callable[[], float] = time.perf_counter

    def rounds(self, number: int) -> list[float]:
        """Return ours over theirs for each of `number` rounds, after a call of each."""
        self.ours()
        self.theirs()
        calls = {
            "ours": partial(seconds_of, self.ours, self.clock),
            "theirs": partial(seconds_of, self.theirs, self.clock),
        }
        return [taken["ours"][0] / taken["theirs"][0] for taken in interleaved(calls, number)]

    def close(self) -> None:
        """Undo what the comparison changed."""
        self.stack.close()


def _region(*edges: int) -> Callable[[Task], Sides]:
    """Compare a region, nothing decoded, with blosc2: equal blocks, codec and level, one thread.

    An edge of 0 is the volume's whole side.
    """

    def prepared(task: Task) -> Sides:
        shaped = replace(task, patch_size=edges).with_patches_that_fit().whole_sides()
        sides = shaped.patch_size
        each = -(-_BOXES // len(task.cohort.subjects))
        boxes = replace(shaped, patches_per_volume=each).boxes()[:_BOXES]
        out = np.empty((_AT_ONCE, *sides), task.cohort.subjects[0].dtype)
        rival = Blosc2(shaped)
        opened = rival.volumes()

        def theirs() -> None:
            for number, (volume, start) in enumerate(boxes):
                out[number % _AT_ONCE] = opened[volume][slices(start, sides)]

        stack = ExitStack()
        stack.enter_context(nothing_decoded())
        stack.enter_context(inner("storage.read.thread_pool").one_thread())
        ours = engine_call(open_collection(task).locators(), sides, boxes, out)
        return Sides(ours, theirs, stack)

    return prepared


def engine_call(
    locators: Sequence[Any], sides: Sequence[int], boxes: Sequence[Box], out: np.ndarray
) -> Callable[[], None]:
    """Return a call that reads `boxes` into `out` through the read engine, as a loader does."""
    region_at, reader = inner("geometry.box").Box.at, inner("storage.read.reader")
    requests = [
        reader.ReadRequest(locators[volume], region_at(start, sides), out[n % len(out)])
        for n, (volume, start) in enumerate(boxes)
    ]
    groups = [requests[n : n + len(out)] for n in range(0, len(requests), len(out))]

    def call() -> None:
        for group in groups:
            reader.read_batch(group)

    return call


def _draining(loader: Any) -> Callable[[], None]:
    """Return a call that takes some batches of a loader that is running."""
    drain = drainer(loader)
    drain(len(loader))
    return partial(drain, _BATCHES)


def _loader_over_read(task: Task) -> Sides:
    """Compare the training loader with the engine's reads of an epoch's boxes, all decoded."""
    collection = open_collection(task)
    count = _BATCHES * task.batch_size
    boxes = [box for epoch in range(5) for box in task.boxes(epoch)][:count]
    if len(boxes) < count:
        raise BenchmarkError(f"{len(boxes)} boxes for {_BATCHES} batches: use more volumes")
    out = np.empty((task.batch_size, *task.patch_size), task.cohort.subjects[0].dtype)
    read = engine_call(collection.locators(), task.patch_size, boxes, out)
    return Sides(_draining(training_loader(task, collection)), read)


def _workers_over_thread(task: Task) -> Sides:
    """Compare two workers and the shared ring with the thread path."""
    two, none = (training_loader(task, open_collection(task), workers=n) for n in (2, 0))
    return Sides(_draining(two), _draining(none))


def _pairs_over_image(task: Task) -> Sides:
    """Compare images with masks with images alone."""
    alone = training_loader(task, open_collection(task))
    return Sides(_draining(segmentation_loader(task)), _draining(alone))


def _foreground_over_uniform(task: Task) -> Sides:
    """Compare patches around foreground with uniform ones."""
    around, uniform = (segmentation_loader(task, foreground_sampling=f) for f in (True, False))
    return Sides(_draining(around), _draining(uniform))


def _ingest_over_plain(task: Task) -> Sides:
    """Compare processor time of an ingest with nibabel and a dense array, tiles and filters equal.

    Every round writes to a new place: file systems are slow to reuse what was deleted just now.
    """
    stack = ExitStack()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=task.home)))
    places = (folder / str(n) for n in itertools.count())
    cohort = task.cohort.first(2)

    def ours() -> None:
        write_store(cohort, next(places), "isotropic", labels=False)

    def theirs() -> None:
        place = next(places)
        place.mkdir()
        for subject in cohort.subjects:
            _write_plain(subject.voxels(), str(place / subject.id))

    return Sides(ours, theirs, stack, time.process_time)


def _write_plain(voxels: np.ndarray, uri: str) -> None:
    import tiledb

    dimensions = [
        tiledb.Dim(name, domain=(0, side - 1), tile=min(_TILE, side), dtype=np.int32)
        for name, side in zip("xyz", voxels.shape, strict=True)
    ]
    filters = [tiledb.ByteShuffleFilter(), tiledb.ZstdFilter(3)]
    attribute = tiledb.Attr("voxels", dtype=voxels.dtype, filters=filters)
    schema = tiledb.ArraySchema(domain=tiledb.Domain(*dimensions), attrs=[attribute])
    tiledb.Array.create(uri, schema)
    with tiledb.open(uri, "w") as array:
        array[:] = voxels


RATIOS: dict[str, Callable[[Task], Sides]] = {
    "engine / blosc2, 64 cubed": _region(64, 64, 64),
    "engine / blosc2, 96 cubed": _region(96, 96, 96),
    "engine / blosc2, axial slice": _region(0, 0, 1),
    "engine / blosc2, sagittal slice": _region(1, 0, 0),
    "engine / blosc2, volume": _region(0, 0, 0),
    "loader / engine": _loader_over_read,
    "two workers / thread": _workers_over_thread,
    "pairs / image": _pairs_over_image,
    "foreground / uniform": _foreground_over_uniform,
    "ingest / nibabel and a dense array": _ingest_over_plain,
}


class Ratios(BaseCase):
    """Medians over rounds in which both sides were measured in turn."""

    params = tuple(RATIOS)
    param_names = ("ours over",)
    unit = "x"

    sides = None  # asv tears down what setup skipped, too

    def setup(self, task, name):
        use_private_cache()
        with skipping():
            self.sides = RATIOS[name](task)

    def teardown(self, task, name):
        if self.sides is not None:
            self.sides.close()

    def track_ratio(self, task, name):
        return {"samples": self.sides.rounds(3 * chosen_size().rounds), "number": 1}
