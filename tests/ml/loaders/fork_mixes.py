"""Loops in threads over forked workers, in every mix, each in a process that may hang.

`python tests/ml/loaders/fork_mixes.py COUNT` runs COUNT mixes of where a collection is opened, what
else its threads do, and where batches are taken, over 0 to 4 forked workers. It counts the runs
that hang, die, or deliver other voxels than a loop without threads and workers.
"""

from __future__ import annotations

import faulthandler
import itertools
import multiprocessing
import os
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from radiobject import RadiObject, VolumeCollection
from radiobject.ml import create_training_dataloader

LIMIT_S = 180
"""A run takes about a second; the limit is for a machine that does much else."""

OPENED = ("main", "thread", "pool")
LOOPED = ("main", "thread", "pool", "two threads")
BESIDE = ("nothing", "table", "voxels", "look-ahead", "left early")
WORKERS = (2, 1, 0, 4)


def make(folder: str) -> str:
    """Store the small data set of all runs."""
    rng = np.random.default_rng(0)
    ids = [f"sub-{i}" for i in range(4)]
    volumes = {(s, f"{s}_CT"): rng.integers(0, 999, (40, 36, 34)).astype(np.int16) for s in ids}
    VolumeCollection.from_numpy(f"{folder}/parts", volumes, name="CT")
    RadiObject.from_collections(f"{folder}/store", {"CT": f"{folder}/parts"})
    return f"{folder}/store"


def receipt(collection: VolumeCollection, workers: int, **more: Any) -> str:
    """Return the receipt of two epochs."""
    options: dict[str, Any] = {"batch_size": 2, "patch_size": (12, 12, 12), "receipt": True}
    if workers:
        options |= {"multiprocessing_context": "fork", "timeout": LIMIT_S}
    loader = create_training_dataloader(
        collection, num_workers=workers, patches_per_volume=4, **options, **more
    )
    for _ in range(2):
        for _ in loader:
            pass
    return loader.receipt()


@contextmanager
def busy(work: Callable[[], object]) -> Iterator[None]:
    """Let a thread do something again and again."""
    over = threading.Event()

    def loop() -> None:
        while not over.is_set():
            work()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def run(uri: str, expected: str, mix: tuple[str, str, str, int, bool]) -> None:
    """Run one mix; called in a process of its own, which ends with status 0 if all is right."""
    opened, looped, beside, workers, persistent = mix
    warnings.simplefilter("ignore")
    faulthandler.dump_traceback_later(LIMIT_S - 10, exit=False)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))
        places: dict[str, Callable[[Callable[[], Any]], Any]] = {
            "main": lambda work: work(),
            "thread": in_thread,
            "pool": lambda work: pool.submit(work).result(),
        }
        collection = places[opened](lambda: RadiObject(uri).CT)
        things = {
            "table": lambda: RadiObject(uri).CT.filter("obs_id != 'x'").to_obs(),
            "voxels": lambda: RadiObject(uri).CT.iloc[1].to_numpy(),
            "look-ahead": lambda: receipt(collection, 0),
        }
        if beside in things:
            stack.enter_context(busy(things[beside]))
        elif beside == "left early":
            loader = create_training_dataloader(
                collection, patch_size=(8, 8, 8), batch_size=1, num_workers=0
            )
            stack.callback(iter(loader).close)
            next(iter(loader))

        def work() -> str:
            return receipt(collection, workers, persistent_workers=persistent)

        if looped == "two threads":
            with ThreadPoolExecutor(2) as both:
                found = [f.result() for f in [both.submit(work) for _ in range(2)]]
        else:
            found = [places[looped](work)]
    faulthandler.cancel_dump_traceback_later()
    if set(found) != {expected}:
        print(f"other voxels: {mix}", file=sys.stderr)
        sys.exit(3)


def in_thread(work: Callable[[], Any]) -> Any:
    """Return what a new thread makes."""
    made = []
    thread = threading.Thread(target=lambda: made.append(work()))
    thread.start()
    thread.join()
    return made[0]


def mixes(count: int) -> list[tuple[str, str, str, int, bool]]:
    """Return so many mixes, all of them before any again, far apart ones first."""
    every = list(itertools.product(OPENED, LOOPED, BESIDE, WORKERS, (True, False)))
    step = 77  # shares no factor with their number
    return [every[i * step % len(every)] for i in range(count)]


def main(count: int) -> dict[str, int]:
    """Run mixes, print what became of them, and return how many ended how."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["radiobject.ml", "numpy"])
    ended: Counter[str] = Counter()
    since = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        uri = make(folder)
        expected = receipt(RadiObject(uri).CT, 0)
        for number, mix in enumerate(mixes(count)):
            process = context.Process(target=run, args=(uri, expected, mix))
            process.start()
            process.join(LIMIT_S)
            how = "right" if process.exitcode == 0 else f"ended with {process.exitcode}"
            if process.is_alive():
                how = "hung"
                process.kill()
                process.join()
            if how != "right":
                print(f"run {number}, {mix}: {how}", file=sys.stderr, flush=True)
            ended[how] += 1
    print(
        f"{count} runs, {ended['hung']} hung, {count - ended['right'] - ended['hung']} otherwise "
        f"wrong, {time.monotonic() - since:.0f} s"
    )
    return dict(ended)


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    sys.exit(main(wanted) != {"right": wanted})
