"""The read engine's goals over an object store 30 ms away.

Sixteen patches are in flight at a time, nothing decoded is kept, and clients and server share this
machine's cores. The clock of the first touch starts with the ids and the places of the volumes
known, before anything of a volume was read.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.boxes import Task
from benchmarks.config import S3_BUCKET
from benchmarks.engine import decoded_cache
from benchmarks.forms import COLLECTION
from benchmarks.goals import S3_FIRST, S3_LATER, S3_MIRRORED, S3_REQUESTS, Outcome, of_ratio
from benchmarks.infrastructure.turns import summary
from benchmarks.library import inner
from benchmarks.operations import store_uri
from benchmarks.s3 import running_server, traffic, upload_folder

LATENCY_MS = 30.0
IN_FLIGHT = 16
PATCHES = 64
_MIRROR = "RADIOBJECT_MIRROR"


def network_outcomes(task: Task, rounds: int = 5, latency_ms: float = LATENCY_MS) -> list[Outcome]:
    """Return the outcomes of first touches, later patches and their requests."""
    from radiobject import RadiObject

    first, later, requests = [], [], []
    with running_server(latency_ms):
        uri = f"s3://{S3_BUCKET}/reach/{uuid.uuid4()}"
        upload_folder(Path(store_uri(task)), uri)
        for number in range(rounds):
            with _mirror(None), decoded_cache(None):
                locators = RadiObject(uri).collection(COLLECTION).locators()
                first.append(PATCHES / _read(task, locators, 2 * number))
                _touch_all(task, locators)
                before = traffic().requests
                later.append(PATCHES / _read(task, locators, 2 * number + 1))
                requests.append((traffic().requests - before) / PATCHES)
        with tempfile.TemporaryDirectory() as folder, _mirror(folder), decoded_cache(None):
            _touch_all(task, locators)
            before = traffic().requests
            _read(task, locators, 1)
            mirrored = (traffic().requests - before) / PATCHES
    return [
        of_ratio(S3_FIRST, summary(first)),
        of_ratio(S3_LATER, summary(later)),
        of_ratio(S3_REQUESTS, summary(requests)),
        Outcome(S3_MIRRORED, mirrored, rounds=1),
    ]


def _read(task: Task, locators: list[Any], seed: int) -> float:
    """Return the seconds of reading random patches, each in a call of its own."""
    rng = np.random.default_rng(seed)
    volumes = rng.permutation(np.arange(PATCHES) % len(locators))
    room = np.array([s.shape for s in task.cohort.subjects]) - task.patch_size + 1
    return _read_all(task, locators, [(int(v), rng.integers(0, room[v]).tolist()) for v in volumes])


def _touch_all(task: Task, locators: list[Any]) -> None:
    """Read the middle of every volume, where there is something to fetch."""
    middle = [
        (number, [(n - p) // 2 for n, p in zip(s.shape, task.patch_size, strict=True)])
        for number, s in enumerate(task.cohort.subjects)
    ]
    _read_all(task, locators, middle)


def _read_all(task: Task, locators: list[Any], boxes: list[tuple[int, list[int]]]) -> float:
    Box, read_into = inner("geometry.box").Box, inner("storage.read.reader").read_into
    outs = np.empty((len(boxes), *task.patch_size), task.cohort.subjects[0].dtype)

    def read(number: int) -> None:
        volume, start = boxes[number]
        read_into(locators[volume], Box.at(start, task.patch_size), outs[number])

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        begin = time.perf_counter()
        list(pool.map(read, range(len(boxes))))
        return time.perf_counter() - begin


@contextmanager
def _mirror(folder: str | None) -> Iterator[None]:
    before = os.environ.pop(_MIRROR, None)
    if folder is not None:
        os.environ[_MIRROR] = folder
    try:
        yield
    finally:
        os.environ.pop(_MIRROR, None)
        if before is not None:
            os.environ[_MIRROR] = before
